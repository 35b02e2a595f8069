package source

import (
	"maps"

	corev1 "k8s.io/api/core/v1"

	"minato/internal/model"
)

// The ConfigMaps of CoreDNS: kubeadm's, and the one that several providers of clusters add.
const (
	DNSConfigNamespace  = "kube-system"
	DNSConfigName       = "coredns"
	DNSConfigCustomName = "coredns-custom"
)

// DNSConfigMap is one of the ConfigMaps of CoreDNS.
type DNSConfigMap struct {
	name string
	data map[string]string
}

// DNSConfig converts a ConfigMap of CoreDNS; ok is false for any other. It is pure.
func DNSConfig(o *corev1.ConfigMap) (c *DNSConfigMap, ok bool) {
	if o.Namespace != DNSConfigNamespace || o.Name != DNSConfigName && o.Name != DNSConfigCustomName {
		return nil, false
	}
	return &DNSConfigMap{o.Name, o.Data}, true
}

// dnsConfig is everything that model.DNSConfig is made of.
type dnsConfig struct {
	maps  map[string]*DNSConfigMap // by name
	known bool                     // all of them were read once
	told  bool                     // and a snapshot says so
	shown *model.DNSConfig         // in the newest snapshot
	next  *model.DNSConfig         // of the next one
}

// changed makes the next configuration, and reports whether it is another.
func (d *dnsConfig) changed() bool {
	d.next = nil
	if main := d.maps[DNSConfigName]; main != nil && main.data["Corefile"] != "" {
		d.next = &model.DNSConfig{Corefile: main.data["Corefile"], Custom: map[string]string{}}
		maps.Copy(d.next.Custom, main.data) // such as NodeHosts of k3s
		delete(d.next.Custom, "Corefile")
		if custom := d.maps[DNSConfigCustomName]; custom != nil {
			maps.Copy(d.next.Custom, custom.data)
		}
	}
	return d.known && (!d.told || !d.next.Equal(d.shown))
}

func (d *dnsConfig) commit(e *model.Edit) {
	if d.changed() {
		d.shown, d.told = d.next, true
		e.SetDNS(d.shown)
	}
}

// SetDNSConfig takes over a ConfigMap of CoreDNS.
func (b *Batch) SetDNSConfig(c *DNSConfigMap) { b.w.dns.maps[c.name] = c }

// DeleteDNSConfig records that a ConfigMap is gone. Others are nothing to it.
func (b *Batch) DeleteDNSConfig(n ObjectName) {
	if n.Namespace == DNSConfigNamespace {
		delete(b.w.dns.maps, n.Name)
	}
}

// ReplaceDNSConfigs makes all the complete list.
func (b *Batch) ReplaceDNSConfigs(all []*DNSConfigMap) {
	clear(b.w.dns.maps)
	b.w.dns.known = true
	for _, c := range all {
		b.SetDNSConfig(c)
	}
}
