package oracle

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"minato/internal/model"
	"minato/internal/source"
	"minato/test/oracle/upstream"
)

// What is different with nodes on purpose. Each has to be met.
const (
	firstLoopback = "a listener answers NodePorts at 127.0.0.1, so other addresses of 127.0.0.0/8 in --nodeport-addresses open nothing"
	noWaiting     = "there is no mode in which a start waits for the Node's pod ranges: until it has them, no source is taken for one of its pods"
	noExit        = "new pod ranges of the Node are taken over, and the process goes on"
)

// Node addresses in the ranges of --nodeport-addresses answer NodePorts, as kube-proxy's do.
func TestNodePortAddressesAreThoseOfKubeProxy(t *testing.T) {
	all, err := upstream.NodePorts(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	counts, excepted := map[upstream.NodePortKind]int{}, 0
	for i, u := range all {
		counts[u.Kind]++
		t.Run(fmt.Sprint(u.Kind, " ", i), func(t *testing.T) {
			n := &model.Node{Name: "node1"}
			for _, r := range u.Ranges {
				n.NodePorts = append(n.NodePorts, netip.MustParsePrefix(r))
			}
			if u.Kind == upstream.Addresses {
				checkAnswers(t, n, u)
				return
			}
			n.Addrs = []netip.Addr{netip.MustParseAddr("127.0.0.1")}
			got := len(n.NodePortAddrs(u.Family == corev1.IPv6Protocol)) > 0
			if u.Loopback && !got && slices.ContainsFunc(n.NodePorts, func(p netip.Prefix) bool { return p.Addr().IsLoopback() && !p.Contains(n.Addrs[0]) }) {
				excepted++
				t.Skip(firstLoopback)
			}
			if got != u.Loopback {
				t.Errorf("%v: 127.0.0.1 answers: %t, want %t", u.Ranges, got, u.Loopback)
			}
		})
	}
	if counts[upstream.Addresses] < 24 || counts[upstream.Loopback] < 16 {
		t.Errorf("only %v", counts)
	}
	if excepted == 0 {
		t.Errorf("nothing of upstream is excepted because %s", firstLoopback)
	}
}

// strangers are addresses that no range of upstream's tests has, but those of everything.
var strangers = map[corev1.IPFamily]netip.Addr{
	corev1.IPv4Protocol: netip.MustParseAddr("203.0.113.77"), corev1.IPv6Protocol: netip.MustParseAddr("2001:db8:ffff::77"),
}

func checkAnswers(t *testing.T, n *model.Node, u upstream.NodePortAddresses) {
	for _, a := range u.Has {
		n.Addrs = append(n.Addrs, netip.MustParsePrefix(a).Addr())
	}
	var want []netip.Addr
	for _, a := range u.Answers {
		want = append(want, netip.MustParseAddr(a))
	}
	got := n.NodePortAddrs(u.Family == corev1.IPv6Protocol)
	slices.SortFunc(got, netip.Addr.Compare)
	slices.SortFunc(want, netip.Addr.Compare)
	if !slices.Equal(got, want) {
		t.Errorf("of %v in %v answer %v, want %v", n.Addrs, u.Ranges, got, want)
	}
	if all := n.AnswersNodePorts(strangers[u.Family]); all != u.All {
		t.Errorf("%v: any address of %s answers: %t, want %t", u.Ranges, u.Family, all, u.All)
	}
}

// What kube-proxy takes from its Node object, and what it makes of changes.
func TestNodesAreWhatKubeProxyTakesThemFor(t *testing.T) {
	all, err := upstream.Nodes(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	counts, met := map[upstream.NodeKind]int{}, map[string]bool{}
	for i, u := range all {
		counts[u.Kind]++
		t.Run(fmt.Sprint(u.Kind, " ", i), func(t *testing.T) {
			switch u.Kind {
			case upstream.Read:
				checkRead(t, u)
			case upstream.Started:
				if u.WatchesPodCIDRs {
					met[noWaiting] = true
					t.Skip(noWaiting)
				}
			case upstream.NodeTold, upstream.NodeGone:
				checkEvent(t, u)
				if u.Exits > 0 {
					met[noExit] = true
					t.Skip(noExit)
				}
			}
		})
	}
	t.Log(counts)
	for kind, least := range map[upstream.NodeKind]int{upstream.Read: 20, upstream.Started: 13, upstream.NodeTold: 5, upstream.NodeGone: 1} {
		if counts[kind] < least {
			t.Errorf("only %d of %s", counts[kind], kind)
		}
	}
	for _, reason := range []string{noWaiting, noExit} {
		if !met[reason] {
			t.Errorf("nothing of upstream is excepted because %s", reason)
		}
	}
}

// checkRead compares the first address of each family, which are those that connections are masqueraded to, and pod ranges.
func checkRead(t *testing.T, u upstream.NodeEvent) {
	if u.Object == nil {
		if len(u.IPs)+len(u.PodCIDRs) > 0 {
			t.Errorf("a node that is not there has %v %v", u.IPs, u.PodCIDRs)
		}
		return
	}
	n := source.Node(u.Object)
	var got, want []string
	for _, ipv6 := range []bool{false, true} {
		if a := n.Addr(ipv6); a.IsValid() {
			got = append(got, a.String())
		}
	}
	for _, p := range n.PodCIDRs {
		got = append(got, p.String())
	}
	want = append(slices.Clone(u.IPs), u.PodCIDRs...)
	if !slices.Equal(got, want) {
		t.Errorf("read %v, want %v", got, want)
	}
}

// checkEvent has a Builder know the node that kube-proxy knows, and learn what kube-proxy learns.
func checkEvent(t *testing.T, u upstream.NodeEvent) {
	b := completeBuilder()
	b.Update(func(batch *source.Batch) { batch.SetNode(source.Node(u.Before)) })
	b.Update(func(batch *source.Batch) {
		if u.Kind == upstream.NodeGone {
			batch.DeleteNode(u.Object.Name)
		} else {
			batch.SetNode(source.Node(u.Object))
		}
	})
	switch got := b.Current().NodeNamed(u.Object.Name); {
	case u.Kind == upstream.NodeGone: // an agent goes on with the node as it was last known, as kube-proxy does
		if got != nil || u.After == nil {
			t.Errorf("after it was deleted there is %+v; kube-proxy has %v", got, u.After)
		}
	case got == nil:
		t.Error("the node is gone")
	default:
		if want := source.Node(u.After); !slices.Equal(got.Addrs, want.Addrs) || !slices.Equal(got.PodCIDRs, want.PodCIDRs) {
			t.Errorf("the node is %+v, want %+v", got, want)
		}
	}
}

// Of a node's labels only the zone is one by which endpoints are chosen: others change nothing.
func TestTopologyLabelsAreThoseOfKubeProxy(t *testing.T) {
	all, err := upstream.Topologies(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if len(all) < 5 {
		t.Fatalf("only %d changes of labels", len(all))
	}
	b := completeBuilder()
	for i, u := range all {
		before := b.Current()
		known := before.NodeNamed(u.Object.Name)
		b.Update(func(batch *source.Batch) { batch.SetNode(source.Node(u.Object)) })
		n := b.Current().NodeNamed(u.Object.Name)
		if n.Zone != u.Zone {
			t.Errorf("%d: the zone is %q, want %q", i, n.Zone, u.Zone)
		}
		if changed := b.Current() != before; known != nil && changed != u.Told {
			t.Errorf("%d: a change %t, want %t", i, changed, u.Told)
		}
	}
}
