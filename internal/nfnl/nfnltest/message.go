//go:build linux

package nfnltest

import (
	"bytes"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"minato/internal/nfnl"
)

// message applies one message, and returns the kernel's error number where the state does not allow it.
func (k *Kernel) message(m nfnl.Message) unix.Errno {
	name := str(nfnl.Attr(m.Body, 1)) // the table's name, in every kind of message
	switch m.Op {
	case unix.NFT_MSG_NEWTABLE:
		k.addTable(m, name)
		return 0
	case unix.NFT_MSG_DELTABLE:
		if k.tables[m.Family][name] == nil {
			return unix.ENOENT
		}
		removeKey(k, k.tables[m.Family], name)
		return 0
	}
	t := k.tables[m.Family][name]
	if t == nil {
		return unix.ENOENT
	}
	switch m.Op {
	case unix.NFT_MSG_NEWCHAIN:
		k.addChain(t, nfnl.DecodeChain(m.Family, m.Body))
		return 0
	case unix.NFT_MSG_DELCHAIN:
		return k.deleteChain(t, str(nfnl.Attr(m.Body, unix.NFTA_CHAIN_NAME)))
	case unix.NFT_MSG_NEWRULE:
		return k.addRule(t, nfnl.DecodeRule(m.Family, m.Body), m.Flags&unix.NLM_F_APPEND != 0)
	case unix.NFT_MSG_DELRULE:
		return k.deleteRules(t, nfnl.DecodeRule(m.Family, m.Body))
	case unix.NFT_MSG_NEWSET:
		return k.addSet(t, nfnl.DecodeSet(m.Family, m.Body))
	case unix.NFT_MSG_NEWSETELEM, unix.NFT_MSG_DELSETELEM:
		s := t.sets[str(nfnl.Attr(m.Body, unix.NFTA_SET_ELEM_LIST_SET))]
		if s == nil {
			return unix.ENOENT
		}
		return k.elements(t, s, m)
	}
	panic(fmt.Sprintf("nfnltest: message %d is not known here", m.Op))
}

func str(b []byte) string {
	if i := slices.Index(b, 0); i >= 0 {
		b = b[:i]
	}
	return string(b)
}

func (k *Kernel) addTable(m nfnl.Message, name string) {
	if k.tables[m.Family] == nil {
		k.tables[m.Family] = map[string]*table{}
	}
	if k.tables[m.Family][name] == nil {
		t := &table{comment: nfnl.DecodeTable(m.Family, m.Body).Comment, chains: map[string]*chain{}, sets: map[string]*set{}}
		setKey(k, k.tables[m.Family], name, t)
	}
}

func (k *Kernel) addChain(t *table, c nfnl.Chain) {
	if t.chains[c.Name] == nil {
		setKey(k, t.chains, c.Name, &chain{Chain: c})
	}
}

func (k *Kernel) deleteChain(t *table, name string) unix.Errno {
	c := t.chains[name]
	switch {
	case c == nil:
		return unix.ENOENT
	case c.uses > 0 || len(c.rules) > 0:
		return unix.EBUSY
	}
	removeKey(k, t.chains, name)
	return 0
}

// lead counts that something leads to a chain, which must be there.
func (k *Kernel) lead(t *table, v *nfnl.Verdict, by int) unix.Errno {
	if v == nil || v.Chain == "" {
		return 0
	}
	c := t.chains[v.Chain]
	if c == nil {
		return unix.ENOENT
	}
	c.uses += by
	k.onUndo(func() { c.uses -= by })
	return 0
}

func (k *Kernel) addRule(t *table, r nfnl.Rule, last bool) unix.Errno {
	c := t.chains[r.Chain]
	if c == nil {
		return unix.ENOENT
	}
	if errno := k.checkRule(t, &r); errno != 0 {
		return errno
	}
	k.handle++
	r.Handle = k.handle
	before := c.rules
	k.onUndo(func() { c.rules = before })
	if last {
		c.rules = append(slices.Clone(before), &r)
	} else {
		c.rules = append([]*nfnl.Rule{&r}, before...)
	}
	return 0
}

// checkRule looks at the sets and chains that a rule names.
func (k *Kernel) checkRule(t *table, r *nfnl.Rule) unix.Errno {
	for _, e := range r.Exprs {
		switch e.Name {
		case "lookup", "dynset":
			s := t.sets[str(nfnl.Attr(e.Data, 1))]
			if s == nil {
				return unix.ENOENT
			}
			if nfnl.Attr(e.Data, unix.NFTA_LOOKUP_DREG) != nil && e.Name == "lookup" && s.Flags&nfnl.Map == 0 {
				panic("nfnltest: look-up of data in a set without any: " + s.Name)
			}
		case "immediate":
			if errno := k.lead(t, verdictOf(e), 1); errno != 0 {
				return errno
			}
		}
	}
	return 0
}

