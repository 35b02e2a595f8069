package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"time"

	"minato/internal/ingress"
)

// exchange is one request on its way. It belongs to the goroutine that serves it.
type exchange struct {
	endpoint *endpoint    // that has the request now
	body     *requestBody // nil: the request has none
	status   int          // sent to the client; 0: none, because it went away
	http1    bool
}

type exchangeKey struct{}

func exchangeOf(r *http.Request) *exchange {
	x, _ := r.Context().Value(exchangeKey{}).(*exchange)
	return x
}

// use counts the request at the endpoint, and no longer at the one before. It is false for an endpoint that is retired.
func (x *exchange) use(e *endpoint) bool {
	if !e.begin() {
		return false
	}
	x.leave()
	x.endpoint = e
	return true
}

// leave counts the request no longer at the endpoint that had it last.
func (x *exchange) leave() {
	if x.endpoint != nil {
		x.endpoint.end()
		x.endpoint = nil
	}
}

// ServeHTTP answers one request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	x := &exchange{http1: r.ProtoMajor == 1}
	start := time.Now()
	s.active.Add(1)
	defer func() {
		x.body.Close()
		var backend string
		if x.endpoint != nil {
			backend = x.endpoint.addr.String()
			x.leave()
		}
		s.active.Add(-1)
		s.answered(x.status)
		if s.cfg.AccessLog != nil {
			s.cfg.AccessLog.Info("request", "client", r.RemoteAddr, "method", r.Method, "host", r.Host, "uri", r.RequestURI,
				"protocol", r.Proto, "status", x.status, "duration", time.Since(start), "backend", backend)
		}
	}()
	s.answer(w, r.WithContext(context.WithValue(r.Context(), exchangeKey{}, x)), x)
}

func (s *Server) answer(w http.ResponseWriter, r *http.Request, x *exchange) {
	if r.Method == http.MethodConnect || r.Method == http.MethodTrace {
		refuse(w, x, http.StatusMethodNotAllowed, "This method is not served.")
		return
	}
	escaped := r.URL.EscapedPath()
	if escaped == "" {
		escaped = "/"
	}
	path, err := ingress.ParsePath(escaped)
	if err != nil {
		refuse(w, x, http.StatusBadRequest, "The path is ambiguous: escaped slashes, backslashes and steps above the root are not served.")
		return
	}
	t, host := s.table.Load(), ingress.Hostname(r.Host)
	route := t.plan.Lookup(host, path.Decoded)
	if route == nil {
		refuse(w, x, http.StatusNotFound, "No Ingress has a rule for this host and path.")
		return
	}
	if r.TLS == nil && t.plan.Redirects(route, host) {
		s.redirect(w, r, x)
		return
	}
	if route.MaxBody > 0 && r.ContentLength > route.MaxBody {
		refuse(w, x, http.StatusRequestEntityTooLarge, "The request is larger than its Ingress allows.")
		return
	}
	r.URL.Path, r.URL.RawPath = path.Decoded, path.Escaped
	if r.Body != nil && r.Body != http.NoBody {
		x.body = newRequestBody(w, r, route.MaxBody, s.cfg.Timeouts.Client)
		r.Body = x.body
	}
	t.pools[route.Pool].proxy.ServeHTTP(w, r)
}

func (s *Server) redirect(w http.ResponseWriter, r *http.Request, x *exchange) {
	host := r.Host
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	if s.cfg.Ports.HTTPS != 443 {
		host = net.JoinHostPort(host, strconv.Itoa(int(s.cfg.Ports.HTTPS)))
	}
	w.Header().Set("Location", "https://"+host+r.URL.RequestURI())
	x.status = http.StatusPermanentRedirect
	w.WriteHeader(x.status)
}

// refuse answers in the proxy's own name.
func refuse(w http.ResponseWriter, x *exchange, status int, text string) {
	h := w.Header()
	h.Set("Content-Type", "text/plain; charset=utf-8")
	h.Set("X-Content-Type-Options", "nosniff")
	x.status = status
	w.WriteHeader(status)
	fmt.Fprintf(w, "%d %s\n%s\n", status, http.StatusText(status), text) // a client that went away needs no answer
}

// last reports whether the response must be the connection's last one.
func (x *exchange) last() bool { return x.http1 && !x.body.whole() }

// responding is the ModifyResponse of every pool.
func (s *Server) responding(r *http.Response) error {
	x := exchangeOf(r.Request)
	if x.status = r.StatusCode; x.last() {
		r.Header.Set("Connection", "close")
	}
	return nil
}

// failed answers when there is no response of a backend. It is the ErrorHandler of every pool.
func (s *Server) failed(w http.ResponseWriter, r *http.Request, err error) {
	x := exchangeOf(r)
	if x.last() {
		w.Header().Set("Connection", "close")
	}
	var tooLarge *http.MaxBytesError
	var timeout net.Error
	switch failure := x.body.failure(); {
	case errors.As(failure, &tooLarge):
		refuse(w, x, http.StatusRequestEntityTooLarge, "The request is larger than its Ingress allows.")
	case errors.Is(failure, errClientSilent):
		refuse(w, x, http.StatusRequestTimeout, "The request did not come to its end.")
	case r.Context().Err() != nil: // nobody is there to read an answer
		x.status = 0
		panic(http.ErrAbortHandler)
	case failure != nil:
		refuse(w, x, http.StatusBadRequest, "The body of the request is malformed.")
	case errors.Is(err, errNoBackend):
		refuse(w, x, http.StatusServiceUnavailable, "The Service behind this address has no backend that is ready.")
	case errors.As(err, &timeout) && timeout.Timeout():
		refuse(w, x, http.StatusGatewayTimeout, "The backend did not answer in time.")
	default:
		refuse(w, x, http.StatusBadGateway, "The backend could not be reached, or its answer was not HTTP.")
	}
	s.cfg.Log.Debug("ingress: request failed", "host", r.Host, "path", r.URL.Path, "status", x.status, "error", err)
}
