//go:build linux

package world

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"

	"minato/internal/netns/netnstest"
)

// familyVariable chooses the IP family of every instance that does not choose one itself: ipv4, ipv6, dual.
const familyVariable = "MINATO_IP_FAMILY"

// OverIPv6 reports whether the instances of this run have no IPv4.
func OverIPv6() bool { return os.Getenv(familyVariable) == "ipv6" }

// Addresses are those of an instance with the default ranges, in the IP family that its Services have by default.
type Addresses struct {
	Host, API, DNS string             // of the host on the LAN, and of Services kubernetes and kube-dns
	Uplink, Far    string             // of the host on the internet, and of www.example.com
	Type           string             // of an EndpointSlice
	Record         string             // type of a name's records
	Service        string             // a pattern of any ClusterIP
	Table          string             // family of the nftables table
	node, pod      func(n int) string // the address, or prefix of addresses, of the nth node
}

// Default are the addresses of the instances of this run.
func Default() Addresses {
	if OverIPv6() {
		return Addresses{
			Host: "fd00:172:30::1", API: "fd00:10:96::1", DNS: "fd00:10:96::a", Type: "IPv6", Record: "AAAA",
			Uplink: uplink6, Far: far6, Service: `fd00:10:96::[0-9a-f]+`, Table: "ip6",
			node: func(n int) string { return "fd00:172:30::1" + strconv.Itoa(n) },
			pod:  func(n int) string { return fmt.Sprintf("fd00:10:244:%d::", n) },
		}
	}
	return Addresses{
		Host: "172.30.0.1", API: "10.96.0.1", DNS: "10.96.0.10", Type: "IPv4", Record: "A",
		Uplink: netnstest.HostAddr, Far: netnstest.FarAddr, Service: `10\.\d+\.\d+\.\d+`, Table: "ip",
		node: func(n int) string { return "172.30.0.1" + strconv.Itoa(n) },
		pod:  func(n int) string { return fmt.Sprintf("10.244.%d.", n) },
	}
}

// Node is the address of the nth node, from 1 on.
func (a Addresses) Node(n int) string { return a.node(n) }

// Pod is an address of the nth node's pods; the last part is from 1 to 99.
func (a Addresses) Pod(node, last int) string { return a.pod(node) + strconv.Itoa(last) }

// At is an address with a port, as in a URL.
func At(addr string, port any) string { return net.JoinHostPort(addr, fmt.Sprint(port)) }

// InURL is an address as the host of a URL.
func InURL(addr string) string { return strings.TrimSuffix(At(addr, 0), ":0") }
