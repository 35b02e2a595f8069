package source

import (
	"fmt"
	"net/netip"
	"strings"

	corev1 "k8s.io/api/core/v1"
	netutils "k8s.io/utils/net"

	"minato/internal/model"
)

// parseAddr reads an address as old API servers let it be written: with leading zeros, with spaces around.
func parseAddr(s string) (netip.Addr, bool) {
	a, ok := netip.AddrFromSlice(netutils.ParseIPSloppy(strings.TrimSpace(s)))
	return a.Unmap(), ok
}

// parsePrefix reads an address range in the same way and clears the bits behind the mask. masked says whether there
// were any.
func parsePrefix(s string) (p netip.Prefix, masked, ok bool) {
	ip, ipnet, err := netutils.ParseCIDRSloppy(strings.TrimSpace(s))
	if err != nil {
		return netip.Prefix{}, false, false
	}
	a, _ := netip.AddrFromSlice(ipnet.IP)
	bits, _ := ipnet.Mask.Size()
	return netip.PrefixFrom(a.Unmap(), bits), !ip.Equal(ipnet.IP), true
}

// parseProtocol reads a protocol name; TCP is the default of the API.
func parseProtocol(p corev1.Protocol) (model.Protocol, bool) {
	switch p {
	case corev1.ProtocolTCP, "":
		return model.TCP, true
	case corev1.ProtocolUDP:
		return model.UDP, true
	case corev1.ProtocolSCTP:
		return model.SCTP, true
	}
	return 0, false
}

func parsePort(n int32) (uint16, bool) { return uint16(n), n >= 1 && n <= 65535 }

// unusable says why an address cannot be an external frontend, in the words of the API's own validation.
func unusable(a netip.Addr) string {
	switch {
	case a.IsUnspecified():
		return "unspecified"
	case a.IsLoopback():
		return "loopback"
	case a.IsLinkLocalUnicast(), a.IsLinkLocalMulticast():
		return "link-local"
	}
	return ""
}

// warnings gathers what could not be used. It stops counting them out one by one after the first few.
type warnings struct {
	list []string
	more int
}

const maxWarnings = 10

func (w *warnings) addf(format string, v ...any) {
	if len(w.list) < maxWarnings {
		w.list = append(w.list, fmt.Sprintf(format, v...))
	} else {
		w.more++
	}
}

func (w *warnings) all() []string {
	if w.more > 0 {
		return append(w.list, fmt.Sprintf("and %d more of this kind", w.more))
	}
	return w.list
}
