//go:build linux

package nodes

import (
	"context"
	"testing"

	"minato/internal/netns/netnstest"
)

func BenchmarkAttach(b *testing.B) {
	w := netnstest.New(b)
	n := up(b, config(b, w, 1))
	s := netnstest.Namespace(b, "pod")
	req := AttachRequest{Node: "node1", Netns: s.Path(), ContainerID: "bench"}
	for b.Loop() {
		if _, err := n.Attach(context.Background(), req); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		if err := n.Detach(context.Background(), req); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
}

func BenchmarkUpAndDelete(b *testing.B) {
	w := netnstest.New(b)
	c := config(b, w, 3)
	for b.Loop() {
		n, err := Up(context.Background(), c)
		if err != nil {
			b.Fatal(err)
		}
		n.Close()
		if err := Delete(context.Background(), c); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkUpAgain(b *testing.B) {
	w := netnstest.New(b)
	c := config(b, w, 3)
	up(b, c)
	for b.Loop() {
		n, err := Up(context.Background(), c)
		if err != nil {
			b.Fatal(err)
		}
		n.Close()
	}
}
