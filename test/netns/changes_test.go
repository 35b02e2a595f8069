//go:build linux

package netns_test

import (
	"context"
	"fmt"
	"net/netip"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"minato/internal/dataplane/nftables/kernel"
	"minato/internal/model"
	"minato/internal/netns/netnstest"
	"minato/internal/nfnl"
)

// elements counts the changes of elements that another process sees.
func (w *world) listing() string {
	w.t.Helper()
	out, err := netnstest.Try(w.node, "sh", "-c", "nft --handle list ruleset 2>/dev/null")
	if err != nil {
		w.t.Fatalf("nft list ruleset: %v\n%s", err, out)
	}
	return out
}

func (w *world) differences() []kernel.Difference {
	w.t.Helper()
	d, err := w.dp.Diff(context.Background())
	if err != nil {
		w.t.Fatal(err)
	}
	return d
}

func TestScalingUnderTrafficFailsNoConnection(t *testing.T) {
	w := newWorld(t)
	all := []int{2, 3, 4, 5, 6}
	w.serve(all...)
	client := w.pod(9)
	endpoints := func(n ...int) (out []string) {
		for _, i := range n {
			out = append(out, fmt.Sprintf("10.244.1.%d", i))
		}
		return out
	}
	w.apply(w.service("web", 1, nil, endpoints(all...)...))
	stop := make(chan struct{})
	var clients sync.WaitGroup
	var done, failed atomic.Int64
	for range 2 {
		clients.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if _, err := netnstest.Ask(client, "tcp", "10.96.0.1:80"); err != nil {
					failed.Add(1)
					t.Log(err)
				}
				done.Add(1)
			}
		})
	}
	for i := 0; i < 600 || done.Load() < 1000; i++ {
		n := 1 + i%len(all)
		w.apply(w.service("web", 1, nil, endpoints(append(all[n-1:], all[:i%n]...)...)...))
	}
	close(stop)
	clients.Wait()
	if failed.Load() > 0 {
		t.Errorf("%d of %d connections failed", failed.Load(), done.Load())
	}
}

func TestRestartAdoptsWhatIsThere(t *testing.T) {
	w := newWorld(t)
	w.serve(2, 3)
	client := w.pod(9)
	sticky := func(s *model.Service) { s.SessionAffinity = time10m }
	w.apply(w.service("web", 1, nil, "10.244.1.2", "10.244.1.3"), w.service("sticky", 2, sticky, "10.244.1.2", "10.244.1.3"))
	remembered := netnstest.MustAsk(t, client, "tcp", "10.96.0.2:80").Name
	before := w.listing()
	w.dp.Close()

	w.dp = w.open()
	w.programmed()
	after := w.listing()
	if withoutCounters(before) != withoutCounters(after) {
		t.Errorf("the restart changed the tables:\n%s", netnstest.Diff(before, after))
	}
	if a := netnstest.MustAsk(t, client, "tcp", "10.96.0.2:80"); a.Name != remembered {
		t.Errorf("affinity is lost: %s after %s", a.Name, remembered)
	}
}

func TestRestartDeletesWhatIsGoneOnceTheSnapshotIsComplete(t *testing.T) {
	w := newWorld(t)
	w.serve(2)
	w.apply(w.service("web", 1, nil, "10.244.1.2"), w.service("old", 2, nil, "10.244.1.2"))
	w.dp.Close()

	w.dp = w.open()
	incomplete := model.Empty().With(func(e *model.Edit) { e.SetService(w.service("web", 1, nil, "10.244.1.2")) }).On(w.self)
	for _, f := range []func() error{
		func() error { _, err := w.dp.Program(context.Background(), incomplete); return err },
		func() error { return w.dp.Reap(context.Background(), incomplete) },
	} {
		if err := f(); err != nil {
			t.Fatal(err)
		}
	}
	netnstest.MustAsk(t, w.node, "tcp", "10.96.0.2:80")
	w.snap = incomplete
	w.apply()
	if strings.Contains(w.listing(), "10.96.0.2 ") {
		t.Errorf("still there:\n%s", w.listing())
	}
}

func TestTamperingIsFoundAndRepaired(t *testing.T) {
	for _, c := range []struct{ name, command, says string }{
		{"endpoint deleted", "nft flush map ip minato ep", "missing in ip minato: ep 1: 10.244.1.2:8080 (default/web)"},
		{"slots deleted", "nft flush map ip minato slot", "missing in ip minato: slot 0 of pool"},
		{"rules deleted", "nft flush chain ip minato prerouting", "changed in ip minato: rules of chain prerouting"},
		{"class chain emptied", "nft flush chain ip minato random-over-1", "changed in ip minato: rules of chain random-over-1"},
		{"table deleted", "nft delete table ip minato", "changed in ip minato: rules of chain prerouting"},
		{"everything deleted", "nft flush ruleset", "changed in ip6 minato: rules of chain prerouting"},
		{"node's addresses deleted", "nft flush map ip minato scope", "changed in ip minato: set scope"},
		{"stranger added", "nft add element ip minato vip { 10.96.0.44 }", "extra in ip minato: vip 10.96.0.44"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			w.serve(2)
			w.apply(w.service("web", 1, nil, "10.244.1.2"))
			if d := w.differences(); len(d) > 0 {
				t.Fatalf("before: %v", d)
			}
			w.run(w.node, c.command)
			if !strings.Contains(fmt.Sprint(w.differences()), c.says) {
				t.Errorf("got %v, want %q", w.differences(), c.says)
			}
			w.observed(true)
			w.programmed()
			if d := w.differences(); len(d) > 0 {
				t.Errorf("after: %v", d)
			}
			netnstest.MustAsk(t, w.node, "tcp", "10.96.0.1:80")
			netnstest.MustAsk(t, w.outside, "tcp", nodeAddr+":30001")
		})
	}
}

