package dns

import (
	"bytes"
	"context"
	"testing"

	mdns "github.com/miekg/dns"

	"minato/internal/model"
)

func optionsWorld() *model.Snapshot {
	pod := called("", ready("10.244.1.5", "http/tcp/8080"))
	pod.Target = "default/web-0"
	return with(model.Empty(),
		service("default/web", "10.96.1.10", []string{"http/tcp/80"}, pod),
		service("default/idle", "10.96.1.11", []string{"http/tcp/80"}, unready("10.244.1.6", "http/tcp/8080")),
		service("other/peers", "None", []string{"http/tcp/80"}, ready("10.244.1.7", "http/tcp/8080")))
}

func TestOptions(t *testing.T) {
	for _, c := range []struct {
		name    string
		options Options
		ask     string
		want    string
	}{
		{"TTL", Options{TTL: 30}, "web.default.svc.cluster.local.", "web.default.svc.cluster.local. 30 A 10.96.1.10"},
		{"no TTL", Options{TTL: -1}, "web.default.svc.cluster.local.", "web.default.svc.cluster.local. 0 A 10.96.1.10"},
		{"pods disabled", Options{Pods: PodsDisabled}, "10-1-2-3.default.pod.cluster.local.", "NXDOMAIN of cluster.local."},
		{"pods disabled hides namespaces below pod", Options{Pods: PodsDisabled}, "default.pod.cluster.local.", "NXDOMAIN of cluster.local."},
		{"pods verified, one that is there", Options{Pods: PodsVerified, PodExists: func(ns, a string) bool { return ns == "default" && a == "10.1.2.3" }},
			"10-1-2-3.default.pod.cluster.local.", "10-1-2-3.default.pod.cluster.local. 5 A 10.1.2.3"},
		{"pods verified, one that is not", Options{Pods: PodsVerified}, "10-1-2-3.default.pod.cluster.local.", "NXDOMAIN of cluster.local."},
		{"pods verified, and not read yet", Options{Pods: PodsVerified, PodsKnown: func() bool { return false }}, "10-1-2-3.default.pod.cluster.local.", "SERVFAIL"},
		{"no pod's name, and pods not read yet", Options{Pods: PodsVerified, PodsKnown: func() bool { return false }}, "x.default.pod.cluster.local.", "NXDOMAIN of cluster.local."},
		{"pods not read, and not looked at", Options{PodsKnown: func() bool { return false }}, "10-1-2-3.default.pod.cluster.local.", "10-1-2-3.default.pod.cluster.local. 5 A 10.1.2.3"},
		{"endpoints called as their pods", Options{EndpointPodNames: true}, "web-0.web.default.svc.cluster.local.", "web-0.web.default.svc.cluster.local. 5 A 10.244.1.5"},
		{"no endpoints", Options{NoEndpoints: true}, "peers.other.svc.cluster.local.", "NXDOMAIN of cluster.local."},
		{"empty Services ignored", Options{IgnoreEmptyService: true}, "idle.default.svc.cluster.local.", "NXDOMAIN of cluster.local."},
		{"a namespace that is left out", Options{Namespaces: []string{"default"}}, "peers.other.svc.cluster.local.", "NXDOMAIN of cluster.local."},
	} {
		t.Run(c.name, func(t *testing.T) {
			table := tableOf(t, optionsWorld())
			table.SetOptions(c.options)
			if m, a := ask(t, table.View(), c.ask, mdns.TypeA, 512, 0); brief(m, a) != c.want {
				t.Errorf("%s: got %s, want %s", c.ask, brief(m, a), c.want)
			}
		})
	}
}

func TestNewOptionsMakeATableAsIfItHadBegunWithThem(t *testing.T) {
	options := Options{TTL: 30, Pods: PodsDisabled, EndpointPodNames: true, Namespaces: []string{"default"}}
	changed := tableOf(t, optionsWorld())
	changed.SetOptions(options)
	z := testZone
	z.Options = options
	fresh, err := NewTable(z)
	if err != nil {
		t.Fatal(err)
	}
	if err := fresh.Publish(context.Background(), optionsWorld(), nil); err != nil {
		t.Fatal(err)
	}
	var a, b bytes.Buffer
	if err := changed.WriteText(&a); err != nil {
		t.Fatal(err)
	}
	if err := fresh.WriteText(&b); err != nil {
		t.Fatal(err)
	}
	if a.String() != b.String() {
		t.Errorf("changed:\n%s\nfresh:\n%s", a.String(), b.String())
	}
}

func TestAHeldServiceKeepsItsRecordsThroughNewOptions(t *testing.T) {
	before := optionsWorld()
	table := tableOf(t, before)
	after := with(before, service("default/web", "10.96.9.9", []string{"http/tcp/80"}))
	if err := table.Publish(context.Background(), after, func(n model.ServiceName) bool { return n == serviceName("default/web") }); err != nil {
		t.Fatal(err)
	}
	table.SetOptions(Options{TTL: 7})
	if m, a := ask(t, table.View(), "web.default.svc.cluster.local.", mdns.TypeA, 512, 0); brief(m, a) != "web.default.svc.cluster.local. 7 A 10.96.1.10" {
		t.Errorf("got %s", brief(m, a))
	}
}
