package dns

import (
	"net/netip"
	"slices"
)

// PodMode says whether names such as 10-244-1-5.NAMESPACE.pod are answered; the names are CoreDNS's.
type PodMode uint8

const (
	PodsInsecure PodMode = iota // any address, in a namespace that exists: what kubeadm sets, and the default
	PodsDisabled                // none
	PodsVerified                // addresses of pods of that namespace
)

// Options are those of CoreDNS's plugin kubernetes. The zero value is the default.
type Options struct {
	Pods PodMode
	// PodExists is for PodsVerified: whether a pod of the namespace has the address, as text. It is called for
	// questions, at any time and from any goroutine. Nil: none has.
	PodExists func(namespace, addr string) bool
	// PodsKnown is whether PodExists can say yet; nil: it can. Until then a pod's name is SERVFAIL where it would not exist.
	PodsKnown          func() bool
	TTL                int      // seconds; 0: 5, negative: 0
	EndpointPodNames   bool     // endpoints without a hostname are called as their pods are
	NoEndpoints        bool     // no names of endpoints, and so none of headless Services
	IgnoreEmptyService bool     // a Service without ready endpoints does not exist
	Namespaces         []string // those whose names exist; empty: all
}

const (
	defaultTTL = 5 // seconds, CoreDNS's default; nothing of ours caches the own zone, so it bounds what clients keep
	maxSOATTL  = 5 // of what does not exist: a longer one hides new pods of a StatefulSet (kubernetes#92559)
)

func (o *Options) ttl() uint32 {
	switch {
	case o.TTL < 0:
		return 0
	case o.TTL == 0:
		return defaultTTL
	}
	return uint32(o.TTL)
}

// exposed reports whether names of the namespace may exist.
func (o *Options) exposed(namespace string) bool {
	return len(o.Namespaces) == 0 || slices.Contains(o.Namespaces, namespace)
}

// podsRead reports whether it can be said which pods there are.
func (o *Options) podsRead() bool {
	return o.Pods != PodsVerified || o.PodsKnown == nil || o.PodsKnown()
}

// podName reports whether the address is answered as a pod's name, in a namespace that exists.
func (o *Options) podName(namespace []byte, a netip.Addr) bool {
	switch o.Pods {
	case PodsInsecure:
		return true
	case PodsVerified:
		return o.PodExists != nil && o.PodExists(string(namespace), a.String())
	}
	return false
}
