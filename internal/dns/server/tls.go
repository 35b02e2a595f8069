package server

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"time"

	mdns "github.com/miekg/dns"
)

// TLS says how upstreams prove who they are when they are asked over TLS (RFC 7858).
type TLS struct {
	ServerName string         // that their certificate is for; "": their address
	Roots      *x509.CertPool // who vouches for them; nil: those whom the machine trusts
}

// Connections over TLS are dear to open, and kept for the next question.
const (
	idleConns = 8 // of one upstream
	idleFor   = 10 * time.Second
)

// idle is a connection over TLS that waits for a question.
type idle struct {
	conn  *tls.Conn
	since time.Time
}

// overTLS asks on a connection of its own for the time of the question. One that was kept may have been closed by the
// upstream meanwhile: then another one is tried.
func (u *upstream) overTLS(ctx context.Context, o outgoing) (*mdns.Msg, error) {
	for {
		conn, kept, err := u.secure(ctx)
		if err != nil {
			return nil, fmt.Errorf("connect to upstream %s over TLS: %w", u.addr, err)
		}
		m, err := o.exchange(ctx, conn, "tcp", true)
		if err == nil {
			u.keep(conn)
			return m, nil
		}
		conn.Close()
		if !kept || ctx.Err() != nil {
			return nil, fmt.Errorf("ask upstream %s over TLS: %w", u.addr, err)
		}
	}
}

// secure is a connection that was kept, or else a new one.
func (u *upstream) secure(ctx context.Context) (conn *tls.Conn, kept bool, err error) {
	for {
		select {
		case i := <-u.idle:
			if time.Since(i.since) < idleFor {
				return i.conn, true, nil
			}
			i.conn.Close()
			continue
		default:
		}
		break
	}
	raw, err := u.ns.DialContext(ctx, "tcp", u.addr.String())
	if err != nil {
		return nil, false, err
	}
	name := u.tls.ServerName
	if name == "" {
		name = u.addr.Addr().String()
	}
	conn = tls.Client(raw, &tls.Config{ServerName: name, RootCAs: u.tls.Roots, MinVersion: tls.VersionTLS12})
	if err := conn.HandshakeContext(ctx); err != nil {
		raw.Close()
		return nil, false, err
	}
	return conn, false, nil
}

func (u *upstream) keep(conn *tls.Conn) {
	if conn.SetDeadline(time.Time{}) == nil && !u.retired.Load() {
		select {
		case u.idle <- idle{conn, time.Now()}:
			return
		default:
		}
	}
	conn.Close()
}

// retire closes what is kept, when u is no longer asked. Questions under way end on connections of their own.
func (u *upstream) retire() {
	u.retired.Store(true)
	for {
		select {
		case i := <-u.idle:
			i.conn.Close()
		default:
			return
		}
	}
}
