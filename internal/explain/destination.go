package explain

import (
	"net/netip"
	"net/url"
	"strconv"
	"strings"

	"minato/internal/model"
)

// destination is a parsed Query.To.
type destination struct {
	service  model.ServiceName // of svc/NAME, else empty
	name     string            // to look up, else empty
	addr     netip.Addr        // else invalid
	port     string            // number or name, empty when not given
	protocol model.Protocol
	guessed  bool     // protocol was not given
	url      *url.URL // of HTTP; nil for what is no such URL
}

// tls reports whether the URL is one of HTTPS.
func (d destination) tls() bool {
	return d.url != nil && (d.url.Scheme == "https" || d.url.Scheme == "wss")
}

// number is the number of a port, 0 for a name.
func number(port string) uint16 {
	n, _ := strconv.ParseUint(port, 10, 16)
	return uint16(n)
}

func parseDestination(q Query) (destination, error) {
	d := destination{protocol: model.TCP, guessed: q.Protocol == ""}
	switch strings.ToLower(q.Protocol) {
	case "", "tcp":
	case "udp":
		d.protocol = model.UDP
	case "sctp":
		d.protocol = model.SCTP
	default:
		return d, questionf("--protocol must be tcp, udp or sctp, not %q", q.Protocol)
	}
	to, err := d.fromURL(q.To)
	if err != nil {
		return d, err
	}
	kind, rest, _ := strings.Cut(to, "/")
	if (kind == "svc" || kind == "service") && rest != "" {
		return d, d.fromService(rest, q.Namespace)
	}
	if strings.Contains(to, "/") || to == "" {
		return d, questionf("cannot read the destination %q: write NAME:PORT, ADDRESS:PORT, a URL, or svc/NAME", q.To)
	}
	return d, d.fromHost(to)
}

// fromURL reduces a URL to host and port. A destination that is none is returned as it is.
func (d *destination) fromURL(s string) (string, error) {
	if !strings.Contains(s, "://") {
		return s, nil
	}
	u, err := url.Parse(s)
	if err != nil || u.Host == "" {
		return "", questionf("cannot read the URL %q", s)
	}
	d.guessed = false
	switch u.Scheme = strings.ToLower(u.Scheme); u.Scheme {
	case "http", "https", "ws", "wss":
		d.url = u
	}
	if u.Port() != "" {
		return u.Host, nil
	}
	port := map[string]string{"http": "80", "ws": "80", "https": "443", "wss": "443", "redis": "6379", "grpc": "443"}[u.Scheme]
	if port == "" {
		return "", questionf("the URL %q needs a port: minato does not know that of %q", s, u.Scheme)
	}
	return u.Host + ":" + port, nil
}

func (d *destination) fromService(s, namespace string) error {
	s, d.port, _ = strings.Cut(s, ":")
	if ns, name, ok := strings.Cut(s, "/"); ok {
		namespace, s = ns, name
	}
	if s == "" || strings.Contains(s, "/") {
		return questionf("cannot read the Service: write svc/NAME or svc/NAMESPACE/NAME, with :PORT if it has several")
	}
	d.service = model.ServiceName{Namespace: namespace, Name: s}
	return nil
}

// fromHost reads an address or a name, with or without a port.
func (d *destination) fromHost(s string) error {
	if a, err := netip.ParseAddr(strings.Trim(s, "[]")); err == nil {
		d.addr = a.Unmap()
		return nil
	}
	if i := strings.LastIndexByte(s, ':'); i >= 0 {
		s, d.port = s[:i], s[i+1:]
		if n, err := strconv.Atoi(d.port); d.port == "" || err == nil && (n < 1 || n > 65535) {
			return questionf("cannot read the port %q: it is a number from 1 to 65535, or the name of a Service's port", d.port)
		}
	}
	if a, err := netip.ParseAddr(strings.Trim(s, "[]")); err == nil {
		d.addr = a.Unmap()
		return nil
	}
	if strings.ContainsAny(s, ":[] ") || strings.Trim(s, ".") == "" {
		return questionf("cannot read the name %q", s)
	}
	d.name = strings.ToLower(s)
	return nil
}
