package ndp

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"

	"minato/internal/announce/lan"
)

var (
	own    = lan.MAC{2, 0, 0, 0, 0, 1}
	asker  = lan.MAC{2, 0, 0, 0, 0, 9}
	node   = netip.MustParseAddr("2001:db8::11")
	client = netip.MustParseAddr("2001:db8::1")
	vip    = netip.MustParseAddr("2001:db8::200")
)

// solicit is a solicitation as a client sends it.
func solicit(a netip.Addr) []byte {
	b := make([]byte, advertiseLen)
	b[0], b[5], b[6], b[7] = 6<<4, advertiseLen-headerLen, 58, 255
	copy(b[8:], client.AsSlice())
	copy(b[24:], group(a).AsSlice())
	b[40] = solicitation
	copy(b[48:], a.AsSlice())
	b[64], b[65] = sourceLinkAddress, 1
	copy(b[66:], asker[:])
	return sealed(b)
}

// sealed gives a packet the right checksum.
func sealed(b []byte) []byte {
	b[42], b[43] = 0, 0
	binary.BigEndian.PutUint16(b[42:], checksum(b))
	return b
}

func TestASolicitationSaysWhoAsksForWhat(t *testing.T) {
	q, ok := parse(solicit(vip))
	if want := (lan.Question{Addr: vip, From: client, MAC: asker}); !ok || q != want {
		t.Errorf("read %+v, %t", q, ok)
	}
}

func TestWhatRFC4861SaysToDiscardIs(t *testing.T) {
	for name, spoil := range map[string]func(b []byte) []byte{
		"a hop limit below 255: it crossed a router": func(b []byte) []byte { b[7] = 254; return b },
		"a wrong checksum":                           func(b []byte) []byte { b[43] ^= 1; return b },
		"a code":                                     func(b []byte) []byte { b[41] = 1; return sealed(b) },
		"an advertisement that says not where":       func(b []byte) []byte { b[40] = advertisement; return sealed(b) },
		"an option without length":                   func(b []byte) []byte { b[65] = 0; return sealed(b) },
		"an option that ends too late":               func(b []byte) []byte { b[65] = 2; return sealed(b) },
		"a multicast target":                         func(b []byte) []byte { b[48] = 0xff; return sealed(b) },
		"a multicast source":                         func(b []byte) []byte { b[8] = 0xff; return sealed(b) },
		"a cut packet":                               func(b []byte) []byte { return b[:solicitLen+4] },
	} {
		if q, ok := parse(spoil(solicit(vip))); ok {
			t.Errorf("%s: read %+v", name, q)
		}
	}
}

func TestAnAnswerIsSolicitedAndOverrides(t *testing.T) {
	b := advertise(vip, node, client, own)
	if checksum(b) != 0 || b[40] != advertisement || b[44] != solicited|override || b[7] != 255 {
		t.Errorf("sent %x", b)
	}
	if !bytes.Equal(b[48:64], vip.AsSlice()) || !bytes.Equal(b[64:], append([]byte{2, 1}, own[:]...)) {
		t.Errorf("sent %x", b)
	}
}

func TestWhatIsToldToEverybodyIsNotSolicited(t *testing.T) {
	if b := advertise(vip, node, allNodes, own); b[44] != override {
		t.Errorf("flags %x", b[44])
	}
}

func TestGroupsAreThoseOfRFC4291(t *testing.T) {
	if g := group(netip.MustParseAddr("4037::1:800:200e:8c6c")); g != netip.MustParseAddr("ff02::1:ff0e:8c6c") {
		t.Errorf("group %s", g)
	}
	if m := multicast(allNodes); m != (lan.MAC{0x33, 0x33, 0, 0, 0, 1}) {
		t.Errorf("%x", m)
	}
}

func TestAnAdvertisementIsAClaim(t *testing.T) {
	q, ok := parse(advertise(vip, node, allNodes, lan.MAC{2, 0, 0, 0, 0, 7}))
	if want := (lan.Question{Addr: vip, From: vip, MAC: lan.MAC{2, 0, 0, 0, 0, 7}}); !ok || q != want {
		t.Errorf("read as %+v (%t), want %+v", q, ok, want)
	}
}

func TestAProbeAsksAsNobody(t *testing.T) {
	q, ok := parse(probe(vip))
	if want := (lan.Question{Addr: vip, From: netip.IPv6Unspecified()}); !ok || q != want {
		t.Errorf("read as %+v (%t), want %+v", q, ok, want)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte{})
	f.Add(advertise(vip, vip, allNodes, lan.MAC{1}))
	f.Add(solicit(vip))
	f.Add(solicit(vip)[:solicitLen])
	f.Fuzz(func(t *testing.T, b []byte) {
		if q, ok := parse(b); ok && (q.Addr.IsMulticast() || b[7] != 255) {
			t.Errorf("%x was read as %+v", b, q)
		}
	})
}
