package pki

import (
	"bytes"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func open(t *testing.T, dir string) *Authority {
	t.Helper()
	a, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func server(t *testing.T, a *Authority, names ...string) Pair {
	t.Helper()
	p, err := a.Server("api", names, []netip.Addr{netip.MustParseAddr("127.0.0.1")})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestAuthorityCertificatesAndKeysAreKept(t *testing.T) {
	dir := t.TempDir()
	a := open(t, dir)
	cert := server(t, a, "localhost")
	key, err := a.SigningKey("tokens")
	if err != nil {
		t.Fatal(err)
	}

	b := open(t, dir)
	if !bytes.Equal(a.CertPEM(), b.CertPEM()) {
		t.Error("the authority changed")
	}
	if !bytes.Equal(cert.CertPEM, server(t, b, "localhost").CertPEM) {
		t.Error("the certificate changed")
	}
	if again, err := b.SigningKey("tokens"); err != nil || !again.Equal(key) {
		t.Errorf("the signing key changed, error %v", err)
	}
}

func TestCertificateIsIssuedAnewForOtherNames(t *testing.T) {
	a := open(t, t.TempDir())
	before := server(t, a, "localhost")
	after := server(t, a, "localhost", "kubernetes")
	if bytes.Equal(before.CertPEM, after.CertPEM) {
		t.Fatal("the certificate is the same")
	}
	_, cert, _, err := a.read("api")
	if err != nil || cert.VerifyHostname("kubernetes") != nil {
		t.Errorf("the stored certificate is not for the new name, error %v", err)
	}
}

func TestCertificateOfAnotherAuthorityIsReplaced(t *testing.T) {
	dir := t.TempDir()
	before := server(t, open(t, dir), "localhost")
	if err := os.Remove(filepath.Join(dir, "ca.pem")); err != nil {
		t.Fatal(err)
	}
	if after := server(t, open(t, dir), "localhost"); bytes.Equal(before.CertPEM, after.CertPEM) {
		t.Error("a certificate that nobody trusts was kept")
	}
}

func TestCertificateInItsSecondHalfIsRenewed(t *testing.T) {
	a := open(t, t.TempDir())
	server(t, a, "localhost")
	_, cert, _, err := a.read("api")
	if err != nil {
		t.Fatal(err)
	}
	want := *cert
	if !a.good(cert, &want) {
		t.Error("a fresh certificate is not good")
	}
	cert.NotAfter = time.Now().Add(leafLifetime/2 - time.Hour)
	if a.good(cert, &want) {
		t.Error("a certificate in its second half is good")
	}
}

func TestKeysAreForTheirOwnerOnly(t *testing.T) {
	dir := t.TempDir()
	a := open(t, dir)
	server(t, a, "localhost")
	if _, err := a.SigningKey("tokens"); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 3 {
		t.Fatalf("got %v, %v", entries, err)
	}
	for _, e := range entries {
		if info, err := e.Info(); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s has the mode %v, error %v", e.Name(), info.Mode(), err)
		}
	}
}

func TestSpoiledAuthorityIsNotReplaced(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "ca.pem"), []byte("spoiled"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir); err == nil {
		t.Error("a new authority silently took the place of one that could not be read")
	}
}
