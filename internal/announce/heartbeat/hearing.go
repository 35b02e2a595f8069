package heartbeat

import (
	"maps"
	"slices"
	"time"

	"minato/internal/model"
)

// hearing is what one agent has heard, and what it makes of it. It reads no clock.
type hearing struct {
	self, witness string // no witness: empty
	last          map[string]heard
	own           model.PeerState
	fit           time.Time // from when on the agent is not new any more
	judged        time.Time // the last time
}

type heard struct {
	at    time.Time
	state model.PeerState
}

// newHearing begins as one who was never away, with the witness counting as just heard.
func newHearing(self, witness string, now time.Time) hearing {
	h := hearing{self: self, witness: witness, last: map[string]heard{}, judged: now}
	if witness != "" {
		h.last[witness] = heard{at: now}
	}
	return h
}

func (h *hearing) hear(name string, state model.PeerState, now time.Time) {
	h.last[name] = heard{now, state}
}

// resume begins again after a time in which nothing could be heard.
func (h *hearing) resume(now time.Time) {
	for name, l := range h.last {
		h.last[name] = heard{now, l.state}
	}
	h.fit, h.judged = now.Add(hold), now
}

// judge is called every interval. Who is no member any more is forgotten.
func (h *hearing) judge(now time.Time, members []Member) Heard {
	away := map[string]bool{h.witness: false}
	for _, m := range members {
		away[m.Name] = m.Away
	}
	maps.DeleteFunc(h.last, func(name string, _ heard) bool { _, is := away[name]; return !is })
	if now.Sub(h.judged) >= patience { // this process stood still: others may have taken over
		h.resume(now)
	}
	h.judged = now
	loud, silent := 1, 0 // itself
	with := h.witness == ""
	states := map[string]model.PeerState{}
	for name, l := range h.last {
		switch state := l.state; {
		case now.Sub(l.at) > patience:
			states[name] = model.PeerSilent
			if !away[name] {
				silent++
			}
		default:
			loud++
			states[name] = state
			with = with || name == h.witness
		}
	}
	switch cutOff := loud < silent || loud == silent && !with; {
	case cutOff:
		h.own, h.fit = model.PeerCutOff, now.Add(hold)
	case now.Before(h.fit):
		h.own = model.PeerNew
	default:
		h.own = model.PeerFit
	}
	states[h.self] = h.own
	delete(states, h.witness)
	v := Heard{Connected: h.witness == "" || now.Sub(h.last[h.witness].at) <= parting}
	for _, name := range slices.Sorted(maps.Keys(states)) {
		v.Peers = append(v.Peers, model.Peer{NodeName: name, State: states[name]})
	}
	return v
}
