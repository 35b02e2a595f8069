package explain

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"minato/internal/dataplane/nftables"
	"minato/internal/model"
)

// compare reads what the node's kernel holds for this connection: where that is not what is planned, packets follow
// the kernel, and so does the verdict.
func (t *trace) compare(s *model.Service, f model.Frontend, n *model.Node, scope model.Scope) {
	client := t.own(t.r.Addr.Addr().Is6())
	var held Held
	if t.Held != nil {
		var err error
		if held, err = t.Held(n.Name, Frontend{scope, t.r.Addr, f.Protocol}, client); err != nil {
			t.notef("what the kernel of %s holds could not be read: %v", n.Name, err)
			return
		}
		key := nftables.Key{Scope: scope, Addr: t.r.Addr.Addr(), Protocol: f.Protocol, Port: t.r.Addr.Port()}
		if held.Found {
			t.r.Counted = &held.Counted
		}
		if plan, pool, ok := nftables.PlanService(s, n, false).Frontend(key); ok {
			t.differences(n.Name, plan, pool, held)
		}
	}
	if s.SessionAffinity > 0 && t.r.Verdict == Delivered {
		t.affinity(s, client, held.Pin)
	}
}

func (t *trace) differences(node string, plan nftables.Frontend, pool *nftables.Pool, held Held) {
	differences := held.Differences(plan, pool)
	if len(differences) == 0 {
		return
	}
	for _, d := range differences {
		t.r.Kernel = append(t.r.Kernel, fmt.Sprintf("that of %s %s", node, d))
	}
	verdicts := map[model.Verdict]Verdict{model.Forward: Delivered, model.Reject: Refused, model.Drop: Dropped}
	switch {
	case !held.Found:
		t.end(Dropped, "the kernel of %s does not have this address, so that nothing is translated", node)
	case held.Verdict != pool.Class.Verdict:
		t.end(verdicts[held.Verdict], "the kernel of %s does not have what is planned", node)
	}
	t.advise("ask again: what differs is put right within two seconds; where it stays, `minato status` says why, and `minato diff --node %s` what", node)
}

// affinity says which backend the client keeps, or that it will keep the one it gets.
func (t *trace) affinity(s *model.Service, client netip.Addr, pin Pin) {
	i := slices.IndexFunc(t.r.Backends, func(c Choice) bool { return c.Addr == pin.Backend })
	switch {
	case i >= 0:
		t.r.Pinned = &pin
		for _, c := range slices.Delete(slices.Clone(t.r.Backends), i, i+1) {
			t.r.LeftOut = append(t.r.LeftOut, LeftOut{c.Addr, c.Pod, c.Node, "session affinity keeps the client at " + pin.Backend.String()})
		}
		t.r.Backends = t.r.Backends[i : i+1]
		t.even()
		t.notef("session affinity: %s keeps %s for %s more, and for %s after each new connection",
			client, pin.Backend, pin.Left.Round(time.Second), s.SessionAffinity)
	case t.Held != nil && client.IsValid():
		t.notef("session affinity: %s has no backend yet; it keeps the one that it gets until %s after its last connection", client, s.SessionAffinity)
	default:
		t.notef("session affinity: a client that comes again within %s reaches the same backend; --from ADDRESS says which", s.SessionAffinity)
	}
}
