//go:build linux

package kernel_test

import (
	"testing"

	"minato/internal/model"
	"minato/internal/nfnl/nfnltest"
)

func TestConnectionsGoToEveryEndpointOfTheirFrontend(t *testing.T) {
	k := nfnltest.New()
	apply(t, open(t, k), snapshot(web("web", 1, "10.244.1.5", "10.244.2.6")))
	both := "dnat [10.244.1.5:8080 10.244.2.6:8080] masquerade="
	expect(t, k, key(model.Inside, "10.96.0.1:80", model.TCP), both+"false")
	expect(t, k, key(model.Outside, "10.96.0.1:80", model.TCP), both+"true")
	expect(t, k, key(model.Inside, "172.30.0.11:30001", model.TCP), both+"true")
	expect(t, k, key(model.Outside, "172.30.0.11:30001", model.TCP), both+"true")
}

func TestTheRestOfTheServiceRange(t *testing.T) {
	k := nfnltest.New()
	a := open(t, k)
	dns := web("kube-dns", 10, "10.244.1.9")
	apply(t, a, snapshot(web("web", 1, "10.244.1.5"), web("none", 2), dns))
	expect(t, k, key(model.Inside, "10.96.0.2:80", model.TCP), "reset [] masquerade=false")
	expect(t, k, key(model.Inside, "10.96.0.1:80", model.UDP), "unreachable [] masquerade=false")
	expect(t, k, key(model.Inside, "10.96.0.1:81", model.TCP), "reset [] masquerade=false")
	expect(t, k, key(model.Inside, "10.96.0.99:80", model.TCP), "drop [] masquerade=false")
	expect(t, k, key(model.Inside, "192.0.2.1:80", model.TCP), "accept [] masquerade=false")
	a.Except(dns.Name)
	apply(t, a, snapshot(web("web", 1, "10.244.1.5"), web("none", 2), dns))
	expect(t, k, key(model.Inside, "10.96.0.10:80", model.TCP), "accept [] masquerade=false")
}
