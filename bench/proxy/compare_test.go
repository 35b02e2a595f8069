//go:build linux

package proxy

import (
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

var (
	agentBinary     = flag.String("agent", "", "minato-agent")
	kubeProxyBinary = flag.String("kube-proxy", "", "kube-proxy")
	sizes           = flag.String("sizes", "100x10,1000x10,5000x50,10000x2", "Services x endpoints")
	rounds          = flag.Int("rounds", 3, "of each size")
	limit           = flag.Duration("cap", 15*time.Minute, "for the first sync, and for all changes, of a peer that is slow")
	changes         = flag.Int("changes", 300, "of minato; of a peer that gathers changes for a second, a tenth")
	only            = flag.String("peers", "minato,nftables,iptables", "parts of the names of those that are measured")
)

// TestCompare prints the rows of bench/RESULTS.md.
func TestCompare(t *testing.T) {
	if *agentBinary == "" || *kubeProxyBinary == "" {
		t.Skip("it takes long, and the programs to compare: make bench-proxy")
	}
	fmt.Print("| Services x endpoints | | first sync | its CPU | RSS MB | kernel MB | one change p50 | p99 | its CPU | |\n|---|---|---|---|---|---|---|---|---|---|\n")
	for _, text := range strings.Split(*sizes, ",") {
		var s size
		if _, err := fmt.Sscanf(text, "%dx%d", &s.services, &s.endpoints); err != nil {
			t.Fatal(err)
		}
		t.Run(text, func(t *testing.T) { compare(t, s) })
	}
}

func (p peer) wanted() bool {
	return slices.ContainsFunc(strings.Split(*only, ","), func(part string) bool { return strings.Contains(p.name, part) })
}

// measured is what came out for one peer and size.
type measured struct {
	sync, cpu, change, changeCPU []time.Duration
	rss, kernel                  []float64
	slow                         string
}

func compare(t *testing.T, s size) {
	all := map[string]*measured{}
	for round := range *rounds {
		for _, p := range peers() {
			if !p.wanted() {
				continue
			}
			m := all[p.name]
			if m == nil {
				m = &measured{}
				all[p.name] = m
			}
			if m.slow == "" {
				t.Run(fmt.Sprintf("%s/%d", p.name, round), func(t *testing.T) { measure(t, p, s, m) })
			}
		}
	}
	base := all["minato"]
	for _, p := range peers() {
		if m := all[p.name]; m != nil {
			m.print(p.name, s, base)
		}
	}
}

// measure runs a peer once: first sync, then changes.
func measure(t *testing.T, p peer, s size, m *measured) {
	w := newWorld(t)
	w.listen(t)
	api := s.api()
	r := w.start(t, p, api)
	took, err := w.synced(r, s, *limit)
	if err != nil {
		m.slow = fmt.Sprintf("> %s, %.0f s of CPU", *limit, r.cpu().Seconds())
		return
	}
	m.sync, m.cpu = append(m.sync, took), append(m.cpu, r.cpu())
	now, _ := r.rss()
	m.rss = append(m.rss, now)
	m.kernel = append(m.kernel, r.kernelMemory())
	n, gap := *changes, 20*time.Millisecond // so that none waits for another
	if p.name != "minato" {
		n, gap = max(3, *changes/10), 1100*time.Millisecond // it applies changes at most once a second
	}
	time.Sleep(2 * time.Second) // what comes after the first sync, as nothing else is to come
	tables := watchTables(t, w.node)
	before, begin := r.cpu(), time.Now()
	done := 0
	for i := range n {
		if time.Since(begin) > *limit/4 {
			break
		}
		at := (i * 7) % max(1, s.middle())
		addr := moved(i)
		start := time.Now()
		api.Set(s.slice(at, addr))
		end, err := tables.committed(addr, *limit)
		if err != nil {
			t.Fatalf("change %d: %v", i, err)
		}
		m.change = append(m.change, end.Sub(start))
		done++
		time.Sleep(gap)
	}
	m.changeCPU = append(m.changeCPU, (r.cpu()-before)/time.Duration(done))
}

func (m *measured) print(name string, s size, base *measured) {
	if m.slow != "" {
		fmt.Printf("| %s | %s | %s | | | | | | | load %s |\n", s, name, m.slow, load())
		return
	}
	ratio := func(mine, minato time.Duration) string {
		if m == base || base == nil || minato == 0 {
			return ""
		}
		return fmt.Sprintf(" (%.0fx)", float64(mine)/float64(minato))
	}
	b := base
	if b == nil || b.slow != "" || len(b.sync) == 0 {
		b = m
	}
	fmt.Printf("| %s | %s | %s%s | %s%s | %.0f | %.0f | %s%s | %s | %s%s | load %s |\n", s, name,
		short(median(m.sync)), ratio(median(m.sync), median(b.sync)), short(median(m.cpu)), ratio(median(m.cpu), median(b.cpu)),
		median(m.rss), median(m.kernel),
		short(at(m.change, 0.5)), ratio(at(m.change, 0.5), at(b.change, 0.5)), short(at(m.change, 0.99)),
		short(median(m.changeCPU)), ratio(median(m.changeCPU), median(b.changeCPU)), load())
}

func short(d time.Duration) string {
	switch {
	case d >= time.Second:
		return fmt.Sprintf("%.2f s", d.Seconds())
	case d >= 10*time.Millisecond:
		return fmt.Sprintf("%d ms", d.Milliseconds())
	}
	return fmt.Sprintf("%.2f ms", float64(d.Microseconds())/1000)
}

func median[T time.Duration | float64](v []T) T { return at(v, 0.5) }

func at[T time.Duration | float64](v []T, q float64) T {
	if len(v) == 0 {
		return 0
	}
	v = slices.Sorted(slices.Values(v))
	return v[min(len(v)-1, int(q*float64(len(v))))]
}

func load() string {
	b, _ := os.ReadFile("/proc/loadavg")
	first, _, _ := strings.Cut(string(b), " ")
	return first
}

// TestConnections prints what a connection costs, directly to the endpoint and by a Service.
func TestConnections(t *testing.T) {
	if *agentBinary == "" || *kubeProxyBinary == "" {
		t.Skip("it takes long, and the programs to compare: make bench-proxy")
	}
	fmt.Print("| Services x endpoints | | direct | by a Service | ratio of pairs | one connection by a Service | its CPU to direct | |\n|---|---|---|---|---|---|---|---|\n")
	for _, s := range []size{{10, 2}, {10000, 2}} {
		for _, p := range peers() {
			if p.wanted() {
				t.Run(fmt.Sprintf("%s/%s", s, p.name), func(t *testing.T) { connections(t, p, s) })
			}
		}
	}
}

func connections(t *testing.T, p peer, s size) {
	const pairs, each, streamed = 15, 3000, 2 << 30
	w := newWorld(t)
	w.listen(t)
	r := w.start(t, p, s.api())
	if _, err := w.synced(r, s, *limit); err != nil {
		t.Skipf("no first sync within %s", *limit)
	}
	time.Sleep(2 * time.Second)
	direct := netip.AddrPortFrom(serverAddr, connectionPort)
	byService := netip.AddrPortFrom(serviceAddr(s.middle()), 80)
	var plain, service, ratios []float64
	var stream, streamRatio []float64
	w.onPath(t, func(c *path) error {
		for range pairs {
			a, err1 := c.connections(direct, each)
			b, err2 := c.connections(byService, each)
			if err := errors.Join(err1, err2); err != nil {
				return err
			}
			plain, service = append(plain, float64(a.Nanoseconds())/1000), append(service, float64(b.Nanoseconds())/1000)
			ratios = append(ratios, float64(b)/float64(a))
		}
		for range 5 {
			a, _, err1 := c.stream(direct, streamed)
			b, _, err2 := c.stream(byService, streamed)
			if err := errors.Join(err1, err2); err != nil {
				return err
			}
			stream, streamRatio = append(stream, streamed/b.Seconds()/(1<<30)), append(streamRatio, float64(b)/float64(a))
		}
		return nil
	})
	fmt.Printf("| %s | %s | %.1f µs | %.1f µs | %.2f (%.2f to %.2f) | %.2f GB/s | %.2f | load %s |\n", s, p.name, median(plain), median(service),
		median(ratios), slices.Min(ratios), slices.Max(ratios), median(stream), median(streamRatio), load())
}
