package server

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"minato/internal/netns"
	"minato/internal/nfnl"
)

// RedirectTable is the nf_tables table of a server that listens elsewhere because another program has its port. There
// is none otherwise.
const RedirectTable = "minato-dns"

// redirect sends what arrives at a port of one address to another port of it.
type redirect struct {
	addr     netip.Addr
	protocol byte // of IP
	from, to uint16
}

// setRedirects makes these the namespace's redirects, in one step for each family; none takes away what a process
// left that was killed. A connection that is under way keeps its translation.
func setRedirects(ns netns.NS, all []redirect) error {
	conn, err := nfnl.Open(ns)
	if err != nil {
		return fmt.Errorf("redirect port 53: %w", err)
	}
	defer conn.Close()
	for _, f := range []nfnl.Family{nfnl.IPv4, nfnl.IPv6} {
		tables, err := conn.Tables(f)
		if err != nil {
			return fmt.Errorf("redirect port 53: %w", err)
		}
		own := slices.DeleteFunc(slices.Clone(all), func(r redirect) bool { return r.addr.Is6() != (f == nfnl.IPv6) })
		b := nfnl.NewBatch()
		if slices.ContainsFunc(tables, func(t nfnl.Table) bool { return t.Name == RedirectTable }) {
			b.DeleteTable(f, RedirectTable)
		}
		addRedirects(b, f, own)
		if b.Len() == 0 {
			continue
		}
		if err := conn.Commit(b); err != nil {
			return fmt.Errorf("redirect port 53: %w", err)
		}
	}
	return nil
}

// addRedirects writes the table. Its chains come before those of the Service layer: a connection is translated by the
// first that does.
func addRedirects(b *nfnl.Batch, f nfnl.Family, all []redirect) {
	if len(all) == 0 {
		return
	}
	b.AddTable(nfnl.Table{Family: f, Name: RedirectTable})
	for name, hook := range map[string]nfnl.Hook{"prerouting": nfnl.Prerouting, "output": nfnl.Output} {
		b.AddChain(nfnl.Chain{Family: f, Table: RedirectTable, Name: name, Type: "nat", Hook: hook, Priority: nfnl.PriorityDNAT - 1})
		for _, r := range all {
			b.AddRule(nfnl.Rule{Family: f, Table: RedirectTable, Chain: name, Exprs: r.exprs(f)})
		}
	}
}

func (r redirect) exprs(f nfnl.Family) []nfnl.Expr {
	offset := uint32(16) // of the destination in the header (RFC 791, 3.1)
	if f == nfnl.IPv6 {
		offset = 24 // RFC 8200, 3
	}
	addr := r.addr.AsSlice()
	port := func(p uint16) []byte { return binary.BigEndian.AppendUint16(nil, p) }
	return []nfnl.Expr{
		nfnl.Meta(nfnl.MetaL4Proto, nfnl.R(0)), nfnl.Cmp(nfnl.Equal, nfnl.R(0), []byte{r.protocol}),
		nfnl.Payload(nfnl.NetworkHeader, offset, uint32(len(addr)), nfnl.R(0)), nfnl.Cmp(nfnl.Equal, nfnl.R(0), addr),
		nfnl.Payload(nfnl.TransportHeader, 2, 2, nfnl.R(0)), nfnl.Cmp(nfnl.Equal, nfnl.R(0), port(r.from)),
		nfnl.Immediate(nfnl.R(0), addr), nfnl.Immediate(nfnl.R(4), port(r.to)), nfnl.DNAT(f, nfnl.R(0), nfnl.R(4)),
	}
}

// elsewhere opens a socket at an address or, where another program has the port, at a free port of it, to which the
// port can be redirected.
func elsewhere[T any](at netip.AddrPort, open func(netip.AddrPort) (T, error)) (T, error) {
	c, err := open(at)
	if errors.Is(err, unix.EADDRINUSE) && !at.Addr().IsLoopback() { // packets to loopback may not be translated
		return open(netip.AddrPortFrom(at.Addr(), 0))
	}
	return c, err
}

// redirected notes that a socket is not where it should be.
func (s *sockets) redirected(at netip.AddrPort, protocol byte, have net.Addr) {
	if to := netip.MustParseAddrPort(have.String()).Port(); to != at.Port() {
		s.redirects = append(s.redirects, redirect{at.Addr(), protocol, at.Port(), to})
	}
}

// redirect has what clients send to taken ports arrive at the sockets.
func (s *Server) redirect(socks *sockets) error {
	if !slices.ContainsFunc(s.cfg.Addrs, func(a netip.Addr) bool { return !a.IsLoopback() }) {
		return nil
	}
	for _, r := range socks.redirects {
		s.log.Warn("dns: another program has the port: listening at another one, to which it is redirected; stop that program, or let it listen on addresses of its own, and restart",
			"address", netip.AddrPortFrom(r.addr, r.from), "protocol", protocolName(r.protocol), "port", r.to, "see", fmt.Sprintf("ss -lnp 'sport = %d'", r.from))
	}
	return setRedirects(s.cfg.Netns, socks.redirects)
}

func protocolName(p byte) string {
	if p == unix.IPPROTO_TCP {
		return "TCP"
	}
	return "UDP"
}