// observed looks for changes by others, until it is time for that.
func (w *world) observed(want bool) {
	w.t.Helper()
	for deadline := time.Now().Add(2 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		differs, err := w.dp.Observe(context.Background())
		switch {
		case err != nil:
			w.t.Fatal(err)
		case differs == want:
			return
		case differs || time.Now().After(deadline):
			w.t.Fatalf("differs: %t, want %t", differs, want)
		}
	}
}

func TestObservingAgainFindsLaterTampering(t *testing.T) {
	w := newWorld(t)
	w.serve(2, 3)
	w.apply(w.service("web", 1, nil, "10.244.1.2"))
	w.observed(false)
	w.apply(w.service("web", 1, nil, "10.244.1.2", "10.244.1.3")) // own changes in between
	w.observed(false)
	w.run(w.node, "nft flush map ip minato ep")
	w.observed(true)
	w.programmed()
	netnstest.MustAsk(t, w.node, "tcp", "10.96.0.1:80")
}

// The number of commits alone would not tell: the tampering moves the generation, and the commit after it does too.
func TestTamperingJustBeforeACommitIsFound(t *testing.T) {
	w := newWorld(t)
	w.serve(2, 3)
	w.apply(w.service("web", 1, nil, "10.244.1.2"), w.service("other", 2, nil, "10.244.1.2"))
	w.observed(false)
	w.run(w.node, "nft flush set ip minato hairpin")
	w.apply(w.service("other", 2, nil, "10.244.1.3"))
	w.observed(true)
	w.programmed()
	if d := w.differences(); len(d) > 0 {
		t.Errorf("after: %v", d)
	}
}

func TestChainsAndRulesDoNotGrowWithServices(t *testing.T) {
	count := func(services int) (chains, rules int) {
		w := newWorld(t)
		var all []*model.Service
		for i := range services {
			all = append(all, w.service(fmt.Sprint("s", i), 100+i, func(s *model.Service) { s.Frontends = s.Frontends[:1] },
				"10.244.1.2", "10.244.1.3", farPod))
		}
		w.apply(all...)
		c, err := nfnl.Open(w.node)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		cs, err := c.Chains(nfnl.IPv4, kernel.DefaultTable)
		if err != nil {
			t.Fatal(err)
		}
		rs, err := c.Rules(nfnl.IPv4, kernel.DefaultTable, "")
		if err != nil {
			t.Fatal(err)
		}
		return len(cs), len(rs)
	}
	chains, rules := count(10)
	if c, r := count(5000); c != chains || r != rules {
		t.Errorf("10 Services have %d chains and %d rules, 5000 have %d and %d", chains, rules, c, r)
	}
}

func TestRemoveLeavesNothingAndCloseLeavesAll(t *testing.T) {
	w := newWorld(t)
	if err := w.dp.Remove(context.Background()); err != nil {
		t.Fatal(err)
	}
	if got := w.listing(); got != "" {
		t.Errorf("left behind: %s", got)
	}
	w.dp.Close()
	w.dp = w.open()
	w.serve(2)
	w.apply(w.service("web", 1, nil, "10.244.1.2"))
	w.dp.Close()
	netnstest.MustAsk(t, w.node, "tcp", "10.96.0.1:80")
}

func TestTableOfAnotherVersionIsReplacedWithoutAGap(t *testing.T) {
	w := newWorld(t)
	w.serve(2)
	w.apply(w.service("web", 1, nil, "10.244.1.2"))
	w.dp.Close()
	c, err := nfnl.Open(w.node)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	b := nfnl.NewBatch() // a table whose rules this version does not know
	for _, f := range []nfnl.Family{nfnl.IPv4, nfnl.IPv6} {
		b.DeleteTable(f, kernel.DefaultTable)
		b.AddTable(nfnl.Table{Family: f, Name: kernel.DefaultTable, Comment: "an older version"})
		b.AddChain(nfnl.Chain{Family: f, Table: kernel.DefaultTable, Name: "theirs"})
	}
	if err := c.Commit(b); err != nil {
		t.Fatal(err)
	}

	w.dp = w.open()
	if _, err := w.dp.Program(context.Background(), model.Empty().On(w.self)); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(w.listing(), "chain theirs") {
		t.Error("replaced before the first complete snapshot")
	}
	w.observed(false) // known already
	w.programmed()
	if strings.Contains(w.listing(), "chain theirs") {
		t.Error("not replaced")
	}
	netnstest.MustAsk(t, w.node, "tcp", "10.96.0.1:80")
	if d := w.differences(); len(d) > 0 {
		t.Errorf("differences: %v", d)
	}
}

func TestNewNodeAddressServesNodePorts(t *testing.T) {
	w := newWorld(t)
	w.serve(2)
	w.apply(w.service("web", 1, nil, "10.244.1.2"))
	w.run(w.node, "ip address add 172.30.0.12/24 dev eth0")
	moved := *w.self
	moved.Addrs = []netip.Addr{netip.MustParseAddr("172.30.0.12"), netip.MustParseAddr(nodeAddr)}
	w.self = &moved
	w.apply()
	for _, addr := range []string{"172.30.0.12", nodeAddr} {
		if a := netnstest.MustAsk(t, w.outside, "tcp", addr+":30001"); a.Peer.String() != "172.30.0.12" {
			t.Errorf("%s: the pod saw %s, want the node's first address", addr, a.Peer)
		}
	}
}

const time10m = 10 * time.Minute

var counters = regexp.MustCompile(`packets \d+ bytes \d+|expires [0-9a-z]+`)

func withoutCounters(s string) string { return counters.ReplaceAllString(s, "") }
