package oracle

import (
	"strings"
	"testing"

	"minato/test/oracle/upstream"
)

// exception is a packet of upstream's tests with which minato does something else, or which means nothing to it.
type exception struct {
	mode       string // of kube-proxy; empty: all
	test, flow string // the beginning of the test's name, and the flow's; empty: all
	applies    func(upstream.Block) bool
	sent       func(upstream.Flow) bool
	ours       string // what becomes of the packet here; empty: the case cannot be put to minato at all
	reason     string
}

const (
	leftAlone = "left alone"
	loopback  = "at loopback addresses a listener answers NodePorts, not rules (internal/dataplane/localhost)"
)

// exceptions are all of them. Each has to be met, and what it says has to be so.
var exceptions = []exception{
	{test: "TestTracePacket", reason: "it tests upstream's own interpreter of rules, with rules and no Services"},
	{applies: func(b upstream.Block) bool { return b.MasqueradeAll },
		reason: "there is no setting that hides the clients of all ClusterIPs"},
	{applies: func(b upstream.Block) bool { return !b.KnowsPods && !b.MasqueradeAll && len(b.Services) > 0 },
		reason: "a node always knows its pods, by the pod ranges of its Node object"},
	{mode: "iptables", test: "TestClusterIPGeneral", flow: "TCP-only port does not match UDP traffic", ours: "REJECT",
		reason: "ports of a ClusterIP that are none are refused, as in nftables mode"},
	{mode: "iptables", test: "TestClusterIPGeneral", flow: "svc1 does not accept svc2's ports", ours: "REJECT",
		reason: "ports of a ClusterIP that are none are refused, as in nftables mode"},
	{mode: "iptables", test: "TestNodePorts", flow: "localhost to nodePort gets masqueraded", ours: leftAlone, reason: loopback},
	{mode: "iptables", test: "TestInternalExternalMasquerade", flow: "localhost to NodePort", ours: leftAlone, reason: loopback},
	{mode: "iptables", test: "TestInternalExternalMasquerade", flow: "localhost to NodePort with eTP:Local", ours: leftAlone, reason: loopback},
	{mode: "iptables", test: "TestInternalExternalMasquerade", flow: "localhost to NodePort with iTP:Local", ours: leftAlone, reason: loopback},
	{mode: "iptables", test: "TestHealthCheckNodePort", flow: "firewall accepts HealthCheckNodePort", ours: leftAlone,
		reason: "no rule has to accept what no rule drops"},
}

// exceptional finds the exception of a packet, nil when there is none.
func exceptional(among []exception, b upstream.Block, f upstream.Flow) *exception {
	for i := range among {
		e := &among[i]
		if (e.mode == "" || e.mode == b.Suite) && strings.HasPrefix(b.Test, e.test) && (e.flow == "" || e.flow == f.Name) && (e.applies == nil || e.applies(b)) &&
			(e.sent == nil || e.sent(f)) {
			return e
		}
	}
	return nil
}

func TestEveryExceptionIsMet(t *testing.T) {
	met := map[*exception]bool{}
	for _, b := range mustBlocks(t) {
		for _, f := range b.Flows {
			met[exceptional(exceptions, b, f)] = true
		}
	}
	for i := range exceptions {
		if e := &exceptions[i]; !met[e] {
			t.Errorf("no packet of upstream is excepted because %s", e.reason)
		}
	}
}
