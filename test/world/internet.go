//go:build linux

package world

import (
	"fmt"
	"net"
	"net/http"
	"slices"
	"sync"
	"testing"

	"github.com/miekg/dns"

	"minato/internal/netns"
	"minato/internal/netns/netnstest"
)

// NetAddr is the address of example.net, where nobody answers.
const NetAddr = "203.0.113.20"

// Addresses of the internet over IPv6, which is there where the instances have no IPv4. The host is behind its link.
const (
	far6      = "2001:db8:113::10"
	uplink6   = "2001:db8:51::1"
	internet6 = "2001:db8:51::2"
)

// joinOverIPv6 gives the host and the internet addresses of IPv6, beside those of netnstest.
func joinOverIPv6(t testing.TB, w *netnstest.World) {
	t.Helper()
	netnstest.Run(t, w.Host, "ip", "address", "add", uplink6+"/64", "dev", netnstest.HostUplink)
	netnstest.Run(t, w.Internet, "ip", "address", "add", internet6+"/64", "dev", netnstest.InternetLink)
	netnstest.Run(t, w.Internet, "ip", "address", "add", far6+"/128", "dev", "lo")
	netnstest.Settle(t, w.Host)
	netnstest.Settle(t, w.Internet)
	netnstest.Run(t, w.Host, "ip", "route", "add", "default", "via", internet6)
}

// names are what the name server of the internet knows.
var names = map[string]string{
	"www.example.com.": netnstest.FarAddr,
	"example.com.":     netnstest.FarAddr,
	"example.net.":     NetAddr,
}

// Internet is what is behind the host: a name server at netnstest.InternetAddr, and a web server on ports 80 and 8080 of
// every address that its namespace has, which the header Server of an answer names. It is safe for concurrent use.
type Internet struct {
	ns      netns.NS
	mu      sync.Mutex
	queries []string
	hits    []string
}

// Queries are the names that were asked for so far.
func (i *Internet) Queries() []string {
	i.mu.Lock()
	defer i.mu.Unlock()
	return slices.Clone(i.queries)
}

// Hits are the requests to the web server so far, as "PEER HOST PATH".
func (i *Internet) Hits() []string {
	i.mu.Lock()
	defer i.mu.Unlock()
	return slices.Clone(i.hits)
}

// Own gives the internet one more address, so that whatever leaves the host for it is answered and seen in Hits.
func (i *Internet) Own(t testing.TB, addr string) {
	t.Helper()
	netnstest.Run(t, i.ns, "ip", "address", "replace", addr+"/32", "dev", "lo")
}

// Serve answers at an address and port of the internet's until the test ends.
func (i *Internet) Serve(t testing.TB, addr string, h http.Handler) {
	t.Helper()
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	i.Own(t, host)
	l, err := i.ns.Listen(t.Context(), "tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: h}
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(l) })
	t.Cleanup(func() { server.Close(); serving.Wait() })
}

func newInternet(t testing.TB, ns netns.NS) *Internet {
	t.Helper()
	i := &Internet{ns: ns}
	packets, err := ns.ListenPacket(t.Context(), "udp", netnstest.InternetAddr+":53")
	if err != nil {
		t.Fatal(err)
	}
	streams, err := ns.Listen(t.Context(), "tcp", netnstest.InternetAddr+":53")
	if err != nil {
		t.Fatal(err)
	}
	var servers sync.WaitGroup
	udp := &dns.Server{PacketConn: packets, Handler: dns.HandlerFunc(i.answer)}
	tcp := &dns.Server{Listener: streams, Handler: dns.HandlerFunc(i.answer)}
	servers.Go(func() { _ = udp.ActivateAndServe() })
	servers.Go(func() { _ = tcp.ActivateAndServe() })
	web := &http.Server{Handler: http.HandlerFunc(i.serve)}
	for _, port := range []string{":80", ":8080"} {
		for _, network := range []string{"tcp4", "tcp6"} {
			l, err := ns.Listen(t.Context(), network, port)
			if err != nil {
				t.Fatal(err)
			}
			servers.Go(func() { _ = web.Serve(l) })
		}
	}
	t.Cleanup(func() {
		packets.Close()
		streams.Close()
		web.Close()
		servers.Wait()
	})
	return i
}

func (i *Internet) serve(rw http.ResponseWriter, r *http.Request) {
	peer, _, _ := net.SplitHostPort(r.RemoteAddr)
	i.mu.Lock()
	i.hits = append(i.hits, fmt.Sprintf("%s %s %s", peer, r.Host, r.URL.Path))
	i.mu.Unlock()
	if local, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr); ok {
		rw.Header().Set("Server", local.String())
	}
	fmt.Fprintf(rw, "the internet greets %s\n", peer)
}

func (i *Internet) answer(rw dns.ResponseWriter, q *dns.Msg) {
	m := new(dns.Msg).SetReply(q)
	question := q.Question[0]
	i.mu.Lock()
	i.queries = append(i.queries, question.Name)
	i.mu.Unlock()
	switch addr, known := names[question.Name]; {
	case !known:
		m.Rcode = dns.RcodeNameError
	case question.Qtype == dns.TypeA:
		hdr := dns.RR_Header{Name: question.Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 60}
		m.Answer = []dns.RR{&dns.A{Hdr: hdr, A: net.ParseIP(addr)}}
	case question.Qtype == dns.TypeAAAA && addr == netnstest.FarAddr && OverIPv6():
		hdr := dns.RR_Header{Name: question.Name, Rrtype: dns.TypeAAAA, Class: dns.ClassINET, Ttl: 60}
		m.Answer = []dns.RR{&dns.AAAA{Hdr: hdr, AAAA: net.ParseIP(far6)}}
	}
	_ = rw.WriteMsg(m) // who asked and went away is no concern of the test
}
