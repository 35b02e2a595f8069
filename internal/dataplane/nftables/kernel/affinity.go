//go:build linux

package kernel

import (
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"minato/internal/nfnl"
)

// DefaultAffinityClients is how many clients are remembered for session affinity in each family when Config does not say.
const DefaultAffinityClients = 1 << 18

// affinityEvery is how often Run looks how many clients are remembered.
const affinityEvery = 5 * time.Second

// scarce is the part of the room for clients from which on it is said that it gets scarce.
const scarce = 0.9

// affinity is how full the set of remembered clients was when it was last looked at. Packets fill it, so that no
// transaction tells.
type affinity struct {
	mu      sync.Mutex
	problem string // empty: there is room
	said    [2]bool
	forgone uint64
	known   bool // forgone is
}

// lookAtAffinity notes how many clients are remembered, and warns once when it gets scarce and once when there is no room.
// k is asked instead of the Applier's own socket, for which Program would wait. A kernel that does not count elements
// says by a rule's counter alone that there was no room.
func (a *Applier) lookAtAffinity(k Kernel) error {
	for _, t := range a.tables {
		n, counted, err := k.Count(t.id, t.table, string(setAff))
		if err != nil {
			return err
		}
		full := n >= t.clients
		if !counted {
			rules, err := k.Rules(t.id, t.table, "")
			if err = ignoreMissing(err); err != nil {
				return err
			}
			full = t.remembered.grew(forgone(rules))
		}
		if text := t.remembered.note(t, n, full); text != "" {
			a.cfg.Log.Warn(text, "namespace", a.cfg.Netns.String())
		}
	}
	return nil
}

// grew reports whether there were connections without room since the last time.
func (f *affinity) grew(n uint64) bool {
	was, known := f.forgone, f.known
	f.forgone, f.known = n, true
	return known && n > was
}

// note takes over what was seen of a table, and returns what is to be said of it that was not said before.
func (f *affinity) note(t *table, n int, full bool) (say string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	const advice = "shorten sessionAffinityConfig.clientIP.timeoutSeconds of Services with many clients"
	level := 0
	switch {
	case full:
		level, f.problem = 1, fmt.Sprintf("%s: session affinity has no room for more than %d clients of %s, and further ones get any endpoint",
			advice, t.clients, familyLabel(t.id))
	case float64(n) >= scarce*float64(t.clients):
		f.problem = fmt.Sprintf("%s: session affinity remembers %d of at most %d clients of %s", advice, n, t.clients, familyLabel(t.id))
	default:
		f.problem, f.said = "", [2]bool{}
		return ""
	}
	if f.said[level] {
		return ""
	}
	f.said[level] = true
	return f.problem
}

// Problem says what the node has no room for, or nearly none; empty when there is room for all. It is as old as the last
// look of Run, at most some seconds.
func (a *Applier) Problem() string {
	var all []string
	for _, t := range a.tables {
		t.remembered.mu.Lock()
		if p := t.remembered.problem; p != "" {
			all = append(all, p)
		}
		t.remembered.mu.Unlock()
	}
	return strings.Join(all, "; ")
}

// forgone adds up the connections of clients that could not be remembered: in the chain of a class with affinity, they
// come to the rule after the one that remembers.
func forgone(rules []nfnl.Rule) (sum uint64) {
	for _, r := range rules {
		if r.Comment == commentRandom && strings.HasPrefix(r.Chain, affinityChains) {
			_, n := outcome(r)
			sum += n
		}
	}
	return sum
}

var (
	clientsDesc = prometheus.NewDesc("minato_affinity_clients",
		"Clients that are remembered for session affinity, once for each port of a Service. None where the kernel does not say.", []string{byFamily}, nil)
	roomDesc    = prometheus.NewDesc("minato_affinity_clients_limit", "The most that are remembered; further ones get any endpoint.", []string{byFamily}, nil)
	forgoneDesc = prometheus.NewDesc("minato_affinity_forgone_total",
		"Connections of clients that were not remembered, because there was no room.", []string{byFamily}, nil)
)

// collectAffinity takes microseconds: no client is listed.
func (t *table) collectAffinity(out chan<- prometheus.Metric, rules []nfnl.Rule) {
	label := familyLabel(t.id)
	out <- prometheus.MustNewConstMetric(roomDesc, prometheus.GaugeValue, float64(t.clients), label)
	out <- prometheus.MustNewConstMetric(forgoneDesc, prometheus.CounterValue, float64(forgone(rules)), label)
	switch n, ok, err := t.kernel.Count(t.id, t.table, string(setAff)); {
	case err != nil:
		out <- prometheus.NewInvalidMetric(clientsDesc, err)
	case ok:
		out <- prometheus.MustNewConstMetric(clientsDesc, prometheus.GaugeValue, float64(n), label)
	}
}
