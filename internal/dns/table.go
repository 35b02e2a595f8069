package dns

import (
	"context"
	"hash/maphash"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"

	"minato/internal/model"
)

// Table is the names of one node's view of the cluster. Views are for any number of readers at any time; Withdraw
// and Publish are the phases of package apply, and one caller at a time runs them.
type Table struct {
	tree atomic.Pointer[tree]

	mu   sync.Mutex
	zone *zone
	base *model.Snapshot // what was last published
	// Services whose names are not those of base: withdrawn and not yet published again, or held.
	odd map[model.ServiceName]records
	// plans remembers the records of large Services of base, which otherwise each change would compute again.
	plans map[*model.Service]records
	round round

	restored bool // the names are of another process: only a complete snapshot replaces them
}

// round is what the phases of one snapshot share.
type round struct {
	next       *model.Snapshot // nil: nothing is known
	changes    []change
	namespaces []string // that came or went
}

// change is one Service that may show other records than now.
type change struct {
	name          model.ServiceName
	old, new      *model.Service // in base and in next
	shown, wanted records
}

const largePlan = 64 // names

// NewTable makes an empty table. It answers SERVFAIL where it would say NXDOMAIN until a complete snapshot is
// published.
func NewTable(z Zone) (*Table, error) {
	wz, err := newZone(z)
	if err != nil {
		return nil, err
	}
	t := &Table{zone: wz, base: model.Empty(), odd: map[model.ServiceName]records{}, plans: map[*model.Service]records{}}
	t.tree.Store(t.bare().t)
	return t, nil
}

// bare starts a tree with the names that do not come from Services.
func (t *Table) bare() *edit {
	e := (&tree{zone: t.zone, seed: maphash.MakeSeed()}).edit()
	for _, l := range []string{"svc", "pod", "dns"} {
		e.put(&entry{name: t.zone.under(l)})
	}
	version := &entry{name: t.zone.under("dns-version")}
	version.add(rrset{qtype: TypeTXT, answers: 1, whole: true, body: appendName(nil, TypeTXT, 28800, "\x051.1.0")})
	e.put(version)
	t.nameserver(e, nil)
	return e
}

// SetOptions changes the options in one step for all names. It is rare, and goes over all Services.
func (t *Table) SetOptions(o Options) {
	t.mu.Lock()
	defer t.mu.Unlock()
	z := *t.zone
	z.options, z.ttl = o, o.ttl()
	t.zone = &z
	clear(t.plans)
	t.round = round{}
	old, e := t.tree.Load(), t.bare()
	t.nameserver(e, t.serviceAddrs())
	for ns := range t.base.Namespaces() {
		t.refer(e, ns, 1)
	}
	for s := range t.base.Services() {
		if _, odd := t.odd[s.Name]; !odd {
			t.change(e, s.Name.Namespace, records{}, t.plan(s, t.base.Node))
		}
	}
	for name, shown := range t.odd {
		t.change(e, name.Namespace, records{}, shown)
	}
	e.t.revision, e.t.complete = old.revision, old.complete
	t.tree.Store(e.t)
}

// serviceAddrs are the addresses that the DNS Service has in the table.
func (t *Table) serviceAddrs() []netip.Addr {
	name := t.zone.service
	if r, odd := t.odd[name]; odd {
		return r.addrs(t.zone.under(name.Name, name.Namespace, "svc"))
	}
	return clusterIPs(t.base.Service(name))
}

func clusterIPs(s *model.Service) []netip.Addr {
	if s == nil {
		return nil
	}
	return s.ClusterIPs
}

