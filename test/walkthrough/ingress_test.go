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

// ingress is by the examples alone: the article points at the YAML of others.
func (e ways) ingress(t *testing.T) {
	e.applyExample(t, "ingress-apps.yaml")
	e.applyExample(t, "ingress.yaml")
	shop, blog := readyPods(t, e.w, "default", "app=shop", 2), readyPods(t, e.w, "default", "app=blog", 1)
	for _, at := range []string{e.ingressAddress(t, "80"), "192.168.3.33", "192.168.3.32"} { // its own, and those of nodes
		e.wantSite(t, at, "http://shop.example.com/", "shop", shop)
		e.wantSite(t, at, "http://shop.example.com/cart/", "cart", shop)
		e.wantSite(t, at, "http://shop.example.com/blog/", "blog", blog)
		e.wantAnswer(t, at, "http://other.example.com/", "404 ")
	}

	tls := certificate(t, "shop.example.com")
	e.w.Kubectl(t, "create", "secret", "tls", "shop-tls", "--cert="+tls+"/tls.crt", "--key="+tls+"/tls.key")
	t.Cleanup(func() { e.w.Kubectl(t, "delete", "secret", "shop-tls") })
	e.applyExample(t, "ingress-tls.yaml")
	at := e.ingressAddress(t, "80, 443")
	e.wantSite(t, at, "https://shop.example.com/", "shop", shop, "--cacert", tls+"/tls.crt")
	e.wantSite(t, at, "https://shop.example.com/blog/", "blog", blog, "--cacert", tls+"/tls.crt")
	e.wantAnswer(t, at, "http://shop.example.com/cart/", "308 https://shop.example.com/cart/")

	another := certificate(t, "shop.example.com")
	e.w.Must(t, "sh", "-c", "kubectl create secret tls shop-tls --cert="+another+"/tls.crt --key="+another+"/tls.key --dry-run=client -o yaml | kubectl apply -f -")
	e.wantSite(t, at, "https://shop.example.com/", "shop", shop, "--cacert", another+"/tls.crt")

	e.applyExample(t, "ingress-default.yaml")
	e.wantSite(t, at, "http://other.example.com/blog/", "blog", blog)
}

// applyExample takes a file of the examples into use until the test ends.
func (e ways) applyExample(t *testing.T, file string) {
	t.Helper()
	path, err := filepath.Abs("../../examples/003-expose/" + file)
	if err != nil {
		t.Fatal(err)
	}
	e.w.Kubectl(t, "apply", "-f", path)
	t.Cleanup(func() { e.w.Kubectl(t, "delete", "-f", path, "--ignore-not-found") })
}

// get asks at an address for a URL of another name.
func (e ways) get(at, url string, flags ...string) world.Result {
	return e.w.OnLAN(append([]string{"curl", "-sS", "-m", "5", "--connect-to", "::" + at + ":", url}, flags...)...)
}

// wantSite asks until every pod has answered, with the word of the page and its name.
func (e ways) wantSite(t *testing.T, at, url, word string, all []pod, flags ...string) {
	t.Helper()
	wantAll(t, all, func() world.Result {
		r := e.get(at, url, flags...)
		if name, ok := strings.CutPrefix(r.Stdout, word+" "); ok {
			r.Stdout = name
		} else {
			r.Stderr += url + " at " + at + ": no word " + word + " in " + r.Stdout
			r.Stdout = ""
		}
		return r
	})
}

// wantAnswer compares status and redirection.
func (e ways) wantAnswer(t *testing.T, at, url, want string) {
	t.Helper()
	world.Eventually(t, netTime, func() error {
		if r := e.get(at, url, "-o", "/dev/null", "-w", "%{http_code} %{redirect_url}"); r.Stdout != want {
			return fmt.Errorf("%s at %s: got %q (%v), want %q", url, at, r.Output(), r.Err, want)
		}
		return nil
	})
}

// ingressAddress waits until `kubectl get ingress` shows class, host, address and these ports.
func (e ways) ingressAddress(t *testing.T, ports string) (addr string) {
	t.Helper()
	row := regexp.MustCompile(`(?m)^site\s+minato\s+shop\.example\.com\s+(192\.168\.3\.\d+)\s+` + ports + `\s+\S+$`)
	world.Eventually(t, netTime, func() error {
		out := e.w.Kubectl(t, "get", "ingress")
		m := row.FindStringSubmatch(out)
		if m == nil {
			return fmt.Errorf("no row of site with an address and ports %s:\n%s", ports, out)
		}
		addr = m[1]
		return nil
	})
	if out := e.w.Kubectl(t, "get", "service", "-A"); strings.Count(out, " "+addr+" ") != 1 {
		t.Errorf("%s is to be the address of one LoadBalancer Service:\n%s", addr, out)
	}
	return addr
}
