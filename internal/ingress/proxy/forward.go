package proxy

import (
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http/httputil"
	"strconv"
	"strings"
	"sync"
)

// newProxy forwards the requests of one pool.
func (s *Server) newProxy(p *pool) *httputil.ReverseProxy {
	return &httputil.ReverseProxy{
		Transport:      p,
		Rewrite:        s.rewrite,
		ModifyResponse: s.responding,
		FlushInterval:  -1, // what a backend sends goes on at once
		BufferPool:     &s.buffers,
		ErrorLog:       slog.NewLogLogger(s.cfg.Log.Handler(), slog.LevelDebug),
		ErrorHandler:   s.failed,
	}
}

// forwardedHeaders tell a backend of the client: its address, twice, the host and port that it asked, and the scheme.
var forwardedHeaders = [...]string{
	"X-Real-Ip", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Port", "X-Forwarded-Proto", "X-Forwarded-Scheme", "X-Scheme",
}

// rewrite makes the request for a backend of the client's. The headers are ingress-nginx's with its defaults: what
// the client says of itself is replaced, because anybody can write anything there.
func (s *Server) rewrite(r *httputil.ProxyRequest) {
	in, out := r.In, r.Out
	out.URL.Scheme, out.URL.Host = "http", "backend" // the endpoint's Transport knows where
	out.URL.RawQuery = in.URL.RawQuery               // as it came; no rule looks at it
	if out.Body != nil {
		out.Body = in.Body // without ReverseProxy's cover, which cannot be read after a first backend was not reached
	}
	h := out.Header
	for name := range h {
		if strings.IndexByte(name, '_') >= 0 { // CGI takes X_Real_Ip for X-Real-Ip
			delete(h, name)
		}
	}
	delete(h, "Proxy") // httpoxy, CVE-2016-5385
	delete(h, "Http2-Settings")
	if refusedUpgrade(h.Get("Upgrade")) {
		delete(h, "Upgrade")
		delete(h, "Connection")
	}
	client, _, err := net.SplitHostPort(in.RemoteAddr)
	if err != nil {
		client = in.RemoteAddr
	}
	scheme, port := "http", s.cfg.Ports.HTTP
	if in.TLS != nil {
		scheme, port = "https", s.cfg.Ports.HTTPS
	}
	values := [...]string{client, client, in.Host, strconv.Itoa(int(port)), scheme, scheme, scheme}
	for i, name := range forwardedHeaders {
		h[name] = values[i : i+1 : i+1]
	}
	if len(h["X-Request-Id"]) == 0 {
		h["X-Request-Id"] = []string{fmt.Sprintf("%016x%016x", rand.Uint64(), rand.Uint64())}
	}
	delete(h, "X-Original-Forwarded-For")
	if was := in.Header["X-Forwarded-For"]; len(was) > 0 {
		h["X-Original-Forwarded-For"] = []string{strings.Join(was, ", ")}
	}
}

// refusedUpgrade reports whether a protocol must not be tunnelled: in one of HTTP, requests would reach the backend
// past every rule (h2c smuggling). The request goes on without it.
func refusedUpgrade(protocols string) bool {
	for p := range strings.SplitSeq(protocols, ",") {
		p, _, _ := strings.Cut(strings.ToLower(strings.TrimSpace(p)), "/")
		if p == "h2c" || p == "h2" || p == "http" || p == "tls" {
			return true
		}
	}
	return false
}

// buffers lends the memory through which bodies are copied.
type buffers struct{ pool sync.Pool }

const bufferSize = 32 << 10

func (b *buffers) Get() []byte {
	if p, ok := b.pool.Get().(*[bufferSize]byte); ok {
		return p[:]
	}
	return new([bufferSize]byte)[:]
}

func (b *buffers) Put(p []byte) { b.pool.Put((*[bufferSize]byte)(p)) }
