package ingress

import (
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"minato/internal/model"
)

// The example in the documentation is what `minato show routes` prints.
func TestDocumentedExample(t *testing.T) {
	b, err := os.ReadFile("../../docs/ingress.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(b), "```\nhost ")
	example, _, ok := strings.Cut(rest, "```\n")
	if !ok {
		t.Fatal("docs/ingress.md has no example")
	}
	i := newIngress(t, "site", "shop.example.com Prefix / shop", "shop.example.com Prefix /blog blog", "tls shop.example.com")
	i.Rules[0].Paths[0].Backend = model.IngressBackend{Service: "shop", PortName: "http"}
	i.Rules[1].Paths[0].Backend.Port = 8080
	i.TLS[0].Secret, i.TLS[0].Certificate = "shop-tls", certificate("shop.example.com")
	i.TLS[0].Certificate.NotAfter = time.Date(2027, 1, 20, 0, 0, 0, 0, time.UTC)
	shop := newService("shop", "10.244.1.1", "10.244.2.1")
	for k := range shop.Slices[0].Backends {
		b := &shop.Slices[0].Backends[k]
		b.Addr = netip.AddrPortFrom(b.Addr.Addr(), 80)
		b.Target, b.NodeName, b.Ready = []string{"default/shop-a", "default/shop-b"}[k], []string{"node1", "node2"}[k], k == 0
	}
	p := New(model.Empty().With(func(e *model.Edit) { e.SetIngress(i); e.SetService(shop) }))
	if got, want := text(p), "host "+example; got != want {
		t.Errorf("docs/ingress.md shows\n%s\nand the plan prints\n%s", want, got)
	}
}
