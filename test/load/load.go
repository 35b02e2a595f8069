//go:build linux

// Package load opens new connections at a rate, fetches a page by each, and keeps what became of them: how many failed
// and why, who answered, and how long it took.
//
// It does not keep connections, and judges nothing.
package load

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"minato/internal/netns"
)

// patience is how long one connection may take.
const patience = 5 * time.Second

// Source is where connections start.
type Source struct {
	NS   netns.NS
	Addr netip.Addr // optional: where the namespace has more than one
	DNS  string     // optional: the server that is asked for names
}

// Load is what became of the connections to one address. Start runs it; its methods may be called once Wait has returned.
type Load struct {
	Address string

	begun, ended time.Time
	work         sync.WaitGroup
	mu           sync.Mutex
	took         []time.Duration
	failed       []error
	answered     map[string]int // by the first line of the page
}

// Start opens connections to an address, from all sources by turns, rate times a second until ctx ends.
func Start(ctx context.Context, rate int, from []Source, address string) *Load {
	l := &Load{Address: address, begun: time.Now(), answered: make(map[string]int)}
	l.work.Go(func() {
		defer func() { l.ended = time.Now() }()
		for i := 0; ; i++ {
			// By the clock, so that a busy moment makes up for what it has missed.
			select {
			case <-ctx.Done():
				return
			case <-time.After(time.Until(l.begun.Add(time.Duration(i) * time.Second / time.Duration(rate)))):
			}
			l.work.Go(func() { l.connect(from[i%len(from)]) })
		}
	})
	return l
}

// Wait waits for the last connection after ctx of Start has ended.
func (l *Load) Wait() { l.work.Wait() }

func (l *Load) connect(s Source) {
	started := time.Now()
	page, err := s.get(l.Address)
	took := time.Since(started)
	line, _, _ := strings.Cut(page, "\n")
	l.mu.Lock()
	defer l.mu.Unlock()
	l.took = append(l.took, took)
	if err != nil {
		l.failed = append(l.failed, fmt.Errorf("%s, after %v: %w", started.Format("05.000"), took.Round(time.Millisecond), err))
		return
	}
	l.answered[line]++
}

// get fetches a page by a connection of its own and returns it.
func (s Source) get(address string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var dialer net.Dialer
	if s.Addr.IsValid() {
		dialer.LocalAddr = &net.TCPAddr{IP: s.Addr.AsSlice()}
	}
	address, err := s.resolve(ctx, address)
	if err != nil {
		return "", err
	}
	var conn net.Conn
	err = s.NS.Do(func() (err error) {
		conn, err = dialer.DialContext(ctx, "tcp", address)
		return err
	})
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return "", err
	}
	if _, err := io.WriteString(conn, "GET / HTTP/1.0\r\n\r\n"); err != nil {
		return "", err
	}
	answer, err := io.ReadAll(conn)
	if err != nil {
		return "", err
	}
	header, page, _ := strings.Cut(string(answer), "\r\n\r\n")
	if !strings.HasPrefix(header, "HTTP/1.1 200 ") {
		return "", errors.New("not a page: " + header[:min(len(header), 40)])
	}
	return page, nil
}

// resolve asks the source's server for the address of a name.
func (s Source) resolve(ctx context.Context, address string) (string, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return "", err
	}
	if _, err := netip.ParseAddr(host); err == nil {
		return address, nil
	}
	resolver := net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return s.NS.DialContext(ctx, network, s.DNS)
	}}
	addrs, err := resolver.LookupNetIP(ctx, "ip4", host+".") // no search list
	if err != nil {
		return "", err
	}
	return net.JoinHostPort(addrs[0].String(), port), nil
}

// Connections is how many were opened.
func (l *Load) Connections() int { return len(l.took) }

// Rate is how many were opened each second.
func (l *Load) Rate() float64 { return float64(len(l.took)) / l.ended.Sub(l.begun).Seconds() }

// Failed is why connections failed, an error for each, with the time of its start.
func (l *Load) Failed() []error { return l.failed }

// Answered counts the answers by the first line of the page.
func (l *Load) Answered() map[string]int { return l.answered }

// Quantile is how long the q-th part of the connections took at most.
func (l *Load) Quantile(q float64) time.Duration {
	if len(l.took) == 0 {
		return 0
	}
	slices.Sort(l.took)
	return l.took[min(len(l.took)-1, int(q*float64(len(l.took))))]
}

// String is the outcome in a line, with some of the failures.
func (l *Load) String() string {
	s := fmt.Sprintf("%s: %d connections, %.0f/s, %d failed, p99 %v", l.Address, l.Connections(), l.Rate(), len(l.failed), l.Quantile(0.99).Round(100*time.Microsecond))
	for _, err := range l.failed[:min(len(l.failed), 5)] {
		s += "\n  " + err.Error()
	}
	return s
}
