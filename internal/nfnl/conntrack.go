//go:build linux

package nfnl

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// Flow is a connection that the namespace tracks. Its zone is the default one.
type Flow struct {
	Family             Family
	Protocol           uint8
	Src, Dst           netip.AddrPort // of its first packet
	ReplySrc, ReplyDst netip.AddrPort // of the answer: where translation has sent it, and whom it takes for the client
	ID                 uint32         // tells it from a later one between the same addresses
	State              string         // of TCP and SCTP the protocol's, in small letters; else replied or unreplied
	Left               time.Duration  // until the kernel forgets it, if no packet comes
}

// Attributes of linux/netfilter/nfnetlink_conntrack.h, which golang.org/x/sys does not have.
const (
	ctGet    = unix.NFNL_SUBSYS_CTNETLINK<<8 | 1
	ctDelete = unix.NFNL_SUBSYS_CTNETLINK<<8 | 2

	ctaTupleOrig  = 1
	ctaTupleReply = 2
	ctaStatus     = 3
	ctaProtoInfo  = 4
	ctaTimeout    = 7
	ctaID         = 12
	ctaZone       = 18
	ctaFilter     = 25

	ctaTupleIP    = 1
	ctaTupleProto = 2

	ctaIPv4Src = 1
	ctaIPv4Dst = 2
	ctaIPv6Src = 3
	ctaIPv6Dst = 4

	ctaProtoInfoTCP  = 1
	ctaProtoInfoSCTP = 3
	ctaInfoState     = 1 // of both

	statusReplied = 1 << 1 // IPS_SEEN_REPLY

	ctaProtoNum     = 1
	ctaProtoSrcPort = 2
	ctaProtoDstPort = 3

	ctaFilterOrig    = 1
	ctaFilterReply   = 2
	ctFilterProtoNum = 1 << 3
)

// Flows calls yield for every flow of a protocol. The kernel goes through all flows of the namespace for it, but tells
// only of these (since Linux 5.8; before, the others are left out here). Flows that come or go meanwhile may be missed.
func (c *Conn) Flows(f Family, protocol uint8, yield func(Flow)) error {
	var req attrs
	t := req.open(ctaTupleOrig)
	p := req.open(ctaTupleProto)
	req.u8(ctaProtoNum, protocol)
	req.close(p)
	req.close(t)
	filter := req.open(ctaFilter)
	req.raw(ctaFilterOrig, binary.NativeEndian.AppendUint32(nil, ctFilterProtoNum))
	req.raw(ctaFilterReply, binary.NativeEndian.AppendUint32(nil, 0))
	req.close(filter)
	c.mu.Lock()
	defer c.mu.Unlock()
	err := c.request(ctGet, unix.NLM_F_DUMP, f, req, func(b []byte) {
		if flow := decodeFlow(f, b); flow.Protocol == protocol && Attr(b, ctaZone) == nil {
			yield(flow)
		}
	})
	return wrap(err, "list flows")
}

// DeleteFlow ends the tracking of a flow: its next packet is a new connection. One that is gone is no error.
func (c *Conn) DeleteFlow(flow Flow) error {
	var req attrs
	req.tuple(ctaTupleOrig, flow)
	req.u32(ctaID, flow.ID)
	c.mu.Lock()
	defer c.mu.Unlock()
	err := c.request(ctDelete, unix.NLM_F_ACK, flow.Family, req, func([]byte) {})
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	return wrap(err, "delete flow from %s to %s", flow.Src, flow.Dst)
}

func (a *attrs) tuple(typ uint16, flow Flow) {
	src, dst := uint16(ctaIPv4Src), uint16(ctaIPv4Dst)
	if flow.Family == IPv6 {
		src, dst = ctaIPv6Src, ctaIPv6Dst
	}
	t := a.open(typ)
	ip := a.open(ctaTupleIP)
	a.raw(src, flow.Src.Addr().AsSlice())
	a.raw(dst, flow.Dst.Addr().AsSlice())
	a.close(ip)
	p := a.open(ctaTupleProto)
	a.u8(ctaProtoNum, flow.Protocol)
	a.raw(ctaProtoSrcPort, binary.BigEndian.AppendUint16(nil, flow.Src.Port()))
	a.raw(ctaProtoDstPort, binary.BigEndian.AppendUint16(nil, flow.Dst.Port()))
	a.close(p)
	a.close(t)
}

func decodeFlow(f Family, b []byte) Flow {
	flow := Flow{Family: f}
	for t, v := range Attrs(b) {
		switch t {
		case ctaTupleOrig:
			flow.Src, flow.Dst, flow.Protocol = decodeTuple(v)
		case ctaTupleReply:
			flow.ReplySrc, flow.ReplyDst, _ = decodeTuple(v)
		case ctaID:
			flow.ID = getU32(v)
		case ctaTimeout:
			flow.Left = time.Duration(getU32(v)) * time.Second
		case ctaStatus:
			if flow.State == "" {
				flow.State = "unreplied"
				if getU32(v)&statusReplied != 0 {
					flow.State = "replied"
				}
			}
		case ctaProtoInfo:
			if s := decodeState(v); s != "" {
				flow.State = s
			}
		}
	}
	return flow
}

// SYNSent is the state of a connection over TCP that nobody has answered yet.
const SYNSent = "syn sent"

// The states of enum tcp_conntrack and enum sctp_conntrack.
var (
	tcpStates  = []string{"none", SYNSent, "syn received", "established", "fin wait", "close wait", "last ack", "time wait", "close", SYNSent}
	sctpStates = []string{"none", "closed", "cookie wait", "cookie echoed", "established", "shutdown sent", "shutdown received", "shutdown ack sent", "heartbeat sent"}
)

func decodeState(b []byte) string {
	for t, v := range Attrs(b) {
		names := tcpStates
		if t == ctaProtoInfoSCTP {
			names = sctpStates
		}
		if state := Attr(v, ctaInfoState); len(state) == 1 && int(state[0]) < len(names) {
			return names[state[0]]
		}
	}
	return ""
}

func decodeTuple(b []byte) (src, dst netip.AddrPort, protocol uint8) {
	var from, to netip.Addr
	for t, v := range Attrs(Attr(b, ctaTupleIP)) {
		switch t {
		case ctaIPv4Src, ctaIPv6Src:
			from, _ = netip.AddrFromSlice(v)
		case ctaIPv4Dst, ctaIPv6Dst:
			to, _ = netip.AddrFromSlice(v)
		}
	}
	var fromPort, toPort uint16
	for t, v := range Attrs(Attr(b, ctaTupleProto)) {
		switch {
		case t == ctaProtoNum && len(v) == 1:
			protocol = v[0]
		case t == ctaProtoSrcPort && len(v) == 2:
			fromPort = binary.BigEndian.Uint16(v)
		case t == ctaProtoDstPort && len(v) == 2:
			toPort = binary.BigEndian.Uint16(v)
		}
	}
	return netip.AddrPortFrom(from, fromPort), netip.AddrPortFrom(to, toPort), protocol
}
