package proxy

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"minato/internal/model"
)

// wait bounds everything that a test waits for.
const wait = 45 * time.Second

// world is a running Server on loopback, and the snapshot that it has. There is one at a time: when it stops, nothing
// of it may be left.
type world struct {
	*Server
	t        testing.TB
	snapshot *model.Snapshot
	stop     func()
	plain    string // address of each port
	secure   string
}

var loopback = netip.MustParseAddr("127.0.0.1")

// freePorts are two that nobody has now. They are below those that the kernel gives to clients and to listeners that
// name no port, so they stay free until the server listens.
func freePorts(t testing.TB) Ports {
	t.Helper()
	var ports []uint16
	for range 100 {
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", 10_000+rand.IntN(20_000)))
		if err != nil {
			continue
		}
		defer l.Close() // when both are known, so that they differ
		if ports = append(ports, netip.MustParseAddrPort(l.Addr().String()).Port()); len(ports) == 2 {
			return Ports{ports[0], ports[1]}
		}
	}
	t.Fatal("no two ports are free")
	return Ports{}
}

func start(t testing.TB, change func(*Config)) *world {
	t.Helper()
	cert, err := DefaultCertificate(filepath.Join(t.TempDir(), "default.pem"))
	if err != nil {
		t.Fatal(err)
	}
	cfg := Config{Addrs: []netip.Addr{loopback}, Ports: freePorts(t), Default: cert, Log: slog.New(slog.DiscardHandler)}
	if change != nil {
		change(&cfg)
	}
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	w := &world{Server: s, t: t, snapshot: model.Empty()}
	w.plain = netip.AddrPortFrom(loopback, cfg.Ports.HTTP).String()
	w.secure = netip.AddrPortFrom(loopback, cfg.Ports.HTTPS).String()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	w.stop = sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("Run: %v", err)
			}
		case <-time.After(wait):
			t.Errorf("Run does not end\n%s", stacks())
		}
		deadline := time.Now().Add(wait)
		for strings.Contains(stacks(), "proxy.(*Server)") || strings.Contains(stacks(), "net/http.(*persistConn)") {
			if time.Now().After(deadline) {
				t.Errorf("goroutines are left\n%s", stacks())
				return
			}
			time.Sleep(time.Millisecond)
		}
	})
	t.Cleanup(w.stop)
	return w
}

func stacks() string {
	buf := make([]byte, 1<<20)
	return string(buf[:runtime.Stack(buf, true)])
}

func eventually(t testing.TB, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(wait); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never came: %s\n%s", what, stacks())
		}
	}
}

// edit makes the next snapshot and takes the server through both phases.
func (w *world) edit(f func(*model.Edit)) {
	w.t.Helper()
	w.snapshot = w.snapshot.With(func(e *model.Edit) {
		e.SetComplete()
		e.SetIngressesKnown()
		f(e)
	})
	if err := w.Withdraw(w.t.Context(), w.snapshot); err != nil {
		w.t.Fatal(err)
	}
	if err := w.Publish(w.t.Context(), w.snapshot, nil); err != nil {
		w.t.Fatal(err)
	}
}

// serve makes an Ingress of one host with one Service behind it, and waits until the server listens.
func (w *world) serve(host string, backends ...string) *model.Ingress {
	w.t.Helper()
	i := &model.Ingress{
		Name: model.IngressName{Namespace: "default", Name: "i-" + host}, Served: true,
		Rules: []model.IngressRule{{Host: host, Paths: []model.IngressPath{{Path: "/", Backend: model.IngressBackend{Service: host, Port: 80}}}}},
	}
	w.edit(func(e *model.Edit) {
		e.SetIngress(i)
		e.SetService(newService(host, backends...))
	})
	eventually(w.t, "listening", w.Listening)
	return i
}

// change puts a changed copy in the place of an Ingress, and returns it.
func (w *world) change(i *model.Ingress, f func(*model.Ingress)) *model.Ingress {
	w.t.Helper()
	cp := *i
	f(&cp)
	w.edit(func(e *model.Edit) { e.SetIngress(&cp) })
	return &cp
}

// newService has port 80 and ready backends at host:port addresses.
func newService(name string, backends ...string) *model.Service {
	sl := &model.BackendSlice{Name: name}
	for _, b := range backends {
		sl.Backends = append(sl.Backends, model.Backend{Addr: netip.MustParseAddrPort(b), Protocol: model.TCP, Ready: true, Serving: true})
	}
	return &model.Service{
		Name: model.ServiceName{Namespace: "default", Name: name}, Proxied: true, ClusterIPs: []netip.Addr{netip.MustParseAddr("10.96.0.9")},
		Ports: []model.Port{{Protocol: model.TCP, Port: 80}}, Slices: []*model.BackendSlice{sl},
	}
}

// backend runs an HTTP server for the test and returns its address.
func backend(t testing.TB, f http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewUnstartedServer(f)
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelInfo)
	s.Start()
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

// saying is a backend that always gives the same answer.
func saying(t testing.TB, text string) string {
	return backend(t, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, text) })
}

// nobody is an address that refuses connections.
func nobody(t testing.TB) string {
	return netip.AddrPortFrom(loopback, freePorts(t).HTTP).String()
}

// client reaches the server whatever host a URL names. It follows no redirects. roots may be nil for any certificate.
func (w *world) client(http2 bool, roots *x509.CertPool) *http.Client {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(!http2)
	protocols.SetHTTP2(http2)
	tr := &http.Transport{
		Protocols: protocols, DisableCompression: true,
		TLSClientConfig: &tls.Config{RootCAs: roots, InsecureSkipVerify: roots == nil},
		DialContext: func(ctx context.Context, _, addr string) (net.Conn, error) {
			to := w.plain
			if strings.HasSuffix(addr, ":443") {
				to = w.secure
			}
			return new(net.Dialer).DialContext(ctx, "tcp", to)
		},
	}
	w.t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: wait, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// get returns the status and the body, "503 ..." or "200 ...".
func (w *world) get(url string) string {
	w.t.Helper()
	return do(w.t, w.client(false, nil), http.MethodGet, url, nil)
}

func do(t testing.TB, c *http.Client, method, url string, body io.Reader) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, body)
	if err != nil {
		t.Fatal(err)
	}
	res, err := c.Do(req)
	if err != nil {
		t.Fatalf("%s %s: %v", method, url, err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatalf("%s %s: body: %v", method, url, err)
	}
	return fmt.Sprintf("%d %s", res.StatusCode, b)
}

// raw sends bytes and returns all that comes back until the server closes, or has been silent for a moment.
func (w *world) raw(payload string) string {
	w.t.Helper()
	c, err := net.Dial("tcp", w.plain)
	if err != nil {
		w.t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, payload); err != nil {
		w.t.Fatal(err)
	}
	var out bytes.Buffer
	buf := make([]byte, 4096)
	for {
		c.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
		n, err := c.Read(buf)
		out.Write(buf[:n])
		if err != nil {
			return out.String()
		}
	}
}
