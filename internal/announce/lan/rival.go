package lan

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"
)

const (
	// A claim that is repeated after this is a conflict. An address that moves between nodes is claimed by both for a
	// moment.
	confirmAfter = time.Second
	// Everybody is told again after a claim, but not more often than this (RFC 5227, DEFEND_INTERVAL).
	defendInterval = 10 * time.Second
	// A rival that made no claim for so long, although asked, is gone.
	forgetAfter = 3 * slowPause
)

// rival is another machine that uses one of our addresses.
type rival struct {
	mac         MAC
	first, last time.Time // of its claims
	told        bool
	defended    time.Time
}

// claimed notes that somebody says to have an address.
func (s *Speaker) claimed(a netip.Addr, by MAC, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.addrs[a]
	if t == nil {
		return
	}
	r := &t.rival
	if r.mac != by || now.Sub(r.last) > forgetAfter {
		*r = rival{mac: by, first: now, defended: r.defended}
	}
	r.last = now
	if now.Sub(r.defended) >= defendInterval {
		r.defended, t.next = now, now.Add(quickPause) // tells everybody, and asks again
		s.poke()
	}
	if r.told || now.Sub(r.first) < confirmAfter {
		return
	}
	r.told = true
	text := r.text(a)
	s.cfg.Log.Warn("another machine has a load balancer address", "address", a, "machine", net.HardwareAddr(by[:]))
	if of := s.plan.Of(a); of != nil && s.cfg.Conflict != nil {
		s.cfg.Conflict(of.Services, text)
	}
}

func (r *rival) text(a netip.Addr) string {
	return fmt.Sprintf("another machine on the LAN, %s, has %s as well: take it from that machine or out of the pool", net.HardwareAddr(r.mac[:]), a)
}

// Problem says which addresses another machine has as well; empty when none.
func (s *Speaker) Problem() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []string
	for a, t := range s.addrs {
		if t.rival.told && time.Since(t.rival.last) <= forgetAfter {
			all = append(all, t.rival.text(a))
		}
	}
	slices.Sort(all)
	return strings.Join(all, "; ")
}
