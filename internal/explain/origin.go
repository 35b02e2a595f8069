package explain

import (
	"net/netip"
	"strings"

	"minato/internal/model"
)

// The kinds of Origin.
const (
	fromPod  = "pod"
	fromNode = "node"
	fromLAN  = "lan"
)

func (w World) origin(q Query) (Origin, error) {
	kind, rest, _ := strings.Cut(q.From, "/")
	switch {
	case q.From == "":
		return w.somePod(q.Namespace)
	case q.From == fromLAN:
		o := Origin{Kind: fromLAN, Name: fromLAN}
		if len(w.LAN) > 0 {
			o.Addr = w.LAN[0]
		}
		return o, nil
	case kind == fromPod && rest != "":
		return w.pod(rest, q.Namespace)
	case kind == fromNode && rest != "":
		n := w.Snapshot.NodeNamed(rest)
		if n == nil {
			return Origin{}, questionf("there is no node %q: `minato node list` shows those there are", rest)
		}
		o := Origin{Kind: fromNode, Name: n.Name, Node: n.Name, Addr: n.Addr(false)}
		if !o.Addr.IsValid() {
			o.Addr = n.Addr(true)
		}
		return o, nil
	}
	a, err := netip.ParseAddr(q.From)
	if err != nil {
		return Origin{}, questionf("cannot read --from %q: write pod/NAMESPACE/NAME, node/NAME, lan, or an address", q.From)
	}
	return w.at(a.Unmap()), nil
}

// somePod stands for any pod of a namespace, on the first node.
func (w World) somePod(namespace string) (Origin, error) {
	for n := range w.Snapshot.Nodes() {
		return Origin{Kind: fromPod, Node: n.Name, Assumed: true, namespace: namespace}, nil
	}
	return Origin{}, questionf("there is no node yet, so there is no pod to start from: `minato status` shows what is missing")
}

func (w World) pod(name, namespace string) (Origin, error) {
	if ns, n, ok := strings.Cut(name, "/"); ok {
		namespace, name = ns, n
	}
	o := Origin{Kind: fromPod, Name: namespace + "/" + name, namespace: namespace}
	if w.Pods != nil {
		p, ok := w.Pods.Pod(namespace, name)
		if !ok {
			return o, questionf("there is no pod %s/%s: `kubectl get pods -n %s` shows those there are", namespace, name, namespace)
		}
		if !p.Addr.IsValid() {
			return o, questionf("pod %s/%s has no address yet: `kubectl -n %s describe pod %s` says what it waits for", namespace, name, namespace, name)
		}
		o.Addr, o.Node, o.pod = p.Addr, p.Node, &p
		if p.HostNetwork {
			o.Kind = fromNode
		}
		return o, nil
	}
	if b := w.backend(func(b *model.Backend) bool { return b.Target == o.Name }); b != nil {
		o.Addr, o.Node = b.Addr.Addr(), b.NodeName
		return o, nil
	}
	return o, questionf("pod %s/%s is behind no Service, so its node is not known here: give --from ADDRESS or node/NAME", namespace, name)
}

// at says who has an address.
func (w World) at(a netip.Addr) Origin {
	if n := w.Snapshot.LocalNode(a); n != nil {
		return Origin{Kind: fromNode, Name: n.Name, Node: n.Name, Addr: a}
	}
	o := Origin{Kind: fromLAN, Addr: a}
	for n := range w.Snapshot.Nodes() {
		if n.IsLocal(a) && !a.IsLoopback() {
			o.Kind, o.Node, o.namespace = fromPod, n.Name, "default"
		}
	}
	if o.Kind != fromPod {
		return o
	}
	if w.Pods != nil {
		if p, ok := w.Pods.At(a); ok {
			o.Name, o.namespace, o.pod = p.Namespace+"/"+p.Name, p.Namespace, &p
			return o
		}
	}
	if b := w.backend(func(b *model.Backend) bool { return b.Addr.Addr() == a && b.Target != "" }); b != nil {
		o.Name = b.Target
		o.namespace, _, _ = strings.Cut(b.Target, "/")
	}
	return o
}

// backend finds the first backend of any Service for which is says yes.
func (w World) backend(is func(*model.Backend) bool) *model.Backend {
	for s := range w.Snapshot.Services() {
		for b := range s.AllBackends() {
			if is(b) {
				return b
			}
		}
	}
	return nil
}

func (o Origin) String() string {
	var b strings.Builder
	switch {
	case o.Assumed:
		b.WriteString("some pod of namespace " + o.namespace)
	case o.Kind == fromLAN && o.Name == "":
		return o.Addr.String() + ", outside the cluster"
	case o.Kind == fromLAN && o.Addr.IsValid():
		return "the LAN, " + o.Addr.String()
	case o.Kind == fromLAN:
		return "the LAN"
	case o.Kind == fromNode && o.Name != o.Node:
		b.WriteString("pod " + o.Name + ", in the network of " + o.Node)
	case o.Name != "":
		b.WriteString(o.Kind + " " + o.Name)
	default:
		b.WriteString("a " + o.Kind)
	}
	if o.Addr.IsValid() {
		b.WriteString(", " + o.Addr.String())
	}
	if o.Kind == fromPod {
		b.WriteString(", on " + o.Node)
	}
	if o.Assumed {
		b.WriteString(" (--from says another)")
	}
	return b.String()
}
