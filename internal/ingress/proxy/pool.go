package proxy

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httputil"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"minato/internal/ingress"
	"minato/internal/model"
)

const (
	maxTries     = 3               // nginx: proxy_next_upstream_tries
	avoidFor     = 5 * time.Second // how long others are preferred to a backend that could not be reached
	idlePerHost  = 320             // nginx: upstream-keepalive-connections
	idleConnTime = 55 * time.Second
)

var errNoBackend = errors.New("no backend is ready")

// pool is the backends of one ingress.Pool, over its whole life. It is the Transport of its own ReverseProxy.
type pool struct {
	server    *Server
	proxy     *httputil.ReverseProxy
	planned   *ingress.Pool // guarded by Server.mu
	endpoints atomic.Pointer[[]*endpoint]
}

// endpoint is one backend with connections of its own.
type endpoint struct {
	addr      netip.AddrPort
	target    string // the pod: another one at the same address is another endpoint
	transport *http.Transport
	inFlight  atomic.Int64 // requests under way, and retired where no more may begin
	avoid     atomic.Int64 // until when others are preferred, in Unix nanoseconds
}

func (s *Server) newPool() *pool {
	p := &pool{server: s}
	p.endpoints.Store(new([]*endpoint))
	p.proxy = s.newProxy(p)
	return p
}

// update takes over what is planned; nil is the pool's end. A backend that is gone gets nothing new: its requests
// under way go on, and its connections are closed with the last one.
func (p *pool) update(planned *ingress.Pool) {
	if p.planned == planned && planned != nil {
		return
	}
	p.planned = planned
	old := *p.endpoints.Load()
	var next []*endpoint
	if planned != nil {
		for _, b := range planned.Backends {
			next = append(next, p.endpoint(old, b))
		}
	}
	p.endpoints.Store(&next)
	for _, e := range old {
		if !slices.Contains(next, e) {
			e.retire()
		}
	}
}

// retired is more than there are requests.
const retired = 1 << 62

// begin counts a request, unless the endpoint is retired.
func (e *endpoint) begin() bool {
	if e.inFlight.Add(1) > retired {
		e.end()
		return false
	}
	return true
}

func (e *endpoint) end() {
	if e.inFlight.Add(-1) == retired {
		e.transport.CloseIdleConnections()
	}
}

// retire closes the connections when no request is under way any more. Before, it could cost one its answer: a Transport
// takes a connection for idle while the answer without a body that came by it is still on its way to RoundTrip.
func (e *endpoint) retire() {
	if e.inFlight.Add(retired) == retired {
		e.transport.CloseIdleConnections()
	}
}

func (p *pool) endpoint(old []*endpoint, b *model.Backend) *endpoint {
	for _, e := range old {
		if e.addr == b.Addr && e.target == b.Target {
			return e
		}
	}
	return p.server.newEndpoint(b.Addr, b.Target)
}

func (s *Server) newEndpoint(addr netip.AddrPort, target string) *endpoint {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) { return s.dial(ctx, addr) }
	return &endpoint{addr: addr, target: target, transport: &http.Transport{
		DialContext: dial, Protocols: protocols, DisableCompression: true, MaxIdleConnsPerHost: idlePerHost,
		IdleConnTimeout: idleConnTime, ExpectContinueTimeout: time.Second, MaxResponseHeaderBytes: 1 << 20,
		WriteBufferSize: 8 << 10, ReadBufferSize: 8 << 10,
	}}
}

// RoundTrip sends a request to one of the backends, and to another one where that cannot have done any harm: when no
// connection came about, so that nothing was sent, or when the method is idempotent and there is no body.
func (p *pool) RoundTrip(req *http.Request) (*http.Response, error) {
	x := exchangeOf(req)
	var tried []*endpoint
	err := errNoBackend
	for len(tried) < maxTries {
		e := pick(*p.endpoints.Load(), tried, time.Now)
		if e == nil {
			break
		}
		if !x.use(e) {
			continue // the endpoints are others by now
		}
		if len(tried) > 0 {
			p.server.retries.Add(1)
		}
		tried = append(tried, e)
		var res *http.Response
		if res, err = e.transport.RoundTrip(req); err == nil {
			e.avoid.Store(0)
			return res, nil
		}
		unreached := errors.As(err, new(dialError))
		if unreached {
			e.avoid.Store(time.Now().Add(avoidFor).UnixNano())
		}
		if req.Context().Err() != nil || !unreached && !repeatable(req) {
			break
		}
	}
	return nil, err
}

// repeatable reports whether sending the request twice is the same as once (RFC 9110, 9.2.2), and possible.
func repeatable(req *http.Request) bool {
	if req.Body != nil || req.Header.Get("Upgrade") != "" {
		return false
	}
	switch req.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodPut, http.MethodDelete:
		return true
	}
	return false
}

// pick takes the one with fewer requests under way of two random backends, and one that was reached lately before
// one that was not. It is nil when there is none that was not tried.
func pick(all, tried []*endpoint, now func() time.Time) *endpoint {
	n := len(all)
	if n == 0 {
		return nil
	}
	first := rand.IntN(n)
	best := all[first]
	if n > 1 {
		best = better(best, all[(first+1+rand.IntN(n-1))%n], now)
	}
	if len(tried) == 0 && !best.avoided(now) {
		return best
	}
	best = nil
	for i, start := 0, rand.IntN(n); i < n; i++ {
		if e := all[(start+i)%n]; !slices.Contains(tried, e) {
			best = better(best, e, now)
		}
	}
	return best
}

func better(a, b *endpoint, now func() time.Time) *endpoint {
	switch {
	case a == nil:
		return b
	case a.avoided(now) != b.avoided(now):
		if a.avoided(now) {
			return b
		}
		return a
	case b.inFlight.Load() < a.inFlight.Load():
		return b
	}
	return a
}

func (e *endpoint) avoided(now func() time.Time) bool {
	until := e.avoid.Load()
	return until != 0 && now().UnixNano() < until
}
