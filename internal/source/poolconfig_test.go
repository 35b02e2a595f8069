package source_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"minato/internal/model"
	"minato/internal/source"
)

// pools reads the text of MetalLB's ConfigMap.
func pools(t *testing.T, text string) *source.PoolConfig {
	t.Helper()
	return poolsOf(t, map[string]string{"config": text})
}

func poolsOf(t *testing.T, data map[string]string) *source.PoolConfig {
	t.Helper()
	c, ok := source.Pools(&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "metallb-system", Name: "config"}, Data: data})
	if !ok {
		t.Fatal("not taken for the configuration")
	}
	return c
}

// example is that of MetalLB v0.7.3 with everything in it.
const example = `peers:
- my-asn: 64500
  peer-asn: 64501
  peer-address: 10.0.0.1
  peer-port: 179
  hold-time: 120s
  router-id: 10.0.0.2
  password: secret
  node-selectors:
  - match-labels: {rack: one}
    match-expressions: [{key: a, operator: In, values: [b]}]
bgp-communities: {no-advertise: "65535:65282"}
address-pools:
- name: lan
  protocol: layer2
  auto-assign: false
  avoid-buggy-ips: true
  addresses:
  - 192.0.2.100-192.0.2.200
  - 198.51.100.77/25
  - 2001:db8::/126
- name: routed
  protocol: bgp
  addresses: [203.0.113.0/24]
  bgp-advertisements:
  - {aggregation-length: 32, localpref: 100, communities: [no-advertise]}
`

func TestEverythingOfMetalLBsConfigurationIsUnderstood(t *testing.T) {
	c := pools(t, example)
	if c.Err != nil {
		t.Fatal(c.Err)
	}
	var got []string
	for _, p := range c.Pools {
		for _, r := range p.Ranges {
			got = append(got, p.Name+" "+p.Protocol.String()+" "+r.String())
		}
	}
	want := []string{"lan layer2 192.0.2.100-192.0.2.200", "lan layer2 198.51.100.0-198.51.100.127", "lan layer2 2001:db8::-2001:db8::3", "routed bgp 203.0.113.0-203.0.113.255"}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
	if lan := c.Pools[0]; lan.AutoAssign || !lan.AvoidBuggyIPs || !c.Pools[1].AutoAssign {
		t.Errorf("flags: %+v", c.Pools)
	}
	unused := []string{
		"line 2: peers are not served yet",
		"line 12: bgp-communities are not served yet",
		"line 26: bgp-advertisements are not served yet",
		`line 22: pool "routed" has protocol bgp, which is not served yet: no address of it is given`,
	}
	if d := cmp.Diff(unused, c.Unused); d != "" {
		t.Errorf("unused (-want +got):\n%s", d)
	}
}

