//go:build linux

package kernel_test

import (
	"context"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"minato/internal/dataplane/nftables/kernel"
	"minato/internal/model"
	"minato/internal/nfnl"
	"minato/internal/nfnl/nfnltest"
)

func TestLoadBalancerAddressIsTheNodesUntilItIsReaped(t *testing.T) {
	k := nfnltest.New()
	a := open(t, k)
	balanced := web("web", 1, "10.244.1.2")
	for _, addr := range []string{"172.30.0.200:80", "[fd00:30::200]:80"} {
		balanced.Frontends = append(balanced.Frontends, model.Frontend{Addr: netip.MustParseAddrPort(addr), Protocol: model.TCP,
			Kind: model.LoadBalancer, PortName: "http"})
	}
	snap := snapshot(balanced)
	apply(t, a, snap)
	type packet struct {
		f        nfnl.Family
		chain    string
		to       string
		protocol uint8
		icmp     uint8
	}
	run := func(p packet) string {
		r := k.Run(p.f, kernel.DefaultTable, p.chain, nfnltest.Packet{Src: client(key(model.Outside, p.to, 0)),
			Dst: netip.MustParseAddrPort(p.to), Protocol: p.protocol, ICMPType: p.icmp})
		if r.Action == "dnat" {
			return "dnat " + r.To.Addr().String()
		}
		return r.Action
	}
	expect := func(when string, want map[packet]string) {
		t.Helper()
		for p, w := range want {
			if got := run(p); got != w {
				t.Errorf("%s: %+v: got %s, want %s", when, p, got, w)
			}
		}
	}
	ours := map[packet]string{
		{nfnl.IPv4, "prerouting", "172.30.0.200:0", unix.IPPROTO_ICMP, 8}:       "dnat 172.30.0.11",
		{nfnl.IPv4, "output", "172.30.0.200:0", unix.IPPROTO_ICMP, 8}:           "dnat 172.30.0.11",
		{nfnl.IPv4, "prerouting", "172.30.0.200:0", unix.IPPROTO_ICMP, 13}:      "accept", // no echo request
		{nfnl.IPv4, "prerouting", "172.30.0.201:0", unix.IPPROTO_ICMP, 8}:       "accept", // not ours
		{nfnl.IPv6, "prerouting", "[fd00:30::200]:0", unix.IPPROTO_ICMPV6, 128}: "dnat fd00:30::11",
		{nfnl.IPv4, "forward", "172.30.0.200:81", unix.IPPROTO_TCP, 0}:          "drop",
		{nfnl.IPv6, "forward", "[fd00:30::200]:81", unix.IPPROTO_TCP, 0}:        "drop",
		{nfnl.IPv4, "forward", "10.244.1.2:8080", unix.IPPROTO_TCP, 0}:          "accept",
		{nfnl.IPv4, "forward", "172.30.0.201:80", unix.IPPROTO_TCP, 0}:          "accept",
	}
	expect("with the address", ours)
	without := edited(snap, web("web", 1, "10.244.1.2")).On(theNode)
	if _, err := a.Program(context.Background(), without); err != nil {
		t.Fatal(err)
	}
	expect("programmed without it, not reaped", ours)
	if err := a.Reap(context.Background(), without); err != nil {
		t.Fatal(err)
	}
	for p := range ours {
		ours[p] = "accept"
	}
	expect("reaped", ours)
}
