package proxy

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"io"
	"math/big"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"minato/internal/model"
)

// newCertificate makes a certificate for names, and the pool that trusts it.
func newCertificate(t *testing.T, names ...string) (*model.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), DNSNames: names, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(leaf)
	return &model.Certificate{Chain: [][]byte{der}, Key: model.HidePrivateKey(key), Names: names, NotAfter: leaf.NotAfter}, pool
}

func withTLS(c *model.Certificate, hosts ...string) func(*model.Ingress) {
	return func(i *model.Ingress) { i.TLS = []model.IngressTLS{{Hosts: hosts, Secret: "s", Certificate: c}} }
}

func TestCertificateBySNI(t *testing.T) {
	w := start(t, nil)
	one, trustOne := newCertificate(t, "one.example.com")
	wild, trustWild := newCertificate(t, "*.example.com")
	w.change(w.serve("one.example.com", saying(t, "one")), withTLS(one, "one.example.com"))
	w.change(w.serve("two.example.com", saying(t, "two")), withTLS(wild, "*.example.com"))
	for url, trust := range map[string]*x509.CertPool{
		"https://one.example.com/": trustOne, "https://two.example.com/": trustWild, "https://three.example.com/": trustWild,
	} {
		do(t, w.client(true, trust), "GET", url, nil)
	}
	defaults := x509.NewCertPool()
	defaults.AddCert(w.cfg.Default.Leaf)
	c, err := tls.Dial("tcp", w.secure, &tls.Config{ServerName: "elsewhere.org", InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if got := c.ConnectionState().PeerCertificates[0]; !got.Equal(w.cfg.Default.Leaf) {
		t.Errorf("an unknown name gets the certificate of %v", got.DNSNames)
	}
}

func TestACertificateIsReplacedWhileConnectionsGoOn(t *testing.T) {
	w := start(t, nil)
	old, trustOld := newCertificate(t, "x.example.com")
	i := w.change(w.serve("x.example.com", saying(t, "x")), withTLS(old, "x.example.com"))
	before := w.client(true, trustOld)
	do(t, before, "GET", "https://x.example.com/", nil)
	renewed, trustNew := newCertificate(t, "x.example.com")
	w.change(i, withTLS(renewed, "x.example.com"))
	if got := do(t, w.client(true, trustNew), "GET", "https://x.example.com/", nil); got != "200 x" {
		t.Errorf("a new connection: %s", got)
	}
	if got := do(t, before, "GET", "https://x.example.com/", nil); got != "200 x" {
		t.Errorf("on the old connection: %s", got)
	}
}

func TestSNIChoosesTheCertificateAndHostTheRoute(t *testing.T) {
	w := start(t, nil)
	one, trust := newCertificate(t, "one.example.com")
	w.change(w.serve("one.example.com", saying(t, "one")), withTLS(one, "one.example.com"))
	w.serve("two.example.com", saying(t, "two"))
	c, err := tls.Dial("tcp", w.secure, &tls.Config{ServerName: "one.example.com", RootCAs: trust})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.Write([]byte("GET / HTTP/1.1\r\nHost: two.example.com\r\nConnection: close\r\n\r\n"))
	c.SetDeadline(time.Now().Add(wait))
	if got, err := io.ReadAll(c); err != nil || !strings.HasSuffix(string(got), "two") {
		t.Errorf("%q %v", got, err)
	}
}

func TestOldTLSIsRefused(t *testing.T) {
	w := start(t, nil)
	w.serve("x", saying(t, "x"))
	c, err := tls.Dial("tcp", w.secure, &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS11, MinVersion: tls.VersionTLS10})
	if err == nil {
		c.Close()
		t.Error("TLS 1.1 is spoken")
	}
}

func TestThePortsAreTakenOnlyWhileThereIsAnIngress(t *testing.T) {
	var changes atomic.Int32
	w := start(t, func(c *Config) { c.OnChange = func() { changes.Add(1) } })
	if w.Listening() || w.Problem() != "" {
		t.Errorf("at first: listening %t, problem %q", w.Listening(), w.Problem())
	}
	i := w.serve("x", saying(t, "x"))
	w.edit(func(e *model.Edit) { e.DeleteIngress(i.Name) })
	eventually(t, "no listening any more", func() bool { return !w.Listening() })
	eventually(t, "the port to be free", func() bool {
		l, err := net.Listen("tcp", w.plain)
		if err == nil {
			l.Close()
		}
		return err == nil
	})
	if n := changes.Load(); n != 2 {
		t.Errorf("told of %d changes, want 2", n)
	}
	w.serve("x", saying(t, "again"))
	if got := w.get("http://x/"); got != "200 again" {
		t.Error(got)
	}
}

func TestATakenPortIsAProblemUntilItIsFree(t *testing.T) {
	var other net.Listener
	w := start(t, func(c *Config) {
		var err error
		if other, err = net.Listen("tcp", netip.AddrPortFrom(loopback, c.Ports.HTTP).String()); err != nil {
			t.Fatal(err)
		}
	})
	w.edit(func(e *model.Edit) {
		e.SetIngress(&model.Ingress{Name: model.IngressName{Namespace: "d", Name: "i"}, Served: true, Default: &model.IngressBackend{Service: "s", Port: 80}})
	})
	eventually(t, "the problem", func() bool { return w.Problem() != "" })
	if p := w.Problem(); w.Listening() || !strings.Contains(p, "another program has "+w.plain) {
		t.Errorf("listening %t: %s", w.Listening(), p)
	}
	if l, err := net.Listen("tcp", w.secure); err != nil {
		t.Errorf("the other port is kept: %v", err)
	} else {
		l.Close()
	}
	other.Close()
	eventually(t, "listening", func() bool { return w.Listening() && w.Problem() == "" })
}

func TestNothingIsServedBeforeIngressesAreKnown(t *testing.T) {
	w := start(t, nil)
	i := w.serve("x", saying(t, "x"))
	partial := model.Empty().With(func(e *model.Edit) { e.SetComplete() })
	if err := w.Withdraw(t.Context(), partial); err != nil {
		t.Fatal(err)
	}
	if err := w.Publish(t.Context(), partial, nil); err != nil {
		t.Fatal(err)
	}
	if got := w.get("http://" + strings.TrimPrefix(i.Name.Name, "i-") + "/"); got != "200 x" {
		t.Errorf("a snapshot without Ingresses has taken them away: %s", got)
	}
}

func TestHeldServicesKeepTheirBackends(t *testing.T) {
	w := start(t, nil)
	w.serve("x", saying(t, "old"))
	next := w.snapshot.With(func(e *model.Edit) { e.SetService(newService("x", saying(t, "new"))) })
	for _, c := range []struct {
		held func(model.ServiceName) bool
		want string
	}{{func(model.ServiceName) bool { return true }, "200 old"}, {nil, "200 new"}} {
		w.Withdraw(t.Context(), next)
		w.Publish(t.Context(), next, c.held)
		if got := w.get("http://x/"); got != c.want {
			t.Errorf("%s, want %s", got, c.want)
		}
	}
}

func TestTheDefaultCertificateIsMadeOnce(t *testing.T) {
	file := filepath.Join(t.TempDir(), "default.pem")
	one, err := DefaultCertificate(file)
	if err != nil {
		t.Fatal(err)
	}
	two, err := DefaultCertificate(file)
	if err != nil || !one.Leaf.Equal(two.Leaf) {
		t.Errorf("another one the second time: %v", err)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", info.Mode(), err)
	}
	if err := os.WriteFile(file, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := DefaultCertificate(file); err == nil || !strings.Contains(err.Error(), "remove "+file) {
		t.Errorf("of a broken file: %v", err)
	}
}

func TestMetrics(t *testing.T) {
	w := start(t, nil)
	w.serve("x", saying(t, "x"))
	w.get("http://x/")
	eventually(t, "the request to end", func() bool { return w.active.Load() == 0 })
	r := prometheus.NewRegistry()
	r.MustRegister(w.Server)
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]float64{}
	for _, f := range families {
		for _, m := range f.Metric {
			found[f.GetName()] += m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	if found["minato_ingress_requests_total"] != 1 || len(found) != 3 {
		t.Error(found)
	}
}
