package dns

import (
	"context"
	"fmt"
	"runtime"
	"testing"

	mdns "github.com/miekg/dns"

	"minato/internal/model"
)

// bigWorld has n Services of two named ports and three endpoints.
func bigWorld(n int) *model.Snapshot {
	services := make([]*model.Service, n)
	for i := range services {
		services[i] = numbered(i, 0)
	}
	return with(model.Empty(), services...)
}

func numbered(i, generation int) *model.Service {
	at := func(net byte, k int) string { return fmt.Sprintf("10.%d.%d.%d", int(net)+k>>16, k>>8&255, k&255) }
	s := service(fmt.Sprintf("ns-%d/svc-%05d", i/1000, i), at(96, i+1), []string{"http/tcp/80", "metrics/tcp/9090"})
	for k := range 3 {
		s.Slices[0].Backends = append(s.Slices[0].Backends, ready(at(244, 3*i+k+generation%2*100_000), "http/tcp/8080"))
	}
	return s
}

func BenchmarkLookup(b *testing.B) {
	v := tableOf(b, bigWorld(10_000)).View()
	questions := make([][]byte, 10_000)
	for i := range questions {
		m := new(mdns.Msg).SetQuestion(fmt.Sprintf("svc-%05d.ns-%d.svc.cluster.local.", i, i/1000), mdns.TypeA)
		questions[i], _ = m.Pack()
	}
	msg := make([]byte, 0, 1232)
	var n Name
	i := 0
	b.ReportAllocs()
	for b.Loop() {
		q := questions[i*7919%len(questions)]
		i++
		n.Parse(q[headerLen:])
		msg, _ = v.Append(append(msg[:0], q...), &n, TypeA, 1232, 0)
	}
}

// BenchmarkUpdate changes all endpoints of one Service of 10,000, as both phases do.
func BenchmarkUpdate(b *testing.B) {
	world := bigWorld(10_000)
	table := tableOf(b, world)
	i := 0
	b.ReportAllocs()
	for b.Loop() {
		i++
		world = with(world, numbered(i%10_000, i))
		publish(b, table, world)
	}
}

// BenchmarkUpdateHuge changes one endpoint of a headless Service of 5,000.
func BenchmarkUpdateHuge(b *testing.B) {
	worlds := []*model.Snapshot{with(model.Empty(), many(2500))}
	worlds = append(worlds, with(worlds[0], many(2499)))
	table := tableOf(b, worlds[0])
	i := 0
	for b.Loop() {
		i++
		publish(b, table, worlds[i%2])
	}
}

func publish(b *testing.B, table *Table, s *model.Snapshot) {
	if err := table.Withdraw(context.Background(), s); err != nil {
		b.Fatal(err)
	}
	if err := table.Publish(context.Background(), s, nil); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkBuild makes a table of 10,000 Services from nothing and reports what a name costs.
func BenchmarkBuild(b *testing.B) {
	world := bigWorld(10_000)
	var table *Table
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for b.Loop() {
		table = tableOf(b, world)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	names := table.View().tree.names
	b.ReportMetric(float64(names), "names")
	b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/float64(names), "B/name")
	runtime.KeepAlive(table)
}