// nameserver names the server of the zone: the DNS Service where it has addresses, else ns.dns below the domain.
func (t *Table) nameserver(e *edit, service []netip.Addr) {
	host, addrs := t.zone.under("ns", "dns"), t.zone.addrs
	ns := named{name: host}
	if len(service) > 0 {
		host, addrs = t.zone.under(t.zone.service.Name, t.zone.service.Namespace, "svc"), service
	}
	r := rrset{qtype: TypeNS, answers: 1, whole: true, body: appendName(nil, TypeNS, t.zone.ttl, host)}
	target := uint16(headerLen + len(t.zone.domain) + 4 + len(r.body) - len(host))
	for _, a := range addrs {
		ns.items = append(ns.items, item{addr: a})
		r.body = appendAddr(r.body, 0xC000|target, t.zone.ttl, a)
		r.extra++
	}
	e.put(render(ns, t.zone.ttl))
	apex := &entry{name: t.zone.domain}
	apex.add(r)
	e.put(apex)
}

// Name is the component's name in reports of package apply.
func (t *Table) Name() string { return "dns" }

// Domain is the cluster domain with its final dot.
func (t *Table) Domain() string { return text(t.tree.Load().zone.domain) }

// Ready reports whether a complete snapshot was published, and if not, why.
func (t *Table) Ready() (ok bool, reason string) {
	if t.tree.Load().complete {
		return true, ""
	}
	return false, "waiting for the first complete reading of Services"
}

// Revision is the number of the snapshot that was last published.
func (t *Table) Revision() uint64 { return t.tree.Load().revision }

// Withdraw takes away what next no longer has. A name whose contents change wholly keeps the old ones until Publish:
// they stay programmed until after it (phase reap), and a name that is gone in between would be remembered as gone.
// Nothing is taken away for a snapshot that is not complete.
func (t *Table) Withdraw(ctx context.Context, next *model.Snapshot) error {
	if err := ctx.Err(); err != nil || !next.Complete {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	var e *edit // mostly nothing goes
	changes := t.roundTo(next).changes
	for i := range changes {
		c := &changes[i]
		kept := narrow(c.shown, c.wanted)
		if kept.equal(c.shown) {
			continue
		}
		if e == nil {
			e = t.tree.Load().edit()
		}
		t.change(e, c.name.Namespace, c.shown, kept)
		t.odd[c.name], c.shown = kept, kept
	}
	if e != nil {
		t.tree.Store(e.t)
	}
	return nil
}

// Publish makes the table say what next says, but for Services that are held because their programming failed: these
// keep what they have, and are taken up by the first Publish that no longer holds them.
func (t *Table) Publish(ctx context.Context, next *model.Snapshot, held func(model.ServiceName) bool) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.restored && !next.Complete {
		return nil // it knows less than what was restored
	}
	e := t.tree.Load().edit()
	r := t.roundTo(next)
	if placeOf(t.base.Node) != placeOf(next.Node) {
		clear(t.plans)
	}
	t.odd = map[model.ServiceName]records{} // one that was large is slow to go through even when it is empty
	for _, c := range r.changes {
		delete(t.plans, c.old)
		if c.new != nil && len(c.wanted.names) >= largePlan {
			t.plans[c.new] = c.wanted
		}
		if held != nil && held(c.name) {
			t.odd[c.name] = c.shown
			continue
		}
		t.change(e, c.name.Namespace, c.shown, c.wanted)
		if c.name == t.zone.service {
			t.nameserver(e, clusterIPs(c.new))
		}
	}
	for _, ns := range r.namespaces {
		t.refer(e, ns, existence(next.HasNamespace(ns))-existence(t.base.HasNamespace(ns)))
	}
	t.base, t.round, t.restored = next, round{}, false
	e.t.revision = next.Revision
	e.t.complete = e.t.complete || next.Complete
	t.tree.Store(e.t)
	return nil
}

