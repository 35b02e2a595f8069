package announce

import (
	"maps"
	"net/netip"
	"slices"

	"minato/internal/model"
)

// Next is New(s), computed from p in time proportional to what differs.
func (p *Plan) Next(s *model.Snapshot) *Plan {
	s = s.On(nil)
	changes := model.Diff(p.of, s)
	everything := p.of == nil || changes.LoadBalancing || changes.Nodes || changes.Peers
	next := &Plan{of: s, all: map[netip.Addr]*Announcement{}}
	users := users{}
	if everything {
		for svc := range s.Services() {
			users.add(svc, svc)
		}
	} else {
		p.touched(users, changes.Services)
		if next.all = p.all; len(users) > 0 {
			next.all = maps.Clone(p.all)
		}
	}
	nodes := candidates(s)
	for a, names := range users {
		if delete(next.all, a); len(names) > 0 {
			next.all[a] = plan(s.LoadBalancing, nodes, a, names.services(s))
		}
	}
	return next
}

// users are the Services that have an address, for each address that is planned anew.
type users map[netip.Addr]names

type names map[model.ServiceName]bool

// add notes every address of where; it is used by svc, if that has it too.
func (u users) add(where, svc *model.Service) {
	for _, a := range addrsOf(where) {
		if u[a] == nil {
			u[a] = names{}
		}
		if slices.Contains(addrsOf(svc), a) {
			u[a][svc.Name] = true
		}
	}
}

// touched are the users of every address that a changed Service had or has: those before, but for the changes.
func (p *Plan) touched(u users, changed []model.ServiceChange) {
	for _, c := range changed {
		u.add(c.Old, c.New)
		u.add(c.New, c.New)
	}
	isNew := map[model.ServiceName]bool{}
	for _, c := range changed {
		isNew[c.Name] = true
	}
	for a := range u {
		before := p.all[a]
		if before == nil {
			continue
		}
		for _, n := range before.Services {
			if !isNew[n] {
				u[a][n] = true
			}
		}
	}
}

func (n names) services(s *model.Snapshot) (all []*model.Service) {
	for _, name := range slices.SortedFunc(maps.Keys(n), model.ServiceName.Compare) {
		all = append(all, s.Service(name))
	}
	return all
}
