package source

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func configMap(namespace, name, key, value string) *corev1.ConfigMap {
	return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, Data: map[string]string{key: value}}
}

func TestTheConfigurationOfDNSComesFromTwoConfigMaps(t *testing.T) {
	b := NewBuilder()
	b.Update(func(b *Batch) {
		b.ReplaceServices(nil)
		b.ReplaceSlices(nil)
		b.ReplaceNodes(nil)
		b.ReplaceNamespaces(nil)
	})
	set := func(o *corev1.ConfigMap) {
		t.Helper()
		c, ok := DNSConfig(o)
		if !ok {
			t.Fatalf("%s/%s was not taken", o.Namespace, o.Name)
		}
		b.Update(func(b *Batch) { b.SetDNSConfig(c) })
	}
	if c, ok := DNSConfig(configMap("default", "coredns", "Corefile", ". {}")); ok {
		t.Errorf("one of another namespace was taken: %v", c)
	}
	if b.Current().DNSKnown {
		t.Error("the configuration is known before it was read")
	}
	b.Update(func(b *Batch) { b.ReplaceDNSConfigs(nil) })
	if !b.Current().DNSKnown || b.Current().DNS != nil {
		t.Error("that there is no configuration is not known")
	}
	set(configMap("kube-system", "coredns-custom", "a.server", "stub"))
	if b.Current().DNS != nil {
		t.Error("coredns-custom alone is a configuration")
	}
	set(configMap("kube-system", "coredns", "Corefile", "main"))
	first := b.Current()
	if c := first.DNS; c == nil || c.Corefile != "main" || c.Custom["a.server"] != "stub" {
		t.Errorf("got %+v", c)
	}
	set(configMap("kube-system", "coredns", "Corefile", "main"))
	if b.Current() != first {
		t.Error("the same again made a new revision")
	}
	b.Update(func(b *Batch) { b.DeleteDNSConfig(ObjectName{"other", "coredns"}) })
	b.Update(func(b *Batch) { b.DeleteDNSConfig(ObjectName{"kube-system", "coredns-custom"}) })
	if c := b.Current().DNS; c == nil || c.Corefile != "main" || len(c.Custom) != 0 {
		t.Errorf("without coredns-custom: %+v", c)
	}
	b.Update(func(b *Batch) { b.ReplaceDNSConfigs(nil) })
	if b.Current().DNS != nil {
		t.Error("a configuration is left when all ConfigMaps are gone")
	}
}