func verdictOf(e nfnl.Expr) *nfnl.Verdict {
	_, v := nfnl.DecodeData(nfnl.Attr(e.Data, unix.NFTA_IMMEDIATE_DATA))
	return v
}

func (k *Kernel) deleteRules(t *table, r nfnl.Rule) unix.Errno {
	c := t.chains[r.Chain]
	if c == nil {
		return unix.ENOENT
	}
	before := c.rules
	var kept []*nfnl.Rule
	for _, x := range before {
		if r.Handle != 0 && x.Handle != r.Handle {
			kept = append(kept, x)
			continue
		}
		for _, e := range x.Exprs {
			if e.Name == "immediate" {
				k.lead(t, verdictOf(e), -1)
			}
		}
	}
	if r.Handle != 0 && len(kept) == len(before) {
		return unix.ENOENT
	}
	k.onUndo(func() { c.rules = before })
	c.rules = kept
	return 0
}

func (k *Kernel) addSet(t *table, s nfnl.Set) unix.Errno {
	if old := t.sets[s.Name]; old != nil {
		if old.Set != s {
			return unix.EEXIST
		}
		return 0
	}
	setKey(k, t.sets, s.Name, &set{Set: s, elements: map[string]element{}})
	return 0
}

func (k *Kernel) elements(t *table, s *set, m nfnl.Message) unix.Errno {
	list := nfnl.Attr(m.Body, unix.NFTA_SET_ELEM_LIST_ELEMENTS)
	if list == nil { // flush
		for key := range s.elements {
			k.deleteElement(t, s, key)
		}
		return 0
	}
	for _, x := range nfnl.Attrs(list) {
		e := clone(nfnl.DecodeElement(x))
		s.check(e, m.Op == unix.NFT_MSG_NEWSETELEM)
		key := elementKey(e)
		old, there := s.elements[key]
		switch {
		case m.Op == unix.NFT_MSG_DELSETELEM && !there:
			return unix.ENOENT
		case m.Op == unix.NFT_MSG_DELSETELEM:
			k.deleteElement(t, s, key)
		case there && !sameData(old.Element, e):
			return unix.EEXIST
		case !there:
			if errno := k.lead(t, e.Verdict, 1); errno != 0 {
				return errno
			}
			setKey(k, s.elements, key, element{e})
		}
	}
	return 0
}

func (k *Kernel) deleteElement(t *table, s *set, key string) {
	k.lead(t, s.elements[key].Verdict, -1)
	removeKey(k, s.elements, key)
}

func elementKey(e nfnl.Element) string {
	return fmt.Sprintf("%x %x %t %t", e.Key, e.KeyEnd, e.CatchAll, e.End)
}

func sameData(a, b nfnl.Element) bool {
	if a.Verdict != nil && b.Verdict != nil {
		return *a.Verdict == *b.Verdict
	}
	return bytes.Equal(a.Data, b.Data)
}

// check panics for an element that does not fit its set.
func (s *set) check(e nfnl.Element, add bool) {
	bad := func(why string) { panic(fmt.Sprintf("nfnltest: element %x of set %s: %s", e.Key, s.Name, why)) }
	if !e.CatchAll && len(e.Key) != int(s.KeyLen) {
		bad(fmt.Sprintf("key of %d bytes, not %d", len(e.Key), s.KeyLen))
	}
	if s.Flags&nfnl.Concatenated != 0 && len(e.KeyEnd) != int(s.KeyLen) {
		bad("no ends of its ranges")
	}
	if e.End && s.Flags&nfnl.Interval == 0 {
		bad("interval in a set without the flag")
	}
	if !add || e.End {
		return
	}
	switch {
	case s.Flags&nfnl.Map == 0 && (len(e.Data) > 0 || e.Verdict != nil):
		bad("data in a set")
	case s.Flags&nfnl.Map != 0 && s.DataType == nfnl.TypeVerdict && e.Verdict == nil:
		bad("no verdict")
	case s.Flags&nfnl.Map != 0 && s.DataType != nfnl.TypeVerdict && len(e.Data) != int(s.DataLen):
		bad(fmt.Sprintf("data of %d bytes, not %d", len(e.Data), s.DataLen))
	}
}
