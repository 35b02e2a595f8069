package server

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http/httptest"
	"net/netip"
	"sync"
	"testing"

	mdns "github.com/miekg/dns"
)

// secureUpstream is a resolver that speaks TLS only, with a certificate for 127.0.0.1 and example.com.
type secureUpstream struct {
	net.Listener
	addr  netip.AddrPort
	roots *x509.CertPool

	mu    sync.Mutex
	conns []net.Conn // that were opened
}

func (u *secureUpstream) Accept() (net.Conn, error) {
	c, err := u.Listener.Accept()
	if err == nil {
		u.mu.Lock()
		u.conns = append(u.conns, c)
		u.mu.Unlock()
	}
	return c, err
}

// opened is how many connections there were, and ends them.
func (u *secureUpstream) opened() int {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, c := range u.conns {
		c.Close()
	}
	return len(u.conns)
}

func startSecureUpstream(t *testing.T) *secureUpstream {
	t.Helper()
	web := httptest.NewTLSServer(nil) // for its certificate
	defer web.Close()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	u := &secureUpstream{Listener: l, addr: l.Addr().(*net.TCPAddr).AddrPort(), roots: x509.NewCertPool()}
	u.roots.AddCert(web.Certificate())
	serve(t, &mdns.Server{Listener: tls.NewListener(u, &tls.Config{Certificates: web.TLS.Certificates}), Handler: mdns.HandlerFunc(answering("192.0.2.1", 60))})
	return u
}

func TestUpstreamsAreAskedOverTLS(t *testing.T) {
	u := startSecureUpstream(t)
	_, at := configured(t, Settings{Forward: []Forward{{Zone: ".", Upstreams: []netip.AddrPort{u.addr}, TLS: &TLS{Roots: u.roots}}}})
	ask := func(i int) {
		t.Helper()
		wantA(t, exchange(t, "udp", at, question(fmt.Sprintf("www%d.example.com.", i), mdns.TypeA)), "192.0.2.1")
	}
	for i := range 5 {
		ask(i)
	}
	if n := u.opened(); n > 2 { // the first question has the upstream probed for a loop, beside it
		t.Errorf("5 questions one after the other took %d connections", n)
	}
	ask(5) // the connection that was kept is closed
}

func TestAnUpstreamMustProveWhoItIs(t *testing.T) {
	u := startSecureUpstream(t)
	for name, c := range map[string]struct {
		tls  TLS
		want string
	}{
		"its address": {TLS{Roots: u.roots}, "NOERROR | www.example.org. 60 IN A 192.0.2.1"},
		"its name":    {TLS{Roots: u.roots, ServerName: "example.com"}, "NOERROR | www.example.org. 60 IN A 192.0.2.1"},
		"other name":  {TLS{Roots: u.roots, ServerName: "other.test"}, "SERVFAIL"},
		"unknown":     {TLS{}, "SERVFAIL"},
	} {
		_, at := configured(t, Settings{Forward: []Forward{{Zone: ".", Upstreams: []netip.AddrPort{u.addr}, TLS: &c.tls}}})
		if got := briefly(exchange(t, "udp", at, question("www.example.org.", mdns.TypeA))); got != c.want {
			t.Errorf("%s: got %s, want %s", name, got, c.want)
		}
	}
}
