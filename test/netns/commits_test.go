//go:build linux

package netns_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"minato/internal/dataplane/nftables/kernel"
	"minato/internal/model"
	"minato/internal/netns/netnstest"
	"minato/internal/nfnl"
)

// counted is a kernel that counts the elements of each commit.
type counted struct {
	*nfnl.Conn
	commits []int
}

func (c *counted) Commit(b *nfnl.Batch) error {
	n := 0
	for m := range b.Messages() {
		if m.Op == unix.NFT_MSG_NEWSETELEM || m.Op == unix.NFT_MSG_DELSETELEM {
			n += elementsIn(m.Body)
		}
	}
	c.commits = append(c.commits, n)
	return c.Conn.Commit(b)
}

// elementsIn counts the elements of a message.
func elementsIn(attrs []byte) (n int) {
	each(attrs, func(kind uint16, list []byte) {
		if kind == unix.NFTA_SET_ELEM_LIST_ELEMENTS {
			each(list, func(uint16, []byte) { n++ })
		}
	})
	return n
}

// each goes over netlink attributes.
func each(attrs []byte, yield func(kind uint16, value []byte)) {
	for len(attrs) >= 4 {
		size, kind := int(binary.NativeEndian.Uint16(attrs)), binary.NativeEndian.Uint16(attrs[2:])
		yield(kind&^unix.NLA_F_NESTED, attrs[4:size])
		attrs = attrs[min((size+3)&^3, len(attrs)):]
	}
}

// Nobody waits for the kernel's lock longer than 20,000 elements take, and those of the Service that fills a commit.
func TestLargeChangesAreCommittedInParts(t *testing.T) {
	const services, limit, each = 5000, 20000, 50
	w := newWorld(t)
	k := &counted{}
	w.through(func(c *nfnl.Conn) kernel.Kernel { k.Conn = c; return k })
	var all []*model.Service
	for i := range services {
		all = append(all, w.service(fmt.Sprint("s", i), 100+i, func(s *model.Service) { s.Frontends = s.Frontends[:1] }, "10.244.1.2",
			fmt.Sprintf("10.245.%d.1", i%250), fmt.Sprintf("10.245.%d.2", i%250), fmt.Sprintf("10.245.%d.3", i%250)))
	}
	changes := func(what string, change func()) {
		t.Helper()
		k.commits = nil
		before, err := k.Generation()
		if err != nil {
			t.Fatal(err)
		}
		change()
		after, err := k.Generation()
		if err != nil {
			t.Fatal(err)
		}
		sum := 0
		for _, n := range k.commits {
			sum += n
			if n > limit+each {
				t.Errorf("%s: a commit of %d elements", what, n)
			}
		}
		t.Logf("%s: commits of %v elements", what, k.commits)
		if sum < 2*limit || int(after-before) < sum/(limit+each) {
			t.Errorf("%s: %d elements in %d generations", what, sum, after-before)
		}
	}
	changes("all at once", func() { w.apply(all...) })
	changes("all gone", func() {
		w.snap = w.snap.With(func(e *model.Edit) {
			for _, s := range all {
				e.DeleteService(s.Name)
			}
		}).On(w.self)
		w.programmed()
	})
}

// rival is a kernel in which somebody is faster than we are: just before a commit that has to do with an address,
// another program adds elements for it, and deletes them again when we have seen them.
type rival struct {
	*nfnl.Conn
	addr        []byte
	add, delete *nfnl.Batch // nil: done, or not to be done
	seen        bool        // since add
}

func (r *rival) Elements(f nfnl.Family, table, set string, restart func(), yield func(nfnl.Element)) error {
	r.seen = r.add == nil
	return r.Conn.Elements(f, table, set, restart, yield)
}

func (r *rival) Commit(b *nfnl.Batch) error {
	now := &r.add
	if r.seen {
		now = &r.delete
	}
	for m := range b.Messages() {
		if *now != nil && bytes.Contains(m.Body, r.addr) {
			err := r.Conn.Commit(*now)
			*now = nil
			if err != nil {
				return err
			}
		}
	}
	return r.Conn.Commit(b)
}

// Of a Service about whose elements somebody else disputes, the kernel refuses the changes. It takes those of the other
// Services in the same commit, and of this one when the dispute is over.
func TestServiceThatTheKernelRefusesDoesNotHoldUpTheOthers(t *testing.T) {
	w := newWorld(t)
	w.serve(2, 3)
	w.apply(w.service("web", 1, nil, "10.244.1.2"))
	k := &rival{addr: []byte{10, 96, 0, 3}}
	w.through(func(c *nfnl.Conn) kernel.Kernel { k.Conn = c; return k })
	w.programmed()
	var others []nfnl.Element
	if err := k.Elements(nfnl.IPv4, kernel.DefaultTable, "svc", func() { others = nil }, func(e nfnl.Element) {
		if web := []byte{10, 96, 0, 1}; bytes.Contains(e.Key, web) {
			key := bytes.Replace(e.Key, web, k.addr, 1)
			others = append(others, nfnl.Element{Key: key, Data: bytes.Clone(e.Data)})
		}
	}); err != nil || len(others) == 0 {
		t.Fatal(len(others), err)
	}
	k.add, k.delete, k.seen = nfnl.NewBatch(), nfnl.NewBatch(), false
	k.add.AddElements(nfnl.IPv4, kernel.DefaultTable, "svc", others...)
	k.delete.DeleteElements(nfnl.IPv4, kernel.DefaultTable, "svc", others...)
	broken := w.service("broken", 3, nil, "10.244.1.3")
	w.snap = w.snap.With(func(e *model.Edit) {
		for _, s := range []*model.Service{w.service("before", 2, nil, "10.244.1.3"), broken, w.service("later", 4, nil, "10.244.1.3")} {
			e.SetService(s)
		}
	}).On(w.self)
	failed, err := w.dp.Program(context.Background(), w.snap)
	var refusal *nfnl.Error
	if err != nil || len(failed) != 1 || !errors.As(failed[broken.Name], &refusal) {
		t.Errorf("failed %v, err %v", failed, err)
	}
	for _, at := range []string{"10.96.0.2:80", "10.96.0.4:80", nodeAddr + ":30002"} {
		if a := netnstest.MustAsk(t, w.outside, "tcp", at); a.Name != "10.244.1.3" {
			t.Errorf("%s is answered by %s", at, a.Name)
		}
	}
	w.observed(true)
	w.programmed()
	if a := netnstest.MustAsk(t, w.node, "tcp", "10.96.0.3:80"); a.Name != "10.244.1.3" {
		t.Errorf("answered by %s", a.Name)
	}
	if d := w.differences(); len(d) > 0 {
		t.Errorf("after: %v", d)
	}
}

// through starts an applier, as a new process would, that works through another kernel over the real one.
func (w *world) through(over func(*nfnl.Conn) kernel.Kernel) kernel.Kernel {
	w.t.Helper()
	w.dp.Close()
	conn, err := nfnl.Open(w.node)
	if err != nil {
		w.t.Fatal(err)
	}
	k := over(conn)
	dp, err := kernel.Open(kernel.Config{Kernel: k, ServiceCIDRs: []netip.Prefix{netip.MustParsePrefix("10.96.0.0/12"), netip.MustParsePrefix("fd00:96::/112")}})
	if err != nil {
		w.t.Fatal(err)
	}
	w.dp = dp
	w.t.Cleanup(func() { dp.Close() })
	return k
}
