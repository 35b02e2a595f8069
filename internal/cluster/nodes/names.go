//go:build linux

package nodes

import (
	"crypto/sha256"
	"encoding/hex"
	"net"
	"net/netip"
	"path/filepath"

	"golang.org/x/sys/unix"

	"minato/internal/netns"
)

// lanName is the part of the bridge's namespace that takes the place of a node's name. No node may have it.
const lanName = "lan"

// Names of links inside namespaces of our own.
const (
	bridgeLink = "br0"
	hostPort   = "host" // the bridge's port towards the host
	uplink     = "eth0" // a node's link to the LAN
)

// NetnsPath is where the namespace of a node is mounted.
func NetnsPath(instance, node string) string {
	return filepath.Join(netns.Dir, instance+"-"+node)
}

// HostLink is the name of the host's link into the LAN of an instance.
func HostLink(instance string) string {
	if instance == "minato" {
		return "minato0"
	}
	return linkName("minato-", instance)
}

// TableName is the name of the host's nftables table of an instance.
func TableName(instance string) string { return "minato-" + instance }

// EgressTable is the name of the table in a node's namespace that gives pods' traffic to the outside the node's
// address.
const EgressTable = "minato-egress"

func podLink(containerID string) string { return "pod" + digest(containerID, 12) }
func bridgePort(node string) string     { return linkName("p-", node) }
func owner(instance string) string      { return "minato " + instance }
func digest(s string, length int) string {
	h := sha256.Sum256([]byte(s))
	return hex.EncodeToString(h[:])[:length]
}

// linkName is prefix+name, with the name's digest in its place where that is too long for a link.
func linkName(prefix, name string) string {
	if len(prefix)+len(name) < unix.IFNAMSIZ {
		return prefix + name
	}
	return prefix + digest(name, 8)
}

// hardwareAddr derives a locally administered MAC from an address, so that it is the same after a restart and
// neighbour entries stay true.
func hardwareAddr(a netip.Addr) net.HardwareAddr {
	if a.Is4() {
		b := a.As4()
		return net.HardwareAddr{0x0a, 0x58, b[0], b[1], b[2], b[3]}
	}
	h := sha256.Sum256(a.AsSlice())
	return net.HardwareAddr{0x0a, 0x59, h[0], h[1], h[2], h[3]}
}

// podHardwareAddr derives the MAC of a pod's end from its container.
func podHardwareAddr(containerID string) net.HardwareAddr {
	h := sha256.Sum256([]byte(containerID))
	return net.HardwareAddr{0x0a, 0x5a, h[0], h[1], h[2], h[3]}
}
