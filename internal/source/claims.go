package source

import (
	"net/netip"
	"slices"

	"minato/internal/model"
)

// claim is an address at which only one Service can answer.
type claim struct {
	addr     netip.AddrPort
	protocol model.Protocol
}

// claims says which Service holds each frontend address. Of several that want one, the oldest has it, by creation
// time and then by name, whatever the order in which they were heard of. When it goes, the next one gets it.
type claims struct {
	holder map[claim]*record
	rivals map[claim][]*record // who wait, in order; absent where nobody does

	touched   map[*record]struct{} // their held frontends may have changed since settled
	contested bool                 // rivals changed since settled
}

func newClaims() claims {
	return claims{holder: map[claim]*record{}, rivals: map[claim][]*record{}, touched: map[*record]struct{}{}}
}

// older orders the Services that want one address.
func older(a, b *record) int {
	if c := a.object.Created.Compare(b.object.Created); c != 0 {
		return c
	}
	return a.name.Compare(b.name)
}

func (c *claims) add(r *record) {
	c.touched[r] = struct{}{}
	for _, f := range r.object.Frontends {
		k := claim{f.Addr, f.Protocol}
		h := c.holder[k]
		if h == nil {
			c.holder[k] = r
			continue
		}
		loser := r
		if older(r, h) < 0 {
			c.holder[k], loser = r, h
		}
		i, _ := slices.BinarySearchFunc(c.rivals[k], loser, older)
		c.rivals[k] = slices.Insert(c.rivals[k], i, loser)
		c.touched[loser] = struct{}{}
		c.contested = true
	}
}

// remove takes back every claim of r. It must be called before r.object changes, since that decides the order.
func (c *claims) remove(r *record) {
	for _, f := range r.object.Frontends {
		k := claim{f.Addr, f.Protocol}
		waiting := c.rivals[k]
		switch {
		case c.holder[k] != r:
			i := slices.Index(waiting, r)
			waiting = slices.Delete(waiting, i, i+1)
		case len(waiting) == 0:
			delete(c.holder, k)
			continue
		default:
			c.holder[k] = waiting[0]
			c.touched[waiting[0]] = struct{}{}
			waiting = slices.Delete(waiting, 0, 1)
		}
		c.contested = true
		if c.rivals[k] = waiting; len(waiting) == 0 {
			delete(c.rivals, k)
		}
	}
}

// held is the frontends of r that no older Service holds.
func (c *claims) held(r *record) []model.Frontend {
	lost := func(f model.Frontend) bool { return c.holder[claim{f.Addr, f.Protocol}] != r }
	if !slices.ContainsFunc(r.object.Frontends, lost) {
		return r.object.Frontends
	}
	return slices.DeleteFunc(slices.Clone(r.object.Frontends), lost)
}

func (c *claims) conflicts() []model.Conflict {
	var all []model.Conflict
	for k, waiting := range c.rivals {
		for _, r := range waiting {
			all = append(all, model.Conflict{Addr: k.addr, Protocol: k.protocol, Winner: c.holder[k].name, Loser: r.name})
		}
	}
	return all
}

func (c *claims) settled() {
	c.touched = emptied(c.touched)
	c.contested = false
}
