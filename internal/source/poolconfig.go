package source

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
	corev1 "k8s.io/api/core/v1"

	"minato/internal/model"
)

// The ConfigMap that MetalLB read up to v0.12 (its internal/config/config.go), and the key in it.
const (
	PoolConfigNamespace = "metallb-system"
	PoolConfigName      = "config"
	poolConfigKey       = "config"
)

var poolConfigMap = ObjectName{PoolConfigNamespace, PoolConfigName}

// PoolConfig is the pools of one configuration. With an Err there are none.
type PoolConfig struct {
	Pools  []model.Pool
	Unused []string // parts that are understood and not served yet
	Err    error    // says where, in words for the user
}

// poolsOfConfigMap reads MetalLB's ConfigMap. It is pure.
func poolsOfConfigMap(o *corev1.ConfigMap) *PoolConfig {
	text, ok := o.Data[poolConfigKey]
	if !ok {
		found := slices.Sorted(maps.Keys(o.Data))
		return &PoolConfig{Err: fmt.Errorf("it has no key %q, only %q", poolConfigKey, found)}
	}
	c, err := parsePoolConfig(text)
	if err != nil {
		return &PoolConfig{Err: err}
	}
	return c
}

// parsePoolConfig reads the text strictly: a key that is not known is an error, since it may be the one that matters.
func parsePoolConfig(text string) (*PoolConfig, error) {
	var document, more yaml.Node
	d := yaml.NewDecoder(strings.NewReader(text))
	switch err := d.Decode(&document); {
	case errors.Is(err, io.EOF):
		return &PoolConfig{}, nil
	case err != nil:
		return nil, fmt.Errorf("it is not YAML: %s", strings.TrimPrefix(err.Error(), "yaml: "))
	}
	if err := d.Decode(&more); !errors.Is(err, io.EOF) {
		return nil, errors.New("it has more than one document: put all into the first")
	}
	p := poolParser{config: &PoolConfig{}}
	err := fields(document.Content[0], "the configuration", map[string]field{
		"address-pools":   func(n *yaml.Node) error { return each(n, "address-pools", p.pool) },
		"peers":           func(n *yaml.Node) error { return each(n, "peers", p.peer) },
		"bgp-communities": p.communities,
	})
	if err != nil {
		return nil, err
	}
	return p.config, nil
}

// poolParser gathers what a configuration says.
type poolParser struct{ config *PoolConfig }

func (p *poolParser) unused(n *yaml.Node, format string, v ...any) {
	p.config.Unused = append(p.config.Unused, fmt.Sprintf("line %d: %s", n.Line, fmt.Sprintf(format, v...)))
}

func (p *poolParser) pool(n *yaml.Node) error {
	pool := model.Pool{AutoAssign: true}
	var protocol string
	var addresses, advertisements *yaml.Node
	err := fields(n, "a pool", map[string]field{
		"name":               into(&pool.Name),
		"protocol":           into(&protocol),
		"auto-assign":        into(&pool.AutoAssign),
		"avoid-buggy-ips":    into(&pool.AvoidBuggyIPs),
		"addresses":          func(n *yaml.Node) error { addresses = n; return nil },
		"bgp-advertisements": func(n *yaml.Node) error { advertisements = n; return each(n, "bgp-advertisements", p.advertisement) },
	})
	if err != nil {
		return err
	}
	switch {
	case pool.Name == "":
		return at(n, "a pool has no name")
	case slices.ContainsFunc(p.config.Pools, func(o model.Pool) bool { return o.Name == pool.Name }):
		return at(n, "duplicate definition of pool %q", pool.Name)
	case addresses == nil:
		return at(n, "pool %q has no addresses", pool.Name)
	}
	switch protocol {
	case "layer2":
		if advertisements != nil {
			return at(advertisements, "pool %q is a layer2 pool and cannot have bgp-advertisements", pool.Name)
		}
	case "bgp":
		pool.Protocol = model.BGP
		p.unused(n, "pool %q has protocol bgp, which is not served yet: no address of it is given", pool.Name)
	default:
		return at(n, "pool %q has an unknown protocol %q, known are layer2 and bgp", pool.Name, protocol)
	}
	err = each(addresses, "addresses", func(n *yaml.Node) error { return p.addRange(&pool, n) })
	if err == nil && len(pool.Ranges) == 0 {
		err = at(addresses, "pool %q has no addresses", pool.Name)
	}
	p.config.Pools = append(p.config.Pools, pool)
	return err
}

// addRange adds one entry of addresses. Two that overlap are an error, as in MetalLB.
func (p *poolParser) addRange(pool *model.Pool, n *yaml.Node) error {
	var s string
	if err := into(&s)(n); err != nil {
		return err
	}
	r, err := parseRange(s)
	if err != nil {
		return at(n, "pool %q: %w", pool.Name, err)
	}
	for _, other := range append(slices.Clone(p.config.Pools), *pool) {
		for _, o := range other.Ranges {
			if r.Overlaps(o) {
				return at(n, "pool %q: %s overlaps with %s of pool %q", pool.Name, s, o, other.Name)
			}
		}
	}
	pool.Ranges = append(pool.Ranges, r)
	return nil
}

// parseRange reads FIRST-LAST or a CIDR.
func parseRange(s string) (model.AddrRange, error) {
	var none model.AddrRange
	first, last, isRange := strings.Cut(s, "-")
	if !isRange {
		prefix, err := netip.ParsePrefix(strings.TrimSpace(s))
		if err != nil {
			return none, fmt.Errorf("%q is neither a range FIRST-LAST nor a CIDR", s)
		}
		prefix = prefix.Masked()
		return model.AddrRange{First: prefix.Addr(), Last: lastAddr(prefix)}, nil
	}
	a, errA := netip.ParseAddr(strings.TrimSpace(first))
	b, errB := netip.ParseAddr(strings.TrimSpace(last))
	switch {
	case errA != nil || errB != nil:
		return none, fmt.Errorf("%q is not a range FIRST-LAST of addresses", s)
	case a.Is4() != b.Is4():
		return none, fmt.Errorf("%q begins and ends in different families", s)
	case b.Less(a):
		return none, fmt.Errorf("%q ends before it begins", s)
	}
	return model.AddrRange{First: a, Last: b}, nil
}

func lastAddr(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

// The parts for BGP are read as strictly as the rest, and not used.

func (p *poolParser) peer(n *yaml.Node) error {
	p.unused(n, "peers are not served yet")
	return fields(n, "a peer", map[string]field{
		"my-asn": ignored, "peer-asn": ignored, "peer-address": ignored, "peer-port": ignored, "hold-time": ignored,
		"router-id": ignored, "password": ignored, "node-selectors": func(n *yaml.Node) error {
			return each(n, "node-selectors", func(n *yaml.Node) error {
				return fields(n, "a node selector", map[string]field{"match-labels": ignored, "match-expressions": ignored})
			})
		},
	})
}

func (p *poolParser) advertisement(n *yaml.Node) error {
	p.unused(n, "bgp-advertisements are not served yet")
	return fields(n, "an advertisement", map[string]field{"aggregation-length": ignored, "localpref": ignored, "communities": ignored})
}

func (p *poolParser) communities(n *yaml.Node) error {
	p.unused(n, "bgp-communities are not served yet")
	return nil
}
