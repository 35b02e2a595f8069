package oracle

import (
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"minato/internal/model"
	"minato/internal/source"
	"minato/test/oracle/upstream"
)

// The world of upstream's tests, as the comment above NewFakeProxier describes it.
var (
	nodeAddrs    = addrs("192.168.0.2", "192.168.1.2", "192.168.99.11", "2001:db8::1", "2001:db8:1::2")
	podCIDRs     = prefixes("10.0.0.0/8", "fd00:10::/64")
	serviceCIDRs = prefixes("172.30.0.0/16", "fd00:172:30::/112")
)

func addrs(in ...string) (out []netip.Addr) {
	for _, s := range in {
		out = append(out, netip.MustParseAddr(s))
	}
	return out
}

func prefixes(in ...string) (out []netip.Prefix) {
	for _, s := range in {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

// blocks are the packet flow tests of all modes, taken once.
var blocks = sync.OnceValues(func() (all []upstream.Block, err error) {
	for _, mode := range []string{"nftables", "iptables"} {
		dir, err := tempDir()
		if err != nil {
			return nil, err
		}
		b, err := upstream.Blocks(mode, dir)
		if err != nil {
			return nil, err
		}
		all = append(all, b...)
	}
	return all, nil
})

func mustBlocks(t *testing.T) []upstream.Block {
	t.Helper()
	all, err := blocks()
	if err != nil {
		t.Fatal(err)
	}
	flows := 0
	for _, b := range all {
		flows += len(b.Flows)
	}
	if flows < 400 {
		t.Fatalf("upstream's tests sent %d packets only", flows)
	}
	return all
}

// outcome is what becomes of a connection, in upstream's words.
type outcome struct {
	output string
	masq   bool // the endpoint sees the node's address
}

func wanted(f upstream.Flow) outcome {
	if f.Output == "" || f.Output == "DROP" || f.Output == "REJECT" || f.Output == "ACCEPT" {
		return outcome{output: f.Output}
	}
	eps := strings.Split(f.Output, ", ")
	slices.Sort(eps)
	// Whether rules give a connection of the node itself the node's address cannot be seen.
	return outcome{strings.Join(eps, ", "), f.Masq || slices.Contains(nodeAddrs, netip.MustParseAddr(f.Source))}
}

func (o outcome) String() string {
	switch {
	case o.output == "":
		return "left alone"
	case o.masq:
		return o.output + " from the node's address"
	}
	return o.output
}

func forwarded(to []netip.AddrPort, masq bool) outcome {
	var s []string
	for _, a := range to {
		s = append(s, a.String())
	}
	slices.Sort(s)
	return outcome{strings.Join(slices.Compact(s), ", "), masq}
}

// snapshot is what the node of the block knows.
func snapshot(b upstream.Block) *model.Snapshot {
	builder := source.NewBuilder()
	builder.Update(func(batch *source.Batch) {
		var services []*source.ServiceObject
		for _, s := range b.Services {
			services = append(services, source.Service(s))
		}
		var all []*source.SliceObject
		for _, s := range b.Slices {
			if o, ok := source.Slice(s); ok {
				all = append(all, o)
			}
		}
		batch.ReplaceServices(services)
		batch.ReplaceSlices(all)
		batch.ReplaceNodes([]*model.Node{node(b)})
		batch.ReplaceNamespaces(nil)
	})
	s := builder.Current()
	return s.On(s.NodeNamed(node(b).Name))
}

// node is the node of the block. NodePorts are answered at the addresses that the API has of it, so it has those at
// which upstream's proxier answers.
func node(b upstream.Block) *model.Node {
	n := &model.Node{Name: b.Node, PodCIDRs: podCIDRs}
	for _, a := range addrs(b.NodePortAddrs...) {
		if !a.IsLoopback() {
			n.Addrs = append(n.Addrs, a)
		}
	}
	return n
}

func protocol(f upstream.Flow) model.Protocol {
	switch corev1.Protocol(f.Protocol) {
	case corev1.ProtocolUDP:
		return model.UDP
	case corev1.ProtocolSCTP:
		return model.SCTP
	}
	return model.TCP
}
