//go:build linux

package oracle

import (
	"context"
	"slices"
	"testing"

	"minato/internal/dataplane/nftables/kernel"
	"minato/internal/model"
	"minato/test/oracle/upstream"
)

// Real packets meet what kube-proxy's tests expect. One applier takes the node from one test's world to the next.
func TestPacketsGoWhereKubeProxySendsThem(t *testing.T) {
	w := newWorld(t)
	a, err := kernel.Open(kernel.Config{Netns: w.node, ServiceCIDRs: serviceCIDRs})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close() })
	each(t, slices.Concat(unsendable, exceptions), func(t *testing.T, b upstream.Block) func(upstream.Flow) outcome {
		w.furnish(t, b)
		s := snapshot(b)
		program(t, a, s)
		w.forget()
		return w.sent
	})
}

// unsendable are the packets that cannot be sent here, whoever the proxy is.
var unsendable = []exception{
	{sent: func(f upstream.Flow) bool { return protocol(f) == model.SCTP },
		reason: "sockets of SCTP are not in every kernel; test/netns sends its packets by hand"},
}

// program takes the node to a snapshot, in both phases.
func program(t *testing.T, a *kernel.Applier, s *model.Snapshot) {
	t.Helper()
	failed, err := a.Program(context.Background(), s)
	if err == nil && len(failed) == 0 {
		err = a.Reap(context.Background(), s)
	}
	if err != nil || len(failed) > 0 {
		t.Fatal(failed, err)
	}
}
