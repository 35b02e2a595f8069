//go:build linux

package nodes

import (
	"errors"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"minato/internal/netns"
	"minato/internal/netns/netnstest"
)

func TestAttachAgainAnswersTheSame(t *testing.T) {
	w := netnstest.New(t)
	n := up(t, config(t, w, 1))
	p := attach(t, n, "node1")
	before := netnstest.Dump(t, p.NS) + netnstest.Dump(t, nodeNetns(t, n, "node1"))
	r, err := n.Attach(t.Context(), AttachRequest{Node: "node1", Netns: p.Path(), ContainerID: p.id})
	if err != nil || r.Addrs[0].Addr() != p.addr {
		t.Errorf("got %s, %v, want %s", r.Addrs, err, p.addr)
	}
	if d := netnstest.Diff(before, netnstest.Dump(t, p.NS)+netnstest.Dump(t, nodeNetns(t, n, "node1"))); d != "" {
		t.Errorf("the second Attach has changed:\n%s", d)
	}
}

func TestAttachCompletesWhatWasLeftUndone(t *testing.T) {
	w := netnstest.New(t)
	n := up(t, config(t, w, 2))
	node := nodeNetns(t, n, "node1")
	for what, argv := range map[string][]string{
		"no default route": {"ip", "route", "flush", "table", "main"},
		"no address":       {"ip", "address", "flush", "dev", "eth0"},
		"link down":        {"ip", "link", "set", "eth0", "down"},
		"link gone":        {"ip", "link", "delete", "eth0"},
		"neighbour gone":   {"ip", "neigh", "flush", "nud", "permanent"},
	} {
		t.Run(what, func(t *testing.T) {
			p := attach(t, n, "node1")
			netnstest.Run(t, p.NS, argv...)
			r, err := n.Attach(t.Context(), AttachRequest{Node: "node1", Netns: p.Path(), ContainerID: p.id})
			if err != nil {
				t.Fatal(err)
			}
			if seen := seenBy(t, p.NS, r.Addrs[0].Addr(), node); seen.String() != "172.30.0.11" {
				t.Errorf("seen as %s", seen)
			}
		})
	}
}

func TestASandboxThatWasMadeAnewGetsALinkOfItsOwn(t *testing.T) {
	w := netnstest.New(t)
	n := up(t, config(t, w, 1))
	p := attach(t, n, "node1")
	again := netnstest.Namespace(t, "pod")
	r, err := n.Attach(t.Context(), AttachRequest{Node: "node1", Netns: again.Path(), ContainerID: p.id})
	if err != nil {
		t.Fatal(err)
	}
	seenBy(t, again, r.Addrs[0].Addr(), nodeNetns(t, n, "node1"))
}

func TestAnAddressRestsBeforeItIsGivenAgain(t *testing.T) {
	w := netnstest.New(t)
	c := config(t, w, 1)
	c.Nodes[0].PodCIDRs[0] = netip.MustParsePrefix("10.244.1.0/29") // .1 to .6
	n := up(t, c)
	var order []string
	for range 7 {
		p := attach(t, n, "node1")
		order = append(order, p.addr.String())
		detach(t, n, p)
	}
	want := "10.244.1.1 10.244.1.2 10.244.1.3 10.244.1.4 10.244.1.5 10.244.1.6 10.244.1.1"
	if got := strings.Join(order, " "); got != want {
		t.Errorf("got %s", got)
	}
}

func TestAfterARestartAddressesInUseAreKnown(t *testing.T) {
	w := netnstest.New(t)
	c := config(t, w, 1)
	n := up(t, c)
	a, b := attach(t, n, "node1"), attach(t, n, "node1")
	detach(t, n, a)
	n.Close()
	if p := attach(t, up(t, c), "node1"); p.addr != b.addr.Next() {
		t.Errorf("got %s after %s", p.addr, b.addr)
	}
}

func TestAFullRangeIsSaidAndLeavesNothing(t *testing.T) {
	w := netnstest.New(t)
	c := config(t, w, 1)
	c.Nodes[0].PodCIDRs[0] = netip.MustParsePrefix("10.244.1.0/30") // .1 and .2
	n := up(t, c)
	attach(t, n, "node1")
	attach(t, n, "node1")
	node, sandbox := nodeNetns(t, n, "node1"), netnstest.Namespace(t, "pod")
	before := netnstest.Dump(t, node)
	_, err := n.Attach(t.Context(), AttachRequest{Node: "node1", Netns: sandbox.Path(), ContainerID: "one too many"})
	if !errors.Is(err, ErrNoAddress) {
		t.Errorf("got %v", err)
	}
	if d := netnstest.Diff(before, netnstest.Dump(t, node)); d != "" {
		t.Errorf("something is left:\n%s", d)
	}
}

