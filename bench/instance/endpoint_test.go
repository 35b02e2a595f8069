//go:build linux

package instance

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"minato/internal/netns"
	"minato/test/world"
)

// monitor listens to what is committed to the nf_tables of a namespace.
type monitor int

func listen(b *testing.B, ns netns.NS) (m monitor) {
	b.Helper()
	const groupNFTables = 7 // NFNLGRP_NFTABLES
	err := ns.Do(func() error {
		fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
		if err != nil {
			return err
		}
		m = monitor(fd)
		return errors.Join(unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}),
			unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, groupNFTables),
			unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 10}))
	})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { unix.Close(int(m)) })
	return m
}

// wait returns when an element with the address was committed.
func (m monitor) wait(b *testing.B, addr netip.Addr) {
	b.Helper()
	buf := make([]byte, 1<<16)
	for {
		n, err := unix.Read(int(m), buf)
		if errors.Is(err, unix.EINTR) || errors.Is(err, unix.ENOBUFS) {
			continue
		}
		if err != nil {
			b.Fatalf("waiting for %s in the kernel: %v", addr, err)
		}
		if bytes.Contains(buf[:n], addr.AsSlice()) {
			return
		}
	}
}

// BenchmarkEndpointToKernel is one endpoint of a Service replaced: from the start of the request to the API until the
// kernel of a node has announced the element, with 1,000 Services of ten endpoints there. The request's own time is
// reported beside it, because the event exists only after the store has it. Changes follow one another at once, which
// keeps the collector of the API's garbage at work, or after a rest.
func BenchmarkEndpointToKernel(b *testing.B) {
	w := world.Start(b, world.Config{Images: []string{}})
	apply(b, w, services(1000, 10))
	slices := client(b, w).DiscoveryV1().EndpointSlices("default")
	m := listen(b, w.NodeNetns("node1"))
	next := netip.AddrFrom4([4]byte{10, 220, 0, 0})
	for _, c := range []struct {
		name string
		rest time.Duration
	}{{"AtOnce", 0}, {"Every50ms", 50 * time.Millisecond}} {
		b.Run(c.name, func(b *testing.B) {
			var put, whole, after []time.Duration
			for i := range b.N {
				s, err := slices.Get(b.Context(), fmt.Sprintf("s%d", i%1000), metav1.GetOptions{})
				if err != nil {
					b.Fatal(err)
				}
				next = next.Next()
				s.Endpoints[0].Addresses = []string{next.String()}
				start := time.Now()
				update(b.Context(), b, slices.Update, s)
				answered := time.Since(start)
				m.wait(b, next)
				put, whole = append(put, answered), append(whole, time.Since(start))
				after = append(after, max(0, whole[i]-answered))
				time.Sleep(c.rest)
			}
			report(b, "request", put)
			report(b, "request-to-kernel", whole)
			report(b, "event-to-kernel", after)
		})
	}
}

type updater = func(context.Context, *discoveryv1.EndpointSlice, metav1.UpdateOptions) (*discoveryv1.EndpointSlice, error)

func update(ctx context.Context, b *testing.B, f updater, s *discoveryv1.EndpointSlice) {
	b.Helper()
	if _, err := f(ctx, s, metav1.UpdateOptions{}); err != nil {
		b.Fatal(err)
	}
}
