package source

import (
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"minato/internal/model"
)

// LoadBalancerDefaults is what this machine knows of load balancing before anybody configures it.
type LoadBalancerDefaults struct {
	Pools    []model.Pool   // in force while there is no configuration; may be empty
	Networks []netip.Prefix // of the nodes' links
	Taken    []netip.Addr   // of other machines there
}

// balancing is everything that model.LoadBalancing is made of. Snapshots have it once both kinds of object were read.
type balancing struct {
	defaults LoadBalancerDefaults
	config   *PoolConfig // of the newest ConfigMap; nil when there is none
	good     *PoolConfig // the last without an error
	rivals   map[ObjectName]bool
	read     balancingKind
	dirty    bool
	shown    *model.LoadBalancing // in the newest snapshot
}

type balancingKind uint8

const (
	readPools balancingKind = 1 << iota
	readRivals
)

// SetLoadBalancerDefaults says what holds while nothing is configured. It is for the start.
func (b *Batch) SetLoadBalancerDefaults(d LoadBalancerDefaults) {
	b.w.balancing.defaults = d
	b.w.balancing.dirty = true
}

// SetPools takes over a configuration. One with an error leaves the last good one in force.
func (b *Batch) SetPools(c *PoolConfig) {
	b.w.balancing.config = c
	if c.Err == nil {
		b.w.balancing.good = c
	}
	b.w.balancing.dirty = true
}

// DeletePools records that the ConfigMap is gone. Others are nothing to it.
func (b *Batch) DeletePools(n ObjectName) {
	if n == poolConfigMap {
		b.noPools()
	}
}

func (b *Batch) noPools() {
	b.w.balancing.config, b.w.balancing.good = nil, nil
	b.w.balancing.dirty = true
}

// ReplacePools makes all, which has at most one, the complete list of configurations.
func (b *Batch) ReplacePools(all []*PoolConfig) {
	b.w.balancing.read |= readPools
	if len(all) == 0 {
		b.noPools()
	}
	for _, c := range all {
		b.SetPools(c)
	}
}

// Rival is a pod of another load balancer that is running and ready.
type Rival struct{ Pod ObjectName }

// SetRival records a rival.
func (b *Batch) SetRival(r Rival) {
	b.w.balancing.rivals[r.Pod] = true
	b.w.balancing.dirty = true
}

// DeleteRival records that a pod is gone, or no longer ready.
func (b *Batch) DeleteRival(n ObjectName) {
	delete(b.w.balancing.rivals, n)
	b.w.balancing.dirty = true
}

// ReplaceRivals makes all the complete list of rivals.
func (b *Batch) ReplaceRivals(all []Rival) {
	b.w.balancing.read |= readRivals
	clear(b.w.balancing.rivals)
	for _, r := range all {
		b.SetRival(r)
	}
	b.w.balancing.dirty = true
}

// Pools converts the ConfigMap of the name PoolConfigName; ok is false for any other. It is pure.
func Pools(o *corev1.ConfigMap) (c *PoolConfig, ok bool) {
	if (ObjectName{o.Namespace, o.Name}) != poolConfigMap {
		return nil, false
	}
	return poolsOfConfigMap(o), true
}

// RivalLabels select the pods of MetalLB, in the manifests of all its releases.
const RivalLabels = "app=metallb"

// RivalPod converts a pod with RivalLabels; ok is false while it is not ready.
func RivalPod(o *corev1.Pod) (r Rival, ok bool) {
	for _, c := range o.Status.Conditions {
		if c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue && o.DeletionTimestamp == nil {
			return Rival{ObjectName{o.Namespace, o.Name}}, true
		}
	}
	return Rival{}, false
}

// changed reports whether the next snapshot needs another model.LoadBalancing, which it prepares.
func (s *balancing) changed() bool {
	if !s.dirty || s.read != readPools|readRivals {
		return false
	}
	s.dirty = false
	next := s.build()
	if reflect.DeepEqual(next, s.shown) {
		return false
	}
	s.shown = next
	return true
}

func (s *balancing) build() *model.LoadBalancing {
	l := &model.LoadBalancing{Networks: s.defaults.Networks, Taken: s.defaults.Taken}
	const origin = "ConfigMap " + PoolConfigNamespace + "/" + PoolConfigName
	switch {
	case s.config == nil && len(s.defaults.Pools) > 0:
		l.Pools, l.Origin = s.defaults.Pools, "default, since there is no "+origin
	case s.config == nil:
		l.Origin = "nothing, since there is no " + origin
	case s.good != nil:
		l.Pools, l.Unused, l.Origin = s.good.Pools, s.good.Unused, origin
	default:
		l.Origin = origin + ", which was never good"
	}
	if s.config != nil && s.config.Err != nil {
		l.Problem = s.config.Err.Error()
	}
	if len(s.rivals) > 0 {
		namespaces := map[string]bool{}
		for n := range s.rivals {
			namespaces[n.Namespace] = true
		}
		l.Elsewhere = "MetalLB in namespace " + strings.Join(slices.Sorted(maps.Keys(namespaces)), ", ")
	}
	return l
}
