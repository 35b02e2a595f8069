package server

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync/atomic"
	"time"

	mdns "github.com/miekg/dns"

	"minato/internal/dns"
	"minato/internal/netns"
)

// upstream is one resolver. It is safe for concurrent use.
type upstream struct {
	addr netip.AddrPort
	ns   netns.NS // sockets to it are opened here
	tcp  bool     // it is asked over TCP only
	tls  *TLS     // it is asked over TLS only

	idle    chan idle   // connections over TLS
	retired atomic.Bool // it is no longer asked

	asked  atomic.Bool  // at least once, and then probed for a loop
	failed atomic.Int32 // times in a row
	down   atomic.Int64 // unix nanoseconds until which others are preferred
	plain  atomic.Bool  // it does not understand OPT records
	loop   atomic.Bool  // it sends our questions back to us

	rtt    atomic.Int64 // smoothed, in nanoseconds; 0: not known
	rttAt  atomic.Int64 // when it was measured, in unix nanoseconds
	counts upstreamCounters
}

// took notes how long an answer took, or how long one was waited for at least (RFC 6298's smoothing).
func (u *upstream) took(d time.Duration, now time.Time, atLeast bool) {
	old := time.Duration(u.rtt.Load())
	switch {
	case atLeast && d <= old:
		return
	case old > 0:
		d = old + (d-old)/8
	}
	u.rtt.Store(int64(max(d, 1)))
	u.rttAt.Store(now.UnixNano())
}

// usual is how long it needs for an answer; 0: not known. What was measured loses weight with time, so that one which
// was slow is tried again.
func (u *upstream) usual(now time.Time) time.Duration {
	idle := now.UnixNano() - u.rttAt.Load()
	return time.Duration(u.rtt.Load() >> min(max(idle, 0)/int64(rttForget), 62))
}

const (
	downAfter = 2
	downFor   = 10 * time.Second
)

// outgoing is a question for an upstream. The name is in lower-cased wire form.
type outgoing struct {
	name   string
	qtype  uint16
	do, cd bool
}

// note keeps count of failures, by which upstreams are ordered. It reports whether u has just gone down.
func (u *upstream) note(err error, now time.Time) bool {
	if err == nil {
		u.failed.Store(0)
		u.down.Store(0)
		return false
	}
	n := u.failed.Add(1)
	if n >= downAfter {
		u.down.Store(now.Add(downFor).UnixNano())
	}
	return n == downAfter
}

// ask sends the question over UDP and, when the answer does not fit, over TCP. An upstream that chokes on the OPT
// record is asked without it from then on.
func (u *upstream) ask(ctx context.Context, o outgoing) (*mdns.Msg, error) {
	edns := !u.plain.Load()
	if u.tcp || u.tls != nil {
		return u.once(ctx, "tcp", o, edns)
	}
	m, err := u.over(ctx, "udp", o, edns)
	if err == nil && edns && (m.Rcode == mdns.RcodeFormatError || m.Rcode == mdns.RcodeNotImplemented) && m.IsEdns0() == nil {
		if m, err = u.over(ctx, "udp", o, false); err == nil {
			u.plain.Store(m.Rcode != mdns.RcodeFormatError && m.Rcode != mdns.RcodeNotImplemented)
		}
	}
	if err == nil && m.Truncated {
		m, err = u.over(ctx, "tcp", o, edns)
	}
	return m, err
}

// once is over the network, or over TLS where that is asked for.
func (u *upstream) once(ctx context.Context, network string, o outgoing, edns bool) (*mdns.Msg, error) {
	if u.tls != nil {
		return u.overTLS(ctx, o)
	}
	return u.over(ctx, network, o, edns)
}

// over asks once. Every question has a socket of its own, so the kernel picks a new random port, and a random id.
func (u *upstream) over(ctx context.Context, network string, o outgoing, edns bool) (*mdns.Msg, error) {
	conn, err := u.ns.DialContext(ctx, network, u.addr.String())
	if err != nil {
		return nil, fmt.Errorf("connect to upstream %s: %w", u.addr, err)
	}
	defer conn.Close()
	m, err := o.exchange(ctx, conn, network, edns)
	if err != nil {
		return nil, fmt.Errorf("ask upstream %s over %s: %w", u.addr, network, err)
	}
	return m, nil
}

// exchange asks on a connection and waits for the answer, until ctx ends.
func (o outgoing) exchange(ctx context.Context, conn net.Conn, network string, edns bool) (*mdns.Msg, error) {
	defer context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })()
	sent := o.message(edns)
	frame := sent
	if network == "tcp" {
		frame = append(binary.BigEndian.AppendUint16(nil, uint16(len(sent))), sent...)
	}
	if _, err := conn.Write(frame); err != nil {
		return nil, err
	}
	return o.await(conn, network, sent)
}

// message is the question on the wire, with a new random id.
func (o outgoing) message(edns bool) []byte {
	b := make([]byte, headerLen, headerLen+len(o.name)+4+optLen)
	rand.Read(b[:2])
	flags := uint16(flagRD)
	if o.cd {
		flags |= flagCD
	}
	binary.BigEndian.PutUint16(b[2:], flags)
	b[5] = 1
	b = append(b, o.name...)
	b = append(b, byte(o.qtype>>8), byte(o.qtype), 0, classIN)
	if edns {
		b[11] = 1
		b = append(b, 0, 0, typeOPT, maxUDP>>8, maxUDP&255, 0, 0, do(o.do), 0, 0, 0)
	}
	return b
}

var errMalformed = errors.New("malformed message")

// await reads until the answer to the sent question is there. What belongs to another question is passed over: it may
// be late, or forged.
func (o outgoing) await(conn net.Conn, network string, sent []byte) (*mdns.Msg, error) {
	b := make([]byte, maxTCP)
	for {
		n, err := read(conn, network, b)
		if err != nil {
			return nil, err
		}
		if !o.answeredBy(b[:n], sent) {
			continue
		}
		m := new(mdns.Msg)
		if err := m.Unpack(b[:n]); err != nil {
			if b[2]&(flagTC>>8) != 0 { // cut in the middle of a record
				return &mdns.Msg{MsgHdr: mdns.MsgHdr{Truncated: true}}, nil
			}
			return nil, errors.Join(errMalformed, err)
		}
		return m, nil
	}
}

func read(conn net.Conn, network string, b []byte) (int, error) {
	if network != "tcp" {
		return conn.Read(b)
	}
	if _, err := io.ReadFull(conn, b[:2]); err != nil {
		return 0, err
	}
	return io.ReadFull(conn, b[:binary.BigEndian.Uint16(b)])
}

// answeredBy reports whether b is an answer with the id and the question that were sent.
func (o outgoing) answeredBy(b, sent []byte) bool {
	if len(b) < headerLen || !bytes.Equal(b[:2], sent[:2]) || b[2]&(flagQR>>8) == 0 || binary.BigEndian.Uint16(b[4:]) != 1 {
		return false
	}
	var n dns.Name
	length, ok := n.Parse(b[headerLen:])
	end := headerLen + length
	return ok && string(n.Wire()) == o.name && len(b) >= end+4 && bytes.Equal(b[end:end+4], sent[end:end+4])
}
