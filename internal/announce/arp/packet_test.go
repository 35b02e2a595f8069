package arp

import (
	"bytes"
	"net/netip"
	"testing"

	"minato/internal/announce/lan"
)

var (
	own    = lan.MAC{2, 0, 0, 0, 0, 1}
	asker  = lan.MAC{2, 0, 0, 0, 0, 9}
	vip    = netip.MustParseAddr("192.0.2.200")
	client = netip.MustParseAddr("192.0.2.1")
)

// whoHas is a request as a client sends it.
func whoHas(a netip.Addr) packet {
	return packet{op: request, sender: asker, senderIP: client, targetIP: a}
}

func TestPacketIsThatOfRFC826(t *testing.T) {
	want := []byte{
		0, 1, 8, 0, 6, 4, 0, 1,
		2, 0, 0, 0, 0, 9, 192, 0, 2, 1,
		0, 0, 0, 0, 0, 0, 192, 0, 2, 200,
	}
	if got := whoHas(vip).bytes(); !bytes.Equal(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
}

func TestAnswerGoesBackWithOwnAddress(t *testing.T) {
	want := packet{op: reply, sender: own, senderIP: vip, target: asker, targetIP: client}
	if got := answer(lan.Question{Addr: vip, From: client, MAC: asker}, own); got != want {
		t.Errorf("got %+v", got)
	}
}

func TestGratuitousPacketNamesTheAddressTwice(t *testing.T) {
	if p := gratuitous(reply, vip, own); p.senderIP != vip || p.targetIP != vip || p.sender != own || p.target != lan.Everybody {
		t.Errorf("got %+v", p)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte{})
	f.Add(whoHas(vip).bytes())
	f.Add(append(whoHas(vip).bytes(), make([]byte, 18)...)) // padded to the least length of a frame
	f.Add(append([]byte{0, 1, 0x86, 0xdd, 6, 16}, make([]byte, 40)...))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, ok := parse(b)
		if !ok {
			return
		}
		if !bytes.Equal(p.bytes(), b[:packetLen]) {
			t.Errorf("%v was read as %+v", b, p)
		}
	})
}
