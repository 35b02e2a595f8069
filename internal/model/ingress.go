package model

import (
	"cmp"
	"crypto"
	"fmt"
	"iter"
	"net/netip"
	"strings"
	"time"
)

// IngressName is an Ingress's namespace and name.
type IngressName struct{ Namespace, Name string }

func (n IngressName) String() string { return n.Namespace + "/" + n.Name }

// Compare orders names by namespace, then name.
func (n IngressName) Compare(o IngressName) int {
	return cmp.Or(strings.Compare(n.Namespace, o.Namespace), strings.Compare(n.Name, o.Name))
}

// Ingress is one Ingress with the certificates that it names. It is immutable once it is in a Snapshot.
type Ingress struct {
	Name     IngressName
	UID      string          // of the API object, for Events about it
	Created  time.Time       // of two Ingresses that want one host and path, the older has it
	Class    string          // by annotation or field; empty when neither is there
	Served   bool            // the class is minato's; others are for other controllers
	Default  *IngressBackend // for requests to its hosts that match no path; without Rules, for all other hosts
	Rules    []IngressRule
	TLS      []IngressTLS
	Redirect HTTPSRedirect
	MaxBody  int64        // bytes of a request's body, 0 for any number
	Addrs    []netip.Addr // status.loadBalancer.ingress
	Warnings []string     // what source could not use, in words for the user
}

// Older reports whether i goes before o where both want the same.
func (i *Ingress) Older(o *Ingress) bool {
	return cmp.Or(i.Created.Compare(o.Created), i.Name.Compare(o.Name)) < 0
}

// HTTPSRedirect says when a request over plain HTTP is sent to HTTPS.
type HTTPSRedirect uint8

// The redirects, in the terms of ingress-nginx: the default, ssl-redirect "false", force-ssl-redirect "true".
const (
	RedirectTLSHosts HTTPSRedirect = iota // hosts that some Ingress has TLS for
	RedirectNever
	RedirectAlways
)

func (r HTTPSRedirect) String() string { return [...]string{"tls-hosts", "never", "always"}[r] }

// IngressRule is the paths of one host: a name, "*." and a name, or empty for every host.
type IngressRule struct {
	Host  string // lower case
	Paths []IngressPath
}

// PathType says how a path is matched.
type PathType uint8

// The path types. ImplementationSpecific is Prefix, as with ingress-nginx.
const (
	PathPrefix PathType = iota // element by element
	PathExact
)

func (t PathType) String() string { return [...]string{"prefix", "exact"}[t] }

// IngressPath is one path and the backend behind it.
type IngressPath struct {
	Path    string // as written, "/" where nothing is
	Type    PathType
	Backend IngressBackend
}

// IngressBackend is a port of a Service in the Ingress's namespace. A backend of another kind is the zero value.
type IngressBackend struct {
	Service  string
	Port     uint16 // 0: by name
	PortName string
}

func (b IngressBackend) String() string {
	switch {
	case b.Service == "":
		return "nothing"
	case b.PortName != "":
		return b.Service + ":" + b.PortName
	}
	return fmt.Sprintf("%s:%d", b.Service, b.Port)
}

// IngressTLS says which certificate hosts have.
type IngressTLS struct {
	Hosts       []string // lower case; empty: those of the rules
	Secret      string   // in the Ingress's namespace; empty: the default certificate
	Certificate *Certificate
}

// Certificate is a certificate chain with its key, of a Secret. Two of one Secret's content are one pointer.
type Certificate struct {
	Chain    [][]byte // DER, the leaf first
	Key      PrivateKey
	Names    []string // that the leaf is for, wildcards included
	NotAfter time.Time
}

// PrivateKey holds a key out of reach of printing and comparison by reflection. The zero value holds none.
type PrivateKey struct{ reveal func() crypto.PrivateKey }

// HidePrivateKey puts a key away.
func HidePrivateKey(k crypto.PrivateKey) PrivateKey {
	return PrivateKey{func() crypto.PrivateKey { return k }}
}

// Reveal gives the key to whoever has to sign with it, nil when there is none.
func (k PrivateKey) Reveal() crypto.PrivateKey {
	if k.reveal == nil {
		return nil
	}
	return k.reveal()
}

// Ingress finds an Ingress by name, nil when there is none.
func (s *Snapshot) Ingress(n IngressName) *Ingress {
	i, _ := s.ingresses.get(n)
	return i
}

// Ingresses goes over all Ingresses, of every class, in the order of their names.
func (s *Snapshot) Ingresses() iter.Seq[*Ingress] {
	return func(yield func(*Ingress) bool) {
		s.ingresses.root.walk(func(_ IngressName, v *Ingress) bool { return yield(v) })
	}
}

// SetIngress puts i in the place of the one of its name. The caller gives it away.
func (e *Edit) SetIngress(i *Ingress) { e.s.ingresses = e.s.ingresses.set(i.Name, i) }

// DeleteIngress removes an Ingress.
func (e *Edit) DeleteIngress(n IngressName) { e.s.ingresses = e.s.ingresses.delete(n) }

// SetIngressesKnown records that Ingresses, classes and certificates have been read once.
func (e *Edit) SetIngressesKnown() { e.s.IngressesKnown = true }

// IngressChange is an Ingress before and after; nil where it did not exist.
type IngressChange struct {
	Name     IngressName
	Old, New *Ingress
}

func hashIngress(n IngressName) uint64 { return hashName(ServiceName(n)) }

func (i *Ingress) writeText(b *strings.Builder) {
	fmt.Fprintf(b, "ingress %s class=%q served=%t", i.Name, i.Class, i.Served)
	if i.Redirect != RedirectTLSHosts {
		fmt.Fprintf(b, " redirect=%s", i.Redirect)
	}
	if i.MaxBody > 0 {
		fmt.Fprintf(b, " maxBody=%d", i.MaxBody)
	}
	if len(i.Addrs) > 0 {
		fmt.Fprintf(b, " addrs=%v", i.Addrs)
	}
	b.WriteByte('\n')
	if i.Default != nil {
		fmt.Fprintf(b, "  default %s\n", i.Default)
	}
	for _, r := range i.Rules {
		fmt.Fprintf(b, "  host %q\n", r.Host)
		for _, p := range r.Paths {
			fmt.Fprintf(b, "    %s %s -> %s\n", p.Type, p.Path, p.Backend)
		}
	}
	for _, t := range i.TLS {
		fmt.Fprintf(b, "  tls %v secret=%s", t.Hosts, t.Secret)
		if c := t.Certificate; c != nil {
			fmt.Fprintf(b, " names=%v until=%s", c.Names, c.NotAfter.Format(time.DateOnly))
		}
		b.WriteByte('\n')
	}
	for _, w := range i.Warnings {
		fmt.Fprintf(b, "  warning %s\n", w)
	}
}
