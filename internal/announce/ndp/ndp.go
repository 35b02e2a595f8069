//go:build linux

// Package ndp makes IPv6 load balancer addresses known on a node's link by Neighbor Discovery (RFC 4861). A filter in
// the kernel lets only solicitations and advertisements through to the process.
//
// Which addresses, and when, is package lan's Speaker's; this is its wire.
package ndp

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"minato/internal/announce/lan"
	"minato/internal/model"
	"minato/internal/netns"
)

// Config is what a Speaker works with.
type Config struct {
	Node  string
	Netns netns.NS
	Addr  netip.Addr // the node's own of IPv6: the link that has it is the one to speak on
	Log   *slog.Logger
	// Conflict is as in lan.Config.
	Conflict func(services []model.ServiceName, text string)
}

// New makes a Speaker of Neighbor Discovery. It says nothing before Run.
func New(cfg Config) *lan.Speaker {
	return lan.New(lan.Config{Name: "ndp", Node: cfg.Node, IPv6: true, Log: cfg.Log, Conflict: cfg.Conflict, Open: func() (lan.Wire, error) {
		return open(cfg.Netns, cfg.Addr)
	}})
}

// fromOthers lets neighbour solicitations and advertisements through that came to this link or to many, not what the
// link sends itself. The packet begins behind the Ethernet header.
var fromOthers = []bpf.Instruction{
	bpf.LoadExtension{Num: bpf.ExtType},
	bpf.JumpIf{Cond: bpf.JumpGreaterThan, Val: unix.PACKET_MULTICAST, SkipTrue: 6},
	bpf.LoadAbsolute{Off: 6, Size: 1},
	bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.IPPROTO_ICMPV6, SkipTrue: 4},
	bpf.LoadAbsolute{Off: headerLen, Size: 1},
	bpf.JumpIf{Cond: bpf.JumpEqual, Val: advertisement, SkipTrue: 1},
	bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: solicitation, SkipTrue: 1},
	bpf.RetConstant{Val: maxPacket},
	bpf.RetConstant{Val: 0},
}

// maxPacket holds every solicitation with the options that there are.
const maxPacket = 512

// wire is a link on which Neighbor Discovery is spoken.
type wire struct {
	socket *lan.Socket
	own    netip.Addr
	groups int // a socket that is in the groups of the addresses

	mu     sync.Mutex
	joined map[netip.Addr]bool // groups
}

func open(ns netns.NS, addr netip.Addr) (*wire, error) {
	s, err := lan.OpenSocket(ns, addr, unix.ETH_P_IPV6, fromOthers)
	if err != nil {
		return nil, err
	}
	w := &wire{socket: s, own: addr, joined: map[netip.Addr]bool{}}
	err = ns.Do(func() (err error) {
		w.groups, err = unix.Socket(unix.AF_INET6, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		return err
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("making a socket for multicast groups: %w", err), s.Close())
	}
	return w, nil
}

// Receive returns the next solicitation, or what an advertisement says.
func (w *wire) Receive() (lan.Question, error) {
	var buf [maxPacket]byte
	for {
		n, err := w.socket.Receive(buf[:])
		if err != nil {
			return lan.Question{}, err
		}
		if q, ok := parse(buf[:n]); ok && (q.MAC != lan.MAC{} || q.From.IsUnspecified()) {
			return q, nil
		}
	}
}

// Answer advertises to who asks. Who has no address yet hears it as everybody does (RFC 4861, 7.2.4).
func (w *wire) Answer(q lan.Question) error {
	if q.From.IsUnspecified() {
		return w.socket.Send(multicast(allNodes), advertise(q.Addr, w.own, allNodes, w.socket.MAC))
	}
	return w.socket.Send(q.MAC, advertise(q.Addr, w.own, q.From, w.socket.MAC))
}

// Tell advertises to everybody, asks whether another machine has the address (RFC 4862, 5.4), and joins the group in which the address is asked for: else neither the link nor a
// switch that listens to MLD would let the questions through.
func (w *wire) Tell(a netip.Addr) error {
	if err := w.join(group(a)); err != nil {
		return err
	}
	return errors.Join(
		w.socket.Send(multicast(allNodes), advertise(a, w.own, allNodes, w.socket.MAC)),
		w.socket.Send(multicast(group(a)), probe(a)))
}

// join joins a group once. It is left with the socket: to hear of an address that is no longer here hurts nobody.
func (w *wire) join(group netip.Addr) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.joined[group] {
		return nil
	}
	err := unix.SetsockoptIPv6Mreq(w.groups, unix.IPPROTO_IPV6, unix.IPV6_JOIN_GROUP,
		&unix.IPv6Mreq{Multiaddr: group.As16(), Interface: uint32(w.socket.Index)})
	if err != nil && !errors.Is(err, unix.EADDRINUSE) {
		return fmt.Errorf("joining %s: %w", group, err)
	}
	w.joined[group] = true
	return nil
}

// Close ends the wire.
func (w *wire) Close() error { return errors.Join(w.socket.Close(), unix.Close(w.groups)) }