func TestAConfigurationIsReadStrictly(t *testing.T) {
	const pool = "address-pools:\n- name: a\n  protocol: layer2\n"
	for _, tt := range []struct{ name, text, want string }{
		{"no YAML", "address-pools: [", "it is not YAML: line 1:"},
		{"two documents", "peers: []\n---\naddress-pools: []\n", "it has more than one document"},
		{"not a mapping", "- a\n", "line 1: the configuration must be a mapping"},
		{"unknown key", "address-pool: []\n", `line 1: unknown key "address-pool", the configuration has the keys address-pools, bgp-communities, peers`},
		{"unknown key of a pool", pool + "  adresses: []\n", `line 4: unknown key "adresses", a pool has the keys`},
		{"unknown key of a peer", "peers:\n- {my-as: 1}\n", `line 2: unknown key "my-as", a peer has the keys`},
		{"unknown key of a node selector", "peers: [{node-selectors: [{labels: {}}]}]\n", `line 1: unknown key "labels", a node selector has the keys`},
		{"unknown key of an advertisement", "address-pools: [{bgp-advertisements: [{pref: 1}]}]\n", `line 1: unknown key "pref", an advertisement has the keys`},
		{"a key twice", pool + "  name: b\n", `line 4: key "name" is there twice`},
		{"no list", "address-pools: {}\n", "line 1: address-pools must be a list"},
		{"no name", "address-pools:\n- protocol: layer2\n  addresses: [192.0.2.1/32]\n", "line 2: a pool has no name"},
		{"no protocol", "address-pools:\n- name: a\n  addresses: [192.0.2.1/32]\n", `line 2: pool "a" has an unknown protocol ""`},
		{"no addresses", pool, `line 2: pool "a" has no addresses`},
		{"empty addresses", pool + "  addresses: []\n", `line 4: pool "a" has no addresses`},
		{"two of a name", pool + "  addresses: [192.0.2.1/32]\n- {name: a, protocol: layer2, addresses: [192.0.2.2/32]}\n", `line 5: duplicate definition of pool "a"`},
		{"no address", pool + "  addresses:\n  - here\n", `line 5: pool "a": "here" is neither a range FIRST-LAST nor a CIDR`},
		{"no range", pool + "  addresses: [192.0.2.1-5]\n", `pool "a": "192.0.2.1-5" is not a range FIRST-LAST of addresses`},
		{"a range backwards", pool + "  addresses: [192.0.2.9-192.0.2.1]\n", `"192.0.2.9-192.0.2.1" ends before it begins`},
		{"a range of two families", pool + "  addresses: [192.0.2.9-2001:db8::1]\n", "begins and ends in different families"},
		{"a list for an address", pool + "  addresses: [[192.0.2.1/32]]\n", `line 4: "" is not a string`},
		{"overlap in a pool", pool + "  addresses: [192.0.2.0/24, 192.0.2.9-192.0.2.10]\n", `pool "a": 192.0.2.9-192.0.2.10 overlaps with 192.0.2.0-192.0.2.255 of pool "a"`},
		{
			"overlap of pools", pool + "  addresses: [192.0.2.9-192.0.2.10]\n- name: b\n  protocol: bgp\n  addresses: [192.0.2.0/24]\n",
			`line 7: pool "b": 192.0.2.0/24 overlaps with 192.0.2.9-192.0.2.10 of pool "a"`,
		},
		{"a word for a switch", pool + "  auto-assign: sometimes\n", `line 4: "sometimes" is not a bool`},
		{"advertisements of a layer2 pool", pool + "  addresses: [192.0.2.1/32]\n  bgp-advertisements: [{localpref: 1}]\n", `line 5: pool "a" is a layer2 pool and cannot have bgp-advertisements`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := pools(t, tt.text)
			if c.Err == nil || !strings.Contains(c.Err.Error(), tt.want) || len(c.Pools) > 0 {
				t.Errorf("got  %v with %d pools\nwant %s", c.Err, len(c.Pools), tt.want)
			}
		})
	}
}

func TestAConfigMapWithoutTheKeyIsAnError(t *testing.T) {
	if err := poolsOf(t, map[string]string{"config.yaml": example}).Err; err == nil || err.Error() != `it has no key "config", only ["config.yaml"]` {
		t.Errorf("got %v", err)
	}
}

func TestAnEmptyConfigurationHasNoPools(t *testing.T) {
	for _, text := range []string{"", "# nothing yet\n", "address-pools:\n"} {
		if c := pools(t, text); c.Err != nil || len(c.Pools) > 0 {
			t.Errorf("%q: %v, %d pools", text, c.Err, len(c.Pools))
		}
	}
}

func FuzzPools(f *testing.F) {
	f.Add(example)
	f.Add("address-pools: &a [*a]\n")
	f.Fuzz(func(t *testing.T, text string) {
		c := pools(t, text)
		for i, p := range c.Pools {
			for _, r := range p.Ranges {
				if r.First.Is6() != r.Last.Is6() || r.Last.Less(r.First) {
					t.Errorf("range %s", r)
				}
				for _, other := range c.Pools[:i] {
					for _, o := range other.Ranges {
						if r.Overlaps(o) {
							t.Errorf("%s and %s overlap", r, o)
						}
					}
				}
			}
		}
	})
}

