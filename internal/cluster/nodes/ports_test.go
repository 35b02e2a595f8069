//go:build linux

package nodes

import (
	"encoding/binary"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"minato/internal/netns"
	"minato/internal/netns/netnstest"
)

// withPorts attaches a pod to the first node with ports 8080 (TCP) and 5300 (UDP), and serves 80 and 53 in it.
func withPorts(t *testing.T, n *Network, name string) pod {
	t.Helper()
	p := pod{NS: netnstest.Namespace(t, "pod"), id: netnstest.Name("container")}
	r, err := n.Attach(t.Context(), AttachRequest{Node: "node1", Netns: p.Path(), ContainerID: p.id, Ports: []PortMapping{
		{Protocol: unix.IPPROTO_TCP, HostPort: 8080, PodPort: 80}, {Protocol: unix.IPPROTO_UDP, HostPort: 5300, PodPort: 53},
	}})
	if err != nil {
		t.Fatal(err)
	}
	p.addr = r.Addrs[0].Addr()
	netnstest.ServeTCP(t, p.NS, name, p.addr.String()+":80")
	netnstest.ServeUDP(t, p.NS, name, p.addr.String()+":53")
	return p
}

func TestAPortOfTheNodeLeadsToThePod(t *testing.T) {
	w := netnstest.New(t)
	n := up(t, config(t, w, 2))
	node1, node2 := nodeNetns(t, n, "node1"), nodeNetns(t, n, "192.168.0.12")
	p := withPorts(t, n, "pod")
	neighbour, stranger := attach(t, n, "node1"), attach(t, n, "192.168.0.12")
	for _, tt := range []struct {
		from   string
		client netns.NS
		at     string
		seen   string
	}{
		{"the LAN", w.Host, "172.30.0.11", "172.30.0.1"},
		{"another node", node2, "172.30.0.11", "172.30.0.12"},
		{"a pod of the node", neighbour.NS, "172.30.0.11", neighbour.addr.String()},
		{"a pod of another node", stranger.NS, "172.30.0.11", stranger.addr.String()},
		{"the node", node1, "172.30.0.11", "172.30.0.11"},
		{"the node by its loopback", node1, "127.0.0.1", "172.30.0.11"},
		{"the pod itself", p.NS, "172.30.0.11", "172.30.0.11"},
	} {
		t.Run(tt.from, func(t *testing.T) {
			for _, to := range []struct{ network, port string }{{"tcp", ":8080"}, {"udp", ":5300"}} {
				if a := netnstest.MustAsk(t, tt.client, to.network, tt.at+to.port); a.Name != "pod" || a.Peer.String() != tt.seen {
					t.Errorf("%s: answered by %s, which saw %s, want %s", to.network, a.Name, a.Peer, tt.seen)
				}
			}
		})
	}
	if _, err := netnstest.Ask(w.Host, "tcp", "172.30.0.11:8081"); err == nil {
		t.Error("a port that was not mapped answers")
	}
}

func TestAPortBelongsToTheNewestPodAndGoesWithIt(t *testing.T) {
	w := netnstest.New(t)
	n := up(t, config(t, w, 1))
	first := withPorts(t, n, "first")
	netnstest.MustAsk(t, w.Host, "udp", "172.30.0.11:5300") // leaves a flow
	second := withPorts(t, n, "second")
	for _, to := range []struct{ network, at string }{{"tcp", "172.30.0.11:8080"}, {"udp", "172.30.0.11:5300"}} {
		if a := netnstest.MustAsk(t, w.Host, to.network, to.at); a.Name != "second" {
			t.Errorf("%s: %s answered", to.network, a.Name)
		}
	}
	for _, p := range []pod{first, second} {
		if err := n.Detach(t.Context(), AttachRequest{Node: "node1", ContainerID: p.id}); err != nil {
			t.Fatal(err)
		}
	}
	wantNoMapping(t, nodeNetns(t, n, "node1"))
}

func TestAPortOfAPodThatWentUnseenIsGivenBack(t *testing.T) {
	w := netnstest.New(t)
	c := config(t, w, 1)
	n := up(t, c)
	p := withPorts(t, n, "pod")
	n.Close()
	node := nodeNetns(t, n, "node1")
	netnstest.Run(t, node, "ip", "link", "delete", podLink(p.id))
	up(t, c)
	wantNoMapping(t, node)
}

func TestAPodDoesNotReachItsNodesLoopback(t *testing.T) {
	w := netnstest.New(t)
	c := config(t, w, 1)
	n := up(t, c)
	p := withPorts(t, n, "pod")
	if err := p.Do(func() error { return sendTo(loopback4, p.addr) }); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(netnstest.Wait)
	for {
		chain := netnstest.Run(t, nodeNetns(t, n, "node1"), "nft", "list", "chain", "ip", portsTable(c.Name), "guard")
		if strings.Contains(chain, "packets 1 ") && strings.Contains(chain, "drop") {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the packet did not end at the guard:\n%s", chain)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// sendTo sends a UDP packet by eth0 to an address that the kernel would not send it to.
func sendTo(dst, src netip.Addr) error {
	link, err := net.InterfaceByName("eth0")
	if err != nil {
		return err
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	packet := make([]byte, 28) // IPv4 and UDP headers
	packet[0], packet[3], packet[8], packet[9] = 0x45, 28, 64, unix.IPPROTO_UDP
	copy(packet[12:], src.AsSlice())
	copy(packet[16:], dst.AsSlice())
	var sum uint32
	for i := 0; i < 20; i += 2 {
		sum += uint32(packet[i])<<8 | uint32(packet[i+1])
	}
	binary.BigEndian.PutUint16(packet[10:], ^uint16(sum+sum>>16))
	packet[21], packet[23], packet[25] = 53, 53, 8                                 // ports, length
	to := &unix.SockaddrLinklayer{Protocol: 0x0008, Ifindex: link.Index, Halen: 6} // ETH_P_IP
	copy(to.Addr[:], hardwareAddr(gateway4))
	return unix.Sendto(fd, packet, 0, to)
}

func wantNoMapping(t *testing.T, node netns.NS) {
	t.Helper()
	if rules := netnstest.Run(t, node, "nft", "list", "ruleset"); strings.Contains(rules, "comment \"pod") {
		t.Errorf("a mapping is left:\n%s", rules)
	}
}

func TestAMappingIsAtTheAddressThatItNames(t *testing.T) {
	node := netip.MustParseAddr("172.30.0.11")
	for host, want := range map[string]int{"": 2, "0.0.0.0": 2, "127.0.0.1": 1, "172.30.0.11": 1, "fd00::1": 0} {
		addr, _ := netip.ParseAddr(host)
		if got := (portElements{node: node}).hostAddrs(PortMapping{HostAddr: addr}); len(got) != want {
			t.Errorf("%q: %v, want %d", host, got, want)
		}
	}
}
