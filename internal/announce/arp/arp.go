//go:build linux

// Package arp makes IPv4 load balancer addresses known on a node's link by ARP (RFC 826). A filter in the kernel lets
// nothing else through to the process.
//
// Which addresses, and when, is package lan's Speaker's; this is its wire.
package arp

import (
	"errors"
	"log/slog"
	"net/netip"

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
	Addr  netip.Addr // the node's own: the link that has it is the one to speak on
	Log   *slog.Logger
	// Conflict is as in lan.Config.
	Conflict func(services []model.ServiceName, text string)
}

// New makes a Speaker of ARP. It says nothing before Run.
func New(cfg Config) *lan.Speaker {
	return lan.New(lan.Config{Name: "arp", Node: cfg.Node, Log: cfg.Log, Conflict: cfg.Conflict, Open: func() (lan.Wire, error) {
		s, err := lan.OpenSocket(cfg.Netns, cfg.Addr, unix.ETH_P_ARP, fromOthers)
		if err != nil {
			return nil, err
		}
		return wire{s}, nil
	}})
}

// fromOthers lets ARP for IPv4 over Ethernet through which came to everybody or to this link: not what the link sends
// itself, nor what it overhears. The packet begins behind the Ethernet header.
var fromOthers = []bpf.Instruction{
	bpf.LoadExtension{Num: bpf.ExtType},
	bpf.JumpIf{Cond: bpf.JumpGreaterThan, Val: unix.PACKET_BROADCAST, SkipTrue: 5},
	bpf.LoadAbsolute{Off: 0, Size: 4}, // kinds of address
	bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: 0x00010800, SkipTrue: 3},
	bpf.LoadAbsolute{Off: 4, Size: 2}, // their lengths
	bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: 0x0604, SkipTrue: 1},
	bpf.RetConstant{Val: packetLen},
	bpf.RetConstant{Val: 0},
}

// wire is a link on which ARP is spoken.
type wire struct{ socket *lan.Socket }

// Receive returns the next request, or what a reply says.
func (w wire) Receive() (lan.Question, error) {
	var buf [packetLen]byte
	for {
		n, err := w.socket.Receive(buf[:])
		if err != nil {
			return lan.Question{}, err
		}
		switch p, ok := parse(buf[:n]); {
		case ok && p.op == request:
			return lan.Question{Addr: p.targetIP, From: p.senderIP, MAC: p.sender}, nil
		case ok && p.op == reply:
			return lan.Question{Addr: p.senderIP, From: p.senderIP, MAC: p.sender}, nil
		}
	}
}

// Answer replies to a request.
func (w wire) Answer(q lan.Question) error {
	return w.socket.Send(q.MAC, answer(q, w.socket.MAC).bytes())
}

// Tell sends gratuitous packets in both forms: some systems update what they know by requests only and some by replies
// only (RFC 5944, 4.6). The third asks whether another machine has the address.
func (w wire) Tell(a netip.Addr) error {
	return errors.Join(
		w.socket.Send(lan.Everybody, gratuitous(request, a, w.socket.MAC).bytes()),
		w.socket.Send(lan.Everybody, gratuitous(reply, a, w.socket.MAC).bytes()),
		w.socket.Send(lan.Everybody, probe(a, w.socket.MAC).bytes()))
}

// Close ends the wire.
func (w wire) Close() error { return w.socket.Close() }