func TestAttachToANodeThatIsNotThere(t *testing.T) {
	w := netnstest.New(t)
	n := up(t, config(t, w, 1))
	if _, err := n.Attach(t.Context(), AttachRequest{Node: "node9"}); !errors.Is(err, ErrNoNode) {
		t.Errorf("got %v", err)
	}
	if _, err := n.Attach(t.Context(), AttachRequest{Node: "node1", Netns: "/nowhere", ContainerID: "x"}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}

func TestDetachOfWhatIsNotThereIsNoError(t *testing.T) {
	w := netnstest.New(t)
	n := up(t, config(t, w, 1))
	for _, req := range []AttachRequest{{ContainerID: "x"}, {ContainerID: "x", Node: "node1"}, {ContainerID: "x", Node: "node9"}} {
		if err := n.Detach(t.Context(), req); err != nil {
			t.Errorf("%v: %v", req, err)
		}
	}
}

func detach(t testing.TB, n *Network, p pod) {
	t.Helper()
	if err := n.Detach(t.Context(), AttachRequest{ContainerID: p.id}); err != nil {
		t.Error(err)
	}
}

func TestManyPodsAtOnce(t *testing.T) {
	w := netnstest.New(t)
	n := up(t, config(t, w, 2))
	node := nodeNetns(t, n, "node1")
	before := netnstest.Dump(t, node)
	pods := make([]pod, 50)
	for i := range pods {
		pods[i] = pod{NS: netnstest.Namespace(t, "pod"), id: netnstest.Name("c")}
	}
	each := func(work func(p *pod)) {
		var all sync.WaitGroup
		for i := range pods {
			all.Go(func() { work(&pods[i]) })
		}
		all.Wait()
	}
	each(func(p *pod) {
		var twice sync.WaitGroup // the runtime may repeat a request before the first has answered
		for range 2 {
			twice.Go(func() {
				if _, err := n.Attach(t.Context(), AttachRequest{Node: "node1", Netns: p.Path(), ContainerID: p.id}); err != nil {
					t.Error(err)
				}
			})
		}
		twice.Wait()
		r, err := n.Attach(t.Context(), AttachRequest{Node: "node1", Netns: p.Path(), ContainerID: p.id})
		if err != nil {
			t.Error(err)
			return
		}
		p.addr = r.Addrs[0].Addr()
	})
	owners := map[netip.Addr]string{}
	for _, p := range pods {
		if other, taken := owners[p.addr]; taken {
			t.Errorf("%s is given to %s and %s", p.addr, other, p.id)
		}
		owners[p.addr] = p.id
	}
	each(func(p *pod) { // reached at once, without a lost packet's second
		start := time.Now()
		address := netip.AddrPortFrom(p.addr, 0).String()
		s := netnstest.ServeTCP(t, p.NS, p.id, address)
		if a := netnstest.MustAsk(t, node, "tcp", s.Addr.String()); a.Name != p.id || time.Since(start) > 900*time.Millisecond {
			t.Errorf("%s answered for %s after %s", a.Name, p.id, time.Since(start))
		}
	})
	each(func(p *pod) { detach(t, n, *p) })
	if d := netnstest.Diff(before, netnstest.Dump(t, node)); d != "" {
		t.Errorf("something is left:\n%s", d)
	}
}

// sandbox is a namespace held by a mount, as containerd makes it for a pod.
func sandbox(t *testing.T) netns.NS {
	ns := netnstest.Namespace(t, "sandbox")
	t.Cleanup(func() { unix.Unmount(ns.Path(), unix.MNT_DETACH) })
	return ns
}

func TestAPodOfTheHostNetworkIsInTheNodesNamespace(t *testing.T) {
	w := netnstest.New(t)
	n := up(t, config(t, w, 1))
	s, node := sandbox(t), nodeNetns(t, n, "node1")
	req := AttachRequest{Node: "node1", Netns: s.Path(), ContainerID: "x", HostNetwork: true}
	before := netnstest.Dump(t, node)
	for range 2 {
		r, err := n.Attach(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		if r.IfName != "" || len(r.Gateways) > 0 || r.Addrs[0].String() != "172.30.0.11/24" {
			t.Errorf("got %+v", r)
		}
	}
	if inode(t, s.Path()) != inode(t, node.Path()) {
		t.Error("the sandbox is not in the node's namespace")
	}
	if err := n.Detach(t.Context(), req); err != nil {
		t.Error(err)
	}
	if d := netnstest.Diff(before, netnstest.Dump(t, node)); d != "" {
		t.Errorf("the node has changed:\n%s", d)
	}
}

func inode(t testing.TB, path string) uint64 {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.Sys().(*syscall.Stat_t).Ino
}

func TestExecRunsInTheNodesNamespace(t *testing.T) {
	w := netnstest.New(t)
	n := up(t, config(t, w, 1))
	var out strings.Builder
	err := n.Exec(t.Context(), "node1", []string{"sh", "-c", "ip -4 -brief address show eth0; cat; exit 7"}, Stdio{In: strings.NewReader("end"), Out: &out})
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 7 {
		t.Errorf("got %v, want exit code 7", err)
	}
	if got := out.String(); !strings.Contains(got, "172.30.0.11/24") || !strings.HasSuffix(got, "end") {
		t.Errorf("got %q", got)
	}
	if err := n.Exec(t.Context(), "node9", []string{"true"}, Stdio{}); !errors.Is(err, ErrNoNode) {
		t.Errorf("got %v", err)
	}
}
