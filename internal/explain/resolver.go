package explain

import (
	"slices"
	"strings"

	"minato/internal/model"
)

// defaultNdots is in every pod's resolv.conf: names with fewer dots go through the search path first.
const defaultNdots = 5

// resolver is what a place's resolv.conf says.
type resolver struct {
	cluster bool // the cluster's DNS is asked
	search  []string
	ndots   int
	why     string // of what is not usual
	advice  string // where the cluster's DNS is not asked
}

func (r resolver) String() string {
	var s string
	if len(r.search) > 0 {
		s = "search " + strings.Join(r.search, " ")
	} else {
		s = "no search path"
	}
	if r.ndots != defaultNdots {
		s += ", names with fewer than " + plural(r.ndots, "dot")
	}
	if r.why != "" {
		s += " (" + r.why + ")"
	}
	return s
}

// resolver follows the kubelet's rules for a pod's resolv.conf (pkg/kubelet/network/dns). Nodes and machines outside
// have none that knows the cluster.
func (w World) resolver(o Origin) resolver {
	pod := o.pod
	if pod == nil {
		pod = &model.Pod{DNSPolicy: "ClusterFirst"}
		if o.Kind != fromPod {
			return resolver{}
		}
	}
	policy := pod.DNSPolicy
	r := resolver{cluster: true, ndots: defaultNdots}
	switch {
	case policy == "None":
		r = resolver{ndots: 1, why: "dnsPolicy None: dnsConfig alone counts", advice: "leave dnsPolicy out, or put the cluster's DNS into dnsConfig.nameservers"}
		r.cluster = slices.ContainsFunc(pod.Nameservers, w.isClusterDNS)
	case policy == "Default":
		r = resolver{ndots: 1, search: w.NodeSearch, why: "dnsPolicy Default: as the node", advice: "set dnsPolicy: ClusterFirst"}
	case pod.HostNetwork && policy != "ClusterFirstWithHostNet":
		r = resolver{ndots: 1, search: w.NodeSearch, why: "hostNetwork, and dnsPolicy " + policy + ": as the node", advice: "set dnsPolicy: ClusterFirstWithHostNet"}
	default:
		r.search = append([]string{o.namespace + ".svc." + w.Zone.Domain, "svc." + w.Zone.Domain, w.Zone.Domain}, w.NodeSearch...)
	}
	r.search = appendNew(r.search, pod.Searches)
	if pod.Ndots > 0 {
		r.ndots = pod.Ndots
	}
	return r
}

func (w World) isClusterDNS(server string) bool {
	for name := range w.Except {
		if s := w.Snapshot.Service(name); s != nil && len(s.ClusterIPs) > 0 && s.ClusterIPs[0].String() == server {
			return true
		}
	}
	return false
}

func appendNew(have, more []string) []string {
	have = slices.Clone(have)
	for _, s := range more {
		if s = strings.TrimSuffix(s, "."); !slices.Contains(have, s) {
			have = append(have, s)
		}
	}
	return have
}

// searched lists the fully qualified names in the order in which resolvers try them.
func (r resolver) searched(name string) []string {
	if absolute, ok := strings.CutSuffix(name, "."); ok {
		return []string{absolute}
	}
	var names []string
	for _, suffix := range r.search {
		names = append(names, strings.TrimSuffix(name+"."+suffix, "."))
	}
	if strings.Count(name, ".") >= r.ndots {
		return slices.Insert(names, 0, name)
	}
	return append(names, name)
}