func TestTheLastGoodConfigurationStaysInForce(t *testing.T) {
	def := model.Pool{Name: "default"}
	name := func(b *source.Builder) string {
		l := b.Current().LoadBalancing
		var names []string
		for _, p := range l.Pools {
			names = append(names, p.Name)
		}
		return strings.Join(names, ",") + " " + l.Problem
	}
	good := pools(t, "address-pools: [{name: lan, protocol: layer2, addresses: [192.0.2.0/24]}]\n")
	bad := pools(t, "address-pools: 1\n")
	const problem = "line 1: address-pools must be a list"
	for _, tt := range []struct {
		name  string
		steps []*source.PoolConfig // nil: the ConfigMap is deleted
		want  string
	}{
		{"no configuration", nil, "default "},
		{"a good one", []*source.PoolConfig{good}, "lan "},
		{"a bad one after a good one", []*source.PoolConfig{good, bad}, "lan " + problem},
		{"a good one after a bad one", []*source.PoolConfig{bad, good}, "lan "},
		{"a bad one from the start is not the default", []*source.PoolConfig{bad}, " " + problem},
		{"deleted", []*source.PoolConfig{good, nil}, "default "},
		{"a bad one after a deletion", []*source.PoolConfig{good, nil, bad}, " " + problem},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := complete()
			b.Update(func(batch *source.Batch) {
				batch.SetLoadBalancerDefaults(source.LoadBalancerDefaults{Pools: []model.Pool{def}})
				batch.ReplacePools(nil)
				batch.ReplaceRivals(nil)
			})
			for _, c := range tt.steps {
				b.Update(func(batch *source.Batch) {
					if c != nil {
						batch.SetPools(c)
					} else {
						batch.DeletePools(source.ObjectName{Namespace: "metallb-system", Name: "config"})
					}
				})
			}
			if got := name(b); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestPoolsAreUnknownUntilConfigurationAndRivalsWereRead(t *testing.T) {
	b := complete()
	b.Update(func(batch *source.Batch) { batch.SetPools(pools(t, example)) })
	b.Update(func(batch *source.Batch) { batch.ReplacePools(nil) })
	if b.Current().LoadBalancing != nil {
		t.Error("known before it was asked who else serves")
	}
	b.Update(func(batch *source.Batch) { batch.ReplaceRivals(nil) })
	if b.Current().LoadBalancing == nil {
		t.Error("not known")
	}
}

func TestAnotherLoadBalancerIsSeenWhileAPodOfItIsReady(t *testing.T) {
	pod := func(ready corev1.ConditionStatus) *corev1.Pod {
		return &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Namespace: "metallb-system", Name: "speaker-1"},
			Status:     corev1.PodStatus{Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: ready}}},
		}
	}
	if _, ok := source.RivalPod(pod(corev1.ConditionFalse)); ok {
		t.Error("a pod that is not ready serves")
	}
	rival, ok := source.RivalPod(pod(corev1.ConditionTrue))
	if !ok {
		t.Fatal("a ready pod does not serve")
	}
	b := complete()
	b.Update(func(batch *source.Batch) {
		batch.ReplacePools(nil)
		batch.ReplaceRivals([]source.Rival{rival})
	})
	if got := b.Current().LoadBalancing.Elsewhere; got != "MetalLB in namespace metallb-system" {
		t.Errorf("got %q", got)
	}
	before := b.Current().Revision
	b.Update(func(batch *source.Batch) { batch.SetRival(rival) }) // its heartbeat
	if b.Current().Revision != before {
		t.Error("a heartbeat made a revision")
	}
	b.Update(func(batch *source.Batch) { batch.DeleteRival(rival.Pod) })
	if got := b.Current().LoadBalancing.Elsewhere; got != "" {
		t.Errorf("still %q", got)
	}
}

func TestOtherConfigMapsAreNothing(t *testing.T) {
	for _, o := range []metav1.ObjectMeta{{Namespace: "metallb-system", Name: "kube-root-ca.crt"}, {Namespace: "default", Name: "config"}} {
		if _, ok := source.Pools(&corev1.ConfigMap{ObjectMeta: o}); ok {
			t.Errorf("%s/%s is taken for the configuration", o.Namespace, o.Name)
		}
	}
	b := complete()
	b.Update(func(batch *source.Batch) {
		batch.ReplacePools([]*source.PoolConfig{pools(t, example)})
		batch.ReplaceRivals(nil)
	})
	b.Update(func(batch *source.Batch) {
		batch.DeletePools(source.ObjectName{Namespace: "metallb-system", Name: "other"})
	})
	if len(b.Current().LoadBalancing.Pools) != 2 {
		t.Error("the deletion of another ConfigMap took the pools away")
	}
}