// roundTo finds every Service that may show others than the records it has in next: those that differ, and those that
// do not show what base says.
func (t *Table) roundTo(next *model.Snapshot) *round {
	if t.round.next == next {
		return &t.round
	}
	diff := model.Diff(t.base, next)
	r := round{next: next, namespaces: diff.Namespaces, changes: make([]change, 0, len(diff.Services))}
	for _, c := range diff.Services {
		r.changes = append(r.changes, t.changeOf(c.Name, next))
	}
	moved := placeOf(t.base.Node) != placeOf(next.Node)
	if len(t.odd) == 0 && !moved {
		t.round = r
		return &t.round
	}
	listed := make(map[model.ServiceName]bool, len(diff.Services))
	add := func(n model.ServiceName) {
		if !listed[n] {
			listed[n] = true
			r.changes = append(r.changes, t.changeOf(n, next))
		}
	}
	for _, c := range diff.Services {
		listed[c.Name] = true
	}
	for name := range t.odd {
		add(name)
	}
	for s := range next.Services() {
		if !moved { // rare: this node got another zone
			break
		}
		if s.Headless && (s.PreferSameNode || s.PreferSameZone) {
			add(s.Name)
		}
	}
	t.round = r
	return &t.round
}

func (t *Table) changeOf(n model.ServiceName, next *model.Snapshot) change {
	c := change{name: n, old: t.base.Service(n), new: next.Service(n)}
	c.wanted = t.zone.recordsOf(c.new, next.Node)
	if shown, ok := t.odd[n]; ok {
		c.shown = shown
	} else {
		c.shown = t.plan(c.old, t.base.Node)
	}
	return c
}

// place is what the order of answers depends on.
type place struct{ node, zone string }

func placeOf(n *model.Node) place {
	if n == nil {
		return place{}
	}
	return place{n.Name, n.Zone}
}

// plan is recordsOf for a Service of base, which may be remembered.
func (t *Table) plan(s *model.Service, n *model.Node) records {
	if r, ok := t.plans[s]; ok {
		return r
	}
	return t.zone.recordsOf(s, n)
}

// change replaces the records of one Service. Names with equal contents are not touched.
func (t *Table) change(e *edit, namespace string, from, to records) {
	i := 0
	for _, n := range to.names {
		for ; i < len(from.names) && from.names[i].name < n.name; i++ {
			e.delete(from.names[i].name)
		}
		if i < len(from.names) && from.names[i].name == n.name {
			if i++; from.names[i-1].equal(n) {
				continue
			}
		}
		e.put(render(n, e.t.zone.ttl))
	}
	for ; i < len(from.names); i++ {
		e.delete(from.names[i].name)
	}
	for _, p := range from.pointers {
		if _, ok := slices.BinarySearchFunc(to.pointers, p, pointer.compare); !ok {
			point(e, p, false)
		}
	}
	for _, p := range to.pointers {
		if _, ok := slices.BinarySearchFunc(from.pointers, p, pointer.compare); !ok {
			point(e, p, true)
		}
	}
	t.refer(e, namespace, existence(len(to.names) > 0)-existence(len(from.names) > 0))
}

func existence(yes bool) int {
	if yes {
		return 1
	}
	return 0
}

// point adds or removes one pointer of an address that several Services may name.
func point(e *edit, p pointer, add bool) {
	name := reverseName(p.addr)
	var ps []pointer
	if old := e.find(name); old != nil {
		ps = slices.Clone(old.pointers)
	}
	ps = slices.DeleteFunc(ps, func(o pointer) bool { return o == p })
	if add {
		ps = append(ps, p)
	}
	if len(ps) == 0 {
		e.delete(name)
		return
	}
	e.put(pointersEntry(name, ps, e.t.zone.ttl))
}

// refer counts what makes a namespace's names exist: the namespace itself and every Service in it that has names.
func (t *Table) refer(e *edit, namespace string, delta int) {
	for _, kind := range []string{"svc", "pod"} {
		name := t.zone.under(namespace, kind)
		hidden := !t.zone.options.exposed(namespace) || kind == "pod" && t.zone.options.Pods == PodsDisabled
		if name == "" || delta == 0 || hidden {
			continue
		}
		refs := delta
		if old := e.find(name); old != nil {
			refs += old.refs
		}
		if refs == 0 {
			e.delete(name)
		} else {
			e.put(&entry{name: name, refs: refs})
		}
	}
}

// View is one state of the table. It is cheap to take and does not change.
type View struct{ tree *tree }

// View returns the present state.
func (t *Table) View() View { return View{t.tree.Load()} }
