// Package dns turns a Snapshot into names and records, and keeps them as wire answers that are ready to send.
//
// A Table holds one immutable tree of names behind an atomic pointer. Readers take a View, never wait and never
// allocate; the writer replaces the few shards that a change of Services touches. Answers follow the Kubernetes DNS
// specification (kubernetes/dns docs/specification.md, 1.1.0) and, where that is silent, CoreDNS's plugin kubernetes.
// Owner names are pointers to the question, so the spelling of the question is preserved. Explain says of a name why
// it does or does not exist.
//
// It opens no sockets, parses no messages and forwards nothing: that is package server's.
package dns

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"minato/internal/model"
)

// Zone says which part of the name space is the cluster's own. It is never forwarded.
type Zone struct {
	Domain  string         // cluster domain, "cluster.local"
	Reverse []netip.Prefix // service and pod ranges: names of their reverse zones are ours, known or not
	Addrs   []netip.Addr   // addresses of the DNS service, for ns.dns.DOMAIN
	Service model.ServiceName
	Options Options
}

// zone is Zone in wire form.
type zone struct {
	domain  string // lower case, with the root label
	labels  int    // without the root
	reverse []netip.Prefix
	addrs   []netip.Addr
	service model.ServiceName
	options Options
	ttl     uint32
}

func newZone(z Zone) (*zone, error) {
	domain, ok := parseName(z.Domain)
	if !ok || domain == "\x00" {
		return nil, fmt.Errorf("cluster domain %q is not a domain name", z.Domain)
	}
	out := &zone{domain: domain, reverse: z.Reverse, addrs: z.Addrs, service: z.Service, options: z.Options, ttl: z.Options.ttl()}
	for i := 0; domain[i] != 0; i += 1 + int(domain[i]) {
		out.labels++
	}
	return out, nil
}

// under is the wire name of labels below the domain; "" when it is too long for DNS.
func (z *zone) under(labels ...string) string {
	return join(z.domain, labels...)
}

// join puts labels in front of a wire name, in lower case; "" when a label or the name is too long or empty.
func join(suffix string, labels ...string) string {
	n := len(suffix)
	for _, l := range labels {
		if l == "" || len(l) > 63 {
			return ""
		}
		n += 1 + len(l)
	}
	if suffix == "" || n > maxName {
		return ""
	}
	var b strings.Builder
	b.Grow(n)
	for _, l := range labels {
		b.WriteByte(byte(len(l)))
		for i := range len(l) {
			b.WriteByte(lower(l[i]))
		}
	}
	b.WriteString(suffix)
	return b.String()
}

// reverseName is the wire name in in-addr.arpa or ip6.arpa that stands for an address.
func reverseName(a netip.Addr) string {
	if a.Is4() {
		b := a.As4()
		return join(inAddrArpa, dec(b[3]), dec(b[2]), dec(b[1]), dec(b[0]))
	}
	const hex = "0123456789abcdef"
	b := a.As16()
	out := make([]byte, 0, 64+len(ip6Arpa))
	for i := 15; i >= 0; i-- {
		out = append(out, 1, hex[b[i]&15], 1, hex[b[i]>>4])
	}
	return string(out) + ip6Arpa
}

func dec(b byte) string { return strconv.Itoa(int(b)) }

const (
	inAddrArpa = "\x07in-addr\x04arpa\x00"
	ip6Arpa    = "\x03ip6\x04arpa\x00"
)

// own finds the longest zone of ours that holds the name: the number of labels of the name in front of its apex.
func (z *zone) own(n *Name) (front int, ok bool) {
	if front = n.labels - z.labels; front >= 0 && string(n.from(front)) == z.domain {
		return front, true
	}
	for _, p := range z.reverse {
		if front, ok := n.reverseIn(p); ok {
			return front, true
		}
	}
	return 0, false
}
