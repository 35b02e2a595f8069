package arp

import (
	"encoding/binary"
	"net/netip"

	"minato/internal/announce/lan"
)

// operation is the kind of an ARP packet.
type operation uint16

const (
	request operation = 1
	reply   operation = 2
)

// packet is an ARP packet for IPv4 over Ethernet (RFC 826).
type packet struct {
	op       operation
	sender   lan.MAC
	senderIP netip.Addr
	target   lan.MAC
	targetIP netip.Addr
}

// packetLen is what the kinds and lengths of addresses below come to; frames are padded beyond it.
const packetLen = 28

// kinds is hardware type Ethernet, protocol type IPv4, and the lengths of their addresses.
var kinds = [6]byte{0, 1, 8, 0, 6, 4}

// parse reads a packet; ok is false for anything but ARP for IPv4 over Ethernet.
func parse(b []byte) (p packet, ok bool) {
	if len(b) < packetLen || [6]byte(b[:6]) != kinds {
		return packet{}, false
	}
	return packet{
		op:     operation(binary.BigEndian.Uint16(b[6:])),
		sender: lan.MAC(b[8:14]), senderIP: netip.AddrFrom4([4]byte(b[14:18])),
		target: lan.MAC(b[18:24]), targetIP: netip.AddrFrom4([4]byte(b[24:28])),
	}, true
}

// bytes writes the packet. Its addresses must be IPv4.
func (p packet) bytes() []byte {
	b := append(make([]byte, 0, packetLen), kinds[:]...)
	b = binary.BigEndian.AppendUint16(b, uint16(p.op))
	b = append(b, p.sender[:]...)
	b = append(b, p.senderIP.AsSlice()...)
	b = append(b, p.target[:]...)
	return append(b, p.targetIP.AsSlice()...)
}

// answer is the reply to a request for an address that is at own.
func answer(q lan.Question, own lan.MAC) packet {
	return packet{op: reply, sender: own, senderIP: q.Addr, target: q.MAC, targetIP: q.From}
}

// gratuitous tells everybody that addr is at own.
func gratuitous(op operation, addr netip.Addr, own lan.MAC) packet {
	return packet{op: op, sender: own, senderIP: addr, target: lan.Everybody, targetIP: addr}
}

// probe asks who has addr without saying that anybody has (RFC 5227, 2.1.1): nobody's cache changes by it, and another
// machine with the address answers.
func probe(addr netip.Addr, own lan.MAC) packet {
	return packet{op: request, sender: own, senderIP: netip.IPv4Unspecified(), targetIP: addr}
}
