package lastgood

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"minato/internal/model"
)

// BenchmarkChange writes what changed when all endpoints of one Service are replaced.
func BenchmarkChange(b *testing.B) {
	for _, size := range []struct{ services, endpoints int }{{1_000, 10}, {10_000, 2}} {
		b.Run(fmt.Sprintf("%dx%d", size.services, size.endpoints), func(b *testing.B) {
			p := start(b, filepath.Join(b.TempDir(), "names"))
			snapshot := model.Empty().With(func(e *model.Edit) {
				e.SetNamespace("default", true)
				for i := range size.services {
					e.SetService(numbered(i, size.endpoints, 0))
				}
				e.SetComplete()
			})
			p.show(b, snapshot)
			p.write()
			at, bytes, n := stat(b, p.cfg.File), int64(0), 0
			b.ReportAllocs()
			for b.Loop() {
				b.StopTimer()
				n++
				snapshot = snapshot.With(func(e *model.Edit) { e.SetService(numbered(n%size.services, size.endpoints, n)) })
				p.show(b, snapshot)
				b.StartTimer()
				if !p.write() {
					b.Fatal("a change was not written")
				}
				b.StopTimer()
				now := stat(b, p.cfg.File)
				if bytes += now.Size; now.Ino == at.Ino {
					bytes -= at.Size
				}
				at = now
				b.StartTimer()
			}
			b.ReportMetric(float64(bytes)/float64(n), "written/op")
		})
	}
}

// numbered is Service i with endpoints that are others in each generation.
func numbered(i, endpoints, generation int) *model.Service {
	at := func(net byte, k int) netip.Addr {
		return netip.AddrFrom4([4]byte{10, net + byte(k>>16), byte(k >> 8), byte(k)})
	}
	s := &model.Service{
		Name: model.ServiceName{Namespace: "default", Name: fmt.Sprintf("s%05d", i)}, ClusterIPs: []netip.Addr{at(96, i)},
		Ports: []model.Port{{Name: "http", Protocol: model.TCP, Port: 80}}, Slices: []*model.BackendSlice{{Name: "slice"}},
	}
	for k := range endpoints {
		addr := netip.AddrPortFrom(at(128, (endpoints*i+k+generation*7919)&0x3f_ffff), 8080)
		s.Slices[0].Backends = append(s.Slices[0].Backends, model.Backend{Addr: addr, PortName: "http", Protocol: model.TCP, Ready: true, Serving: true})
	}
	return s
}

func stat(b *testing.B, file string) *syscall.Stat_t {
	b.Helper()
	info, err := os.Stat(file)
	if err != nil {
		b.Fatal(err)
	}
	return info.Sys().(*syscall.Stat_t)
}
