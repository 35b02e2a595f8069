//go:build linux

package walkthrough

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"minato/test/world"
)

// certificate writes a certificate for names, by itself, and its key, and returns the folder of tls.crt and tls.key.
func certificate(t *testing.T, names ...string) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: names[0]}, DNSNames: names,
		IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for file, block := range map[string]*pem.Block{"tls.crt": {Type: "CERTIFICATE", Bytes: cert}, "tls.key": {Type: "PRIVATE KEY", Bytes: secret}} {
		if err := os.WriteFile(filepath.Join(dir, file), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// ingress is by the example alone: the article points at the YAML of others.
func (e ways) ingress(t *testing.T) {
	all := e.sample(t)
	sayWho(t, e.w, "default", "nginx-container", all)
	file, err := filepath.Abs("../../examples/003-expose/sample-ingress.yaml")
	if err != nil {
		t.Fatal(err)
	}
	tls := certificate(t, "www.example.com")
	e.w.Kubectl(t, "create", "secret", "tls", "sample-tls", "--cert="+tls+"/tls.crt", "--key="+tls+"/tls.key")
	e.w.Kubectl(t, "apply", "-f", file)
	t.Cleanup(func() {
		e.w.Kubectl(t, "delete", "-f", file)
		e.w.Kubectl(t, "delete", "secret", "sample-tls")
	})
	shop := readyPods(t, e.w, "default", "app=sample-shop", 1)
	sayWho(t, e.w, "default", "", shop)
	e.w.Kubectl(t, "exec", shop[0].Name, "--", "sh", "-c", "cd /usr/share/nginx/html && mkdir shop && cp who shop")
	addr := e.ingressAddress(t)
	for _, at := range []string{addr, "192.168.3.33", "192.168.3.32"} { // its own, and those of the nodes
		get := func(url string, flags ...string) func() world.Result {
			argv := []string{"curl", "-sS", "-m", "5", "--cacert", tls + "/tls.crt", "--connect-to", "::" + at + ":", url}
			return func() world.Result { return e.w.OnLAN(append(argv, flags...)...) }
		}
		wantAll(t, all, get("https://www.example.com/who"))
		wantAll(t, shop, get("https://www.example.com/shop/who"))
		wantAll(t, shop, get("http://shop.example.com/who"))
		for url, want := range map[string]string{
			"http://www.example.com/who":   "308 https://www.example.com/who",
			"http://other.example.com/who": "404 ",
		} {
			if r := get(url, "-o", "/dev/null", "-w", "%{http_code} %{redirect_url}")(); r.Stdout != want {
				t.Errorf("%s at %s: got %q (%v), want %q", url, at, r.Output(), r.Err, want)
			}
		}
	}
}

// ingressAddress waits until `kubectl get ingress` shows class, hosts, address and ports.
func (e ways) ingressAddress(t *testing.T) (addr string) {
	t.Helper()
	row := regexp.MustCompile(`(?m)^sample-ingress\s+minato\s+www\.example\.com,shop\.example\.com\s+(192\.168\.3\.\d+)\s+80, 443\s+\S+$`)
	world.Eventually(t, netTime, func() error {
		out := e.w.Kubectl(t, "get", "ingress")
		m := row.FindStringSubmatch(out)
		if m == nil {
			return fmt.Errorf("no row of sample-ingress with an address:\n%s", out)
		}
		addr = m[1]
		return nil
	})
	if out := e.w.Kubectl(t, "get", "service", "-A"); strings.Count(out, " "+addr+" ") != 1 {
		t.Errorf("%s is to be the address of one LoadBalancer Service:\n%s", netip.MustParseAddr(addr), out)
	}
	return addr
}
