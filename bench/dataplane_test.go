//go:build linux

package bench

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"minato/internal/dataplane/nftables/kernel"
	"minato/internal/model"
	"minato/internal/netns"
	"minato/internal/netns/netnstest"
)

// The size of kubernetes/kubernetes#135639: 5,000 Services of 50 endpoints each.
const (
	services     = 5000
	perService   = 50
	oneOfService = 7 // the endpoint that changes
)

var node = &model.Node{Name: "node1", Addrs: []netip.Addr{netip.MustParseAddr("172.30.0.11")},
	PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.244.1.0/24")}}

// service is Service i with n endpoints, one of which has the address other if that is valid.
func service(i, n int, other netip.Addr) *model.Service {
	ip := netip.AddrFrom4([4]byte{10, 96 + byte(i>>16), byte(i >> 8), byte(i)})
	s := &model.Service{Name: model.ServiceName{Namespace: "bench", Name: strconv.Itoa(i)}, Proxied: true, ClusterIPs: []netip.Addr{ip},
		Frontends: []model.Frontend{{Addr: netip.AddrPortFrom(ip, 80), Protocol: model.TCP, PortName: "http"}}}
	sl := &model.BackendSlice{Name: s.Name.Name}
	for e := range n {
		addr := netip.AddrFrom4([4]byte{10, 128 + byte(i>>8), byte(i), byte(e + 1)})
		if e == oneOfService && other.IsValid() {
			addr = other
		}
		sl.Backends = append(sl.Backends, model.Backend{Addr: netip.AddrPortFrom(addr, 8080), Protocol: model.TCP, PortName: "http",
			NodeName: "node2", Ready: true, Serving: true})
	}
	s.Slices = []*model.BackendSlice{sl}
	return s
}

func full() *model.Snapshot {
	return model.Empty().With(func(e *model.Edit) {
		e.SetComplete()
		for i := range services {
			e.SetService(service(i, perService, netip.Addr{}))
		}
	}).On(node)
}

func open(b *testing.B, ns netns.NS) *kernel.Applier {
	b.Helper()
	a, err := kernel.Open(kernel.Config{Netns: ns})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { a.Close() })
	return a
}

func program(b *testing.B, a *kernel.Applier, s *model.Snapshot) {
	b.Helper()
	if failed, err := a.Program(context.Background(), s); err != nil || len(failed) > 0 {
		b.Fatal(failed, err)
	}
}

// BenchmarkDataplaneLoad programs all Services into an empty namespace.
func BenchmarkDataplaneLoad(b *testing.B) {
	s := full()
	before := heap()
	var took time.Duration
	var inKernel int64
	for b.Loop() {
		b.StopTimer()
		a, err := kernel.Open(kernel.Config{Netns: netnstest.Namespace(b, "bench")})
		if err != nil {
			b.Fatal(err)
		}
		start, kernelBefore := cpu(), kernelMemory()
		b.StartTimer()
		program(b, a, s)
		b.StopTimer()
		took += cpu() - start
		inKernel = max(inKernel, kernelMemory()-kernelBefore) // later ones use what is freed by earlier ones
		b.ReportMetric(float64(rss())/(1<<20), "MB-RSS")
		b.ReportMetric(float64(heap()-before)/(1<<20), "MB-heap")
		if err := errors.Join(a.Remove(context.Background()), a.Close()); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
	b.ReportMetric(float64(inKernel)/(1<<20), "MB-kernel")
	b.ReportMetric(took.Seconds()/float64(b.N), "CPU-s/op")
}

// BenchmarkDataplaneRestart opens and adopts a namespace that is programmed already.
func BenchmarkDataplaneRestart(b *testing.B) {
	s, ns := full(), netnstest.Namespace(b, "bench")
	program(b, open(b, ns), s)
	start := cpu()
	for b.Loop() {
		program(b, open(b, ns), s)
	}
	b.ReportMetric((cpu()-start).Seconds()/float64(b.N), "CPU-s/op")
}

// BenchmarkDataplaneDiff compares kernel and plan at full size.
func BenchmarkDataplaneDiff(b *testing.B) {
	a := open(b, netnstest.Namespace(b, "bench"))
	program(b, a, full())
	start := cpu()
	for b.Loop() {
		if d, err := a.Diff(context.Background()); err != nil || len(d) > 0 {
			b.Fatal(d, err)
		}
	}
	b.ReportMetric((cpu()-start).Seconds()/float64(b.N), "CPU-s/op")
}

// BenchmarkDataplaneChange is one call of Program and Reap for a change of one Service, at full size.
func BenchmarkDataplaneChange(b *testing.B) {
	for _, c := range []struct {
		name   string
		change func(i int) *model.Service
	}{
		{"address", func(i int) *model.Service {
			return service(i%services, perService, netip.AddrFrom4([4]byte{172, 16, byte(i >> 8), byte(i)}))
		}},
		{"grow", func(i int) *model.Service { return service(i%services, perService+1+i/services, netip.Addr{}) }},
		{"shrink", func(i int) *model.Service { return service(i%services, perService-1-i/services, netip.Addr{}) }},
		{"new-service", func(i int) *model.Service { return service(services+i, perService, netip.Addr{}) }},
	} {
		b.Run(c.name, func(b *testing.B) {
			s, a := full(), open(b, netnstest.Namespace(b, "bench"))
			program(b, a, s)
			runtime.GC()
			var took []time.Duration
			for i := 0; b.Loop(); i++ {
				next := s.With(func(e *model.Edit) { e.SetService(c.change(i)) }).On(node)
				start := time.Now()
				program(b, a, next)
				if err := a.Reap(context.Background(), next); err != nil {
					b.Fatal(err)
				}
				took = append(took, time.Since(start))
				s = next
			}
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)/2].Nanoseconds())/1000, "µs-p50")
			b.ReportMetric(float64(took[len(took)*99/100].Nanoseconds())/1000, "µs-p99")
		})
	}
}

// cpu is the processor time of this process, in the kernel and outside. A busy machine does not make it longer.
func cpu() time.Duration {
	var r unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &r); err != nil {
		panic(err)
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

// heap is what is in use after a collection, in bytes.
func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// rss is the memory of this process in bytes.
func rss() int64 { return fromProc("/proc/self/status", "VmRSS:") }

// kernelMemory is what the kernel of the whole machine has allocated, in bytes: other programs show in it.
func kernelMemory() int64 {
	return fromProc("/proc/meminfo", "Slab:") + fromProc("/proc/meminfo", "VmallocUsed:")
}

// fromProc reads a value in kB.
func fromProc(file, name string) int64 {
	b, _ := os.ReadFile(file)
	for line := range strings.Lines(string(b)) {
		var kb int64
		if _, err := fmt.Sscanf(line, name+" %d kB", &kb); err == nil {
			return kb << 10
		}
	}
	return 0
}
