// Package pki keeps an instance's certificate authority, the certificates it has
// issued and the key that signs ServiceAccount tokens, as PEM files that only the
// owner can read. It does not serve certificate requests.
package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// Lifetimes. What is left of one is looked at when an instance starts.
const (
	caLifetime   = 10 * 365 * 24 * time.Hour
	leafLifetime = 2 * 365 * 24 * time.Hour
)

// Authority issues certificates and keeps them in its folder. It is not safe for
// concurrent use of the same certificate name.
type Authority struct {
	dir  string
	cert *x509.Certificate
	pem  []byte
	key  crypto.Signer
}

// Pair is a certificate with its key, in memory and together in one PEM file.
type Pair struct {
	CertPEM, KeyPEM []byte
	File            string
}

// TLS is the pair as crypto/tls takes it.
func (p Pair) TLS() (tls.Certificate, error) {
	c, err := tls.X509KeyPair(p.CertPEM, p.KeyPEM)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("reading %s: %w", p.File, err)
	}
	return c, nil
}

// Open reads the authority in dir, or makes one where there is none or where it is
// in its last year. A new authority invalidates all certificates of the old one.
func Open(dir string) (*Authority, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("creating the certificates' folder: %w", err)
	}
	a := &Authority{dir: dir}
	p, cert, key, err := a.read("ca")
	if err == nil && time.Until(cert.NotAfter) > caLifetime/10 {
		a.cert, a.key, a.pem = cert, key, p.CertPEM
		return a, nil
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("reading the certificate authority: %w", err)
	}
	signer, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("making the authority's key: %w", err)
	}
	p, err = a.issue("ca", &x509.Certificate{
		Subject: pkix.Name{CommonName: "minato"}, NotAfter: time.Now().Add(caLifetime),
		IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}, signer)
	if err != nil {
		return nil, err
	}
	if _, a.cert, a.key, err = a.read("ca"); err != nil {
		return nil, fmt.Errorf("reading the certificate authority: %w", err)
	}
	a.pem = p.CertPEM
	return a, nil
}

// CertPEM is the authority's own certificate.
func (a *Authority) CertPEM() []byte { return a.pem }

// File holds the authority's certificate and key.
func (a *Authority) File() string { return a.file("ca") }

// Pool holds the authority alone.
func (a *Authority) Pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	return pool
}

// Server returns the serving certificate kept under name, for the given DNS names
// and addresses. It is issued anew when those changed or half its life is over.
func (a *Authority) Server(name string, dns []string, addrs []netip.Addr) (Pair, error) {
	t := &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, DNSNames: dns,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	for _, ip := range addrs {
		t.IPAddresses = append(t.IPAddresses, net.IP(ip.AsSlice()))
	}
	return a.keep(name, t)
}

// Client returns the client certificate kept under name, for a user and groups as
// Kubernetes reads them (common name and organizations), renewed like Server's.
func (a *Authority) Client(name, user string, groups ...string) (Pair, error) {
	return a.keep(name, &x509.Certificate{
		Subject:  pkix.Name{CommonName: user, Organization: groups},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
}

// keep returns the stored pair if it still says what t says, and else a new one.
func (a *Authority) keep(name string, t *x509.Certificate) (Pair, error) {
	p, old, _, err := a.read(name)
	if err == nil && a.good(old, t) {
		return p, nil
	}
	t.NotAfter = time.Now().Add(leafLifetime)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return Pair{}, fmt.Errorf("making the key %s: %w", name, err)
	}
	return a.issue(name, t, key)
}

func (a *Authority) good(old, want *x509.Certificate) bool {
	if old.CheckSignatureFrom(a.cert) != nil || time.Until(old.NotAfter) < leafLifetime/2 {
		return false
	}
	return old.Subject.CommonName == want.Subject.CommonName &&
		slices.Equal(old.Subject.Organization, want.Subject.Organization) &&
		slices.Equal(old.DNSNames, want.DNSNames) &&
		slices.EqualFunc(old.IPAddresses, want.IPAddresses, net.IP.Equal)
}

func (a *Authority) issue(name string, t *x509.Certificate, key *ecdsa.PrivateKey) (Pair, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return Pair{}, fmt.Errorf("choosing a serial number: %w", err)
	}
	t.SerialNumber = serial
	t.NotBefore = time.Now().Add(-time.Hour) // a guest's clock may be behind
	parent, signer := a.cert, a.key
	if t.IsCA {
		parent, signer = t, key
	}
	der, err := x509.CreateCertificate(rand.Reader, t, parent, key.Public(), signer)
	if err != nil {
		return Pair{}, fmt.Errorf("issuing the certificate %s: %w", name, err)
	}
	keyPEM, err := encodeKey(key)
	if err != nil {
		return Pair{}, err
	}
	p := Pair{CertPEM: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), KeyPEM: keyPEM, File: a.file(name)}
	return p, write(p.File, slices.Concat(p.CertPEM, p.KeyPEM))
}

func (a *Authority) file(name string) string { return filepath.Join(a.dir, name+".pem") }

func (a *Authority) read(name string) (Pair, *x509.Certificate, crypto.Signer, error) {
	p := Pair{File: a.file(name)}
	data, err := os.ReadFile(p.File)
	if err != nil {
		return p, nil, nil, err
	}
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		if block.Type == "CERTIFICATE" {
			p.CertPEM = pem.EncodeToMemory(block)
		} else {
			p.KeyPEM = pem.EncodeToMemory(block)
		}
	}
	c, err := p.TLS()
	if err != nil {
		return p, nil, nil, err
	}
	return p, c.Leaf, c.PrivateKey.(crypto.Signer), nil
}
