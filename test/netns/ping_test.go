//go:build linux

package netns_test

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"sync/atomic"
	"time"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"

	"minato/internal/netns"
	"minato/internal/netns/netnstest"
)

var pings atomic.Uint32

// ping sends one echo request and waits for its reply from the same address.
func ping(from netns.NS, to string) error {
	network, request, reply, protocol := "ip4:icmp", icmp.Type(ipv4.ICMPTypeEcho), icmp.Type(ipv4.ICMPTypeEchoReply), 1
	if netip.MustParseAddr(to).Is6() {
		network, request, reply, protocol = "ip6:ipv6-icmp", ipv6.ICMPTypeEchoRequest, ipv6.ICMPTypeEchoReply, 58
	}
	ctx, cancel := context.WithTimeout(context.Background(), netnstest.Wait)
	defer cancel()
	c, err := from.DialContext(ctx, network, to)
	if err != nil {
		return err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(netnstest.Wait))
	id := int(pings.Add(1)) // a connection of its own
	m, err := (&icmp.Message{Type: request, Body: &icmp.Echo{ID: id, Seq: 1, Data: []byte("minato")}}).Marshal(nil)
	if err != nil {
		return err
	}
	if _, err := c.Write(m); err != nil {
		return err
	}
	buf := make([]byte, 1500)
	for {
		n, _, err := c.(net.PacketConn).ReadFrom(buf) // without the header of IPv4
		if err != nil {
			return fmt.Errorf("no echo of %s: %w", to, err)
		}
		got, err := icmp.ParseMessage(protocol, buf[:n])
		if err != nil {
			return err
		}
		if echo, ok := got.Body.(*icmp.Echo); ok && got.Type == reply && echo.ID == id {
			return nil
		}
	}
}
