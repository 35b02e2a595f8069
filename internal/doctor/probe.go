//go:build linux

package doctor

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"minato/internal/netns"
	"minato/internal/nfnl"
)

// inThrowAway runs f in a network namespace that is gone afterwards.
func inThrowAway(f func(netns.NS) []Feature) []Feature {
	dir, err := os.MkdirTemp("", "minato-doctor-")
	if err != nil {
		return []Feature{{"a folder for a network namespace", err}}
	}
	defer os.Remove(dir)
	path := filepath.Join(dir, "netns")
	if err := netns.Create(path); err != nil {
		return []Feature{{"network namespaces", err}}
	}
	found := f(netns.At(path))
	if err := netns.Delete(path); err != nil {
		found = append(found, Feature{"to delete a network namespace", err})
	}
	return found
}

// trial is a table with whatever a feature needs in it.
type trial struct {
	name  string
	kind  string // of the base chain
	hook  nfnl.Hook
	set   *nfnl.Set
	exprs []nfnl.Expr
	ipv6  bool
}

const table, chain, set = "minato-doctor", "trial", "s"

func trials() []trial {
	key := nfnl.R(0)
	return []trial{
		{name: "rules", kind: "filter", hook: nfnl.Forward, exprs: []nfnl.Expr{nfnl.Counter()}},
		{name: "rules for IPv6", kind: "filter", hook: nfnl.Forward, ipv6: true, exprs: []nfnl.Expr{nfnl.Counter()}},
		{name: "maps", kind: "filter", hook: nfnl.Forward, set: &nfnl.Set{Flags: nfnl.Map, KeyType: nfnl.TypeMark, KeyLen: 4, DataType: nfnl.TypeMark, DataLen: 4},
			exprs: []nfnl.Expr{nfnl.Meta(nfnl.MetaL4Proto, key), nfnl.LookupMap(set, key, nfnl.R(4))}},
		{name: "verdict maps", kind: "filter", hook: nfnl.Forward, set: &nfnl.Set{Flags: nfnl.Map, KeyType: nfnl.TypeMark, KeyLen: 4, DataType: nfnl.TypeVerdict},
			exprs: []nfnl.Expr{nfnl.Meta(nfnl.MetaL4Proto, key), nfnl.LookupVerdict(set, key)}},
		{name: "numgen", kind: "filter", hook: nfnl.Forward, exprs: []nfnl.Expr{nfnl.Random(3, key)}},
		{name: "updates from packets", kind: "filter", hook: nfnl.Forward,
			set:   &nfnl.Set{Flags: nfnl.Map | nfnl.Timeout | nfnl.Dynamic, KeyType: nfnl.TypeMark, KeyLen: 4, DataType: nfnl.TypeMark, DataLen: 4, Size: 16},
			exprs: []nfnl.Expr{nfnl.Meta(nfnl.MetaL4Proto, key), nfnl.Dynset(set, nfnl.DynsetUpdate, key, key, 1000)}},
		{name: "connection tracking", kind: "filter", hook: nfnl.Forward, exprs: []nfnl.Expr{nfnl.Ct(nfnl.CtStatus, key)}},
		{name: "nat", kind: "nat", hook: nfnl.Prerouting, exprs: []nfnl.Expr{nfnl.Immediate(key, []byte{127, 0, 0, 1}), nfnl.DNATAddr(nfnl.IPv4, key)}},
		{name: "masquerade", kind: "nat", hook: nfnl.Postrouting, exprs: []nfnl.Expr{nfnl.Masquerade()}},
		{name: "reject", kind: "filter", hook: nfnl.Forward, exprs: []nfnl.Expr{nfnl.RejectPort(nfnl.IPv4)}},
	}
}

// Features tries what the rules of Services are made of.
func (Host) Features() []Feature {
	return inThrowAway(func(ns netns.NS) (found []Feature) {
		conn, err := nfnl.Open(ns)
		if err != nil {
			return []Feature{{"nf_tables", err}}
		}
		defer conn.Close()
		for _, t := range trials() {
			found = append(found, Feature{t.name, t.run(conn)})
		}
		return append(found, Feature{"SCTP", trySCTP()})
	})
}

func (t trial) run(conn *nfnl.Conn) error {
	family := nfnl.IPv4
	if t.ipv6 {
		family = nfnl.IPv6
	}
	b := nfnl.NewBatch()
	b.AddTable(nfnl.Table{Family: family, Name: table})
	b.AddChain(nfnl.Chain{Family: family, Table: table, Name: chain, Type: t.kind, Hook: t.hook, Priority: nfnl.PriorityFilter})
	if t.set != nil {
		t.set.Family, t.set.Table, t.set.Name = family, table, set
		b.AddSet(*t.set)
	}
	b.AddRule(nfnl.Rule{Family: family, Table: table, Chain: chain, Exprs: t.exprs})
	b.DeleteTable(family, table) // in one transaction with the rest: nothing is ever there
	return conn.Commit(b)
}

// trySCTP opens a socket. Services forward SCTP without it; pods cannot speak it.
func trySCTP() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_SCTP)
	if err == nil {
		unix.Close(fd)
	}
	return err
}

// Links tries what the network of nodes is made of.
func (Host) Links() []Feature {
	return inThrowAway(func(ns netns.NS) (found []Feature) {
		var h *netlink.Handle
		if err := ns.Do(func() (err error) { h, err = netlink.NewHandle(unix.NETLINK_ROUTE); return err }); err != nil {
			return []Feature{{"netlink", err}}
		}
		defer h.Close()
		bridge := netlink.NewLinkAttrs()
		bridge.Name = "br"
		one := netlink.NewLinkAttrs()
		one.Name = "one"
		return []Feature{
			{"bridge", h.LinkAdd(&netlink.Bridge{LinkAttrs: bridge})},
			{"veth", h.LinkAdd(&netlink.Veth{LinkAttrs: one, PeerName: "two"})},
			{"overlayfs", tryFilesystem("overlay")},
		}
	})
}

// tryFilesystem asks for a file system by its name, which loads its module, and mounts nothing.
func tryFilesystem(name string) error {
	fd, err := unix.Fsopen(name, unix.FSOPEN_CLOEXEC)
	if err != nil {
		return fmt.Errorf("file system %s: %w", name, err)
	}
	return unix.Close(fd)
}
