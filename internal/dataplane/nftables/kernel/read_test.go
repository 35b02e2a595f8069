//go:build linux

package kernel_test

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"minato/internal/dataplane/nftables/kernel"
	"minato/internal/model"
	"minato/internal/nfnl"
	"minato/internal/nfnl/nfnltest"
)

func TestReadSeesWhatThePacketsMeet(t *testing.T) {
	k := nfnltest.New()
	a := open(t, k)
	sticky := web("sticky", 2, "10.244.1.7")
	sticky.SessionAffinity = time.Hour
	apply(t, a, snapshot(web("web", 1, "10.244.1.5", "10.244.2.6"), sticky, web("none", 3)))
	from := netip.MustParseAddr("10.244.1.200")

	to := key(model.Outside, "10.96.0.1:80", model.TCP)
	read, pin, ok, err := a.Read(to, from)
	want, _ := a.Lookup(to)
	if err != nil || !ok || !slices.Equal(read.Endpoints, want.Endpoints) || !read.Masquerade || read.Verdict != model.Forward || pin.Endpoint.IsValid() {
		t.Errorf("got %+v, %+v, %t, %v; want %+v", read, pin, ok, err, want)
	}
	if read, _, ok, err := a.Read(key(model.Inside, "10.96.0.3:80", model.TCP), from); err != nil || !ok || read.Verdict != model.Reject {
		t.Errorf("got %+v, %t, %v; want a refusal", read, ok, err)
	}
	if _, _, ok, err := a.Read(key(model.Inside, "10.96.0.1:81", model.TCP), from); err != nil || ok {
		t.Errorf("got %t, %v for a port that is no frontend", ok, err)
	}
	if _, pin, _, err := a.Read(key(model.Inside, "10.96.0.2:80", model.TCP), from); err != nil || pin.Endpoint.IsValid() {
		t.Errorf("a client that was never there has %+v, %v", pin, err)
	}
	k.Run(nfnl.IPv4, kernel.DefaultTable, "prerouting", nfnltest.Packet{Src: netip.AddrPortFrom(from, 4000), Dst: netip.MustParseAddrPort("10.96.0.2:80"),
		Protocol: uint8(model.TCP), Random: func(uint32) uint32 { return 0 }, Learn: true})
	if _, pin, _, err := a.Read(key(model.Inside, "10.96.0.2:80", model.TCP), from); err != nil || pin.Endpoint.String() != "10.244.1.7:8080" {
		t.Errorf("a client that was there has %+v, %v", pin, err)
	}
}

func TestReadSeesWhatSomebodyDeleted(t *testing.T) {
	k := nfnltest.New()
	a := open(t, k)
	apply(t, a, snapshot(web("web", 1, "10.244.1.5", "10.244.2.6")))
	b := nfnl.NewBatch()
	if err := k.Elements(nfnl.IPv4, kernel.DefaultTable, "ep", func() {}, func(e nfnl.Element) {
		if b.Len() == 0 {
			b.DeleteElements(nfnl.IPv4, kernel.DefaultTable, "ep", nfnl.Element{Key: e.Key})
		}
	}); err != nil {
		t.Fatal(err)
	}
	if err := k.Commit(b); err != nil {
		t.Fatal(err)
	}
	read, _, ok, err := a.Read(key(model.Inside, "10.96.0.1:80", model.TCP), netip.Addr{})
	if err != nil || !ok || len(read.Endpoints) != 2 || !slices.Contains(read.Endpoints, netip.AddrPort{}) {
		t.Errorf("got %+v, %t, %v", read, ok, err)
	}
}
