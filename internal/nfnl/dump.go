//go:build linux

package nfnl

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/maphash"
	"slices"

	"golang.org/x/sys/unix"
)

// ErrChanged says that the list changed while it was read.
var ErrChanged = errors.New("changed while being read")

// Tables lists the tables of a family.
func (c *Conn) Tables(f Family) (out []Table, err error) {
	err = c.dump(unix.NFT_MSG_GETTABLE, f, nil, func() { out = nil }, func(b []byte) {
		out = append(out, DecodeTable(f, b))
	})
	return out, wrap(err, "list tables of family %s", f)
}

// DecodeTable reads the attributes of a message about a table, as the other Decode functions do for theirs.
func DecodeTable(f Family, b []byte) Table {
	return Table{Family: f, Name: getStr(Attr(b, unix.NFTA_TABLE_NAME)), Comment: getComment(Attr(b, tableUserdata))}
}

// Chains lists the chains of a table; none when the table is not there.
func (c *Conn) Chains(f Family, table string) (out []Chain, err error) {
	err = c.dump(unix.NFT_MSG_GETCHAIN, f, nil, func() { out = nil }, func(b []byte) {
		if getStr(Attr(b, unix.NFTA_CHAIN_TABLE)) == table {
			out = append(out, DecodeChain(f, b))
		}
	})
	return out, wrap(err, "list chains of table %s", table)
}

// DecodeChain reads a chain.
func DecodeChain(f Family, b []byte) Chain {
	ch := Chain{Family: f}
	for t, v := range Attrs(b) {
		switch t {
		case unix.NFTA_CHAIN_TABLE:
			ch.Table = getStr(v)
		case unix.NFTA_CHAIN_NAME:
			ch.Name = getStr(v)
		case unix.NFTA_CHAIN_TYPE:
			ch.Type = getStr(v)
		case unix.NFTA_CHAIN_HOOK:
			ch.Hook = Hook(getU32(Attr(v, unix.NFTA_HOOK_HOOKNUM)))
			ch.Priority = int32(getU32(Attr(v, unix.NFTA_HOOK_PRIORITY)))
		}
	}
	return ch
}

// Rules lists the rules of a chain in their order, or of all chains of the table when chain is empty.
func (c *Conn) Rules(f Family, table, chain string) (out []Rule, err error) {
	var req attrs
	req.str(unix.NFTA_RULE_TABLE, table)
	if chain != "" {
		req.str(unix.NFTA_RULE_CHAIN, chain)
	}
	err = c.dump(unix.NFT_MSG_GETRULE, f, req, func() { out = nil }, func(b []byte) {
		out = append(out, DecodeRule(f, b))
	})
	return out, wrap(err, "list rules of table %s", table)
}

// DecodeRule reads a rule. The expressions are copied.
func DecodeRule(f Family, b []byte) Rule {
	r := Rule{Family: f}
	for t, v := range Attrs(b) {
		switch t {
		case unix.NFTA_RULE_TABLE:
			r.Table = getStr(v)
		case unix.NFTA_RULE_CHAIN:
			r.Chain = getStr(v)
		case unix.NFTA_RULE_HANDLE:
			r.Handle = getU64(v)
		case unix.NFTA_RULE_USERDATA:
			r.Comment = getComment(v)
		case unix.NFTA_RULE_EXPRESSIONS:
			for _, x := range Attrs(v) {
				data := Attr(x, unix.NFTA_EXPR_DATA)
				r.Exprs = append(r.Exprs, Expr{getStr(Attr(x, unix.NFTA_EXPR_NAME)), append([]byte(nil), data...)})
			}
		}
	}
	return r
}

// Sets lists the sets of a table.
func (c *Conn) Sets(f Family, table string) (out []Set, err error) {
	var req attrs
	req.str(unix.NFTA_SET_TABLE, table)
	err = c.dump(unix.NFT_MSG_GETSET, f, req, func() { out = nil }, func(b []byte) {
		out = append(out, DecodeSet(f, b))
	})
	return out, wrap(err, "list sets of table %s", table)
}

// DecodeSet reads a set.
func DecodeSet(f Family, b []byte) Set {
	s := Set{Family: f}
	for t, v := range Attrs(b) {
		switch t {
		case unix.NFTA_SET_TABLE:
			s.Table = getStr(v)
		case unix.NFTA_SET_NAME:
			s.Name = getStr(v)
		case unix.NFTA_SET_FLAGS:
			s.Flags = SetFlags(getU32(v))
		case unix.NFTA_SET_KEY_TYPE:
			s.KeyType = Type(getU32(v))
		case unix.NFTA_SET_KEY_LEN:
			s.KeyLen = getU32(v)
		case unix.NFTA_SET_DATA_TYPE:
			s.DataType = Type(getU32(v))
		case unix.NFTA_SET_DATA_LEN:
			s.DataLen = getU32(v)
		case unix.NFTA_SET_DESC:
			s.Size = getU32(Attr(v, unix.NFTA_SET_DESC_SIZE))
			i := 0
			for _, f := range Attrs(Attr(v, setDescConcat)) {
				s.Fields[min(i, len(s.Fields)-1)] = getU32(Attr(f, setFieldLen))
				i++
			}
		case unix.NFTA_SET_TIMEOUT:
			s.DefaultTimeoutMS = getU64(v)
		}
	}
	return s
}

// Count is the number of a set's elements, as the kernel itself counts them: with those that are about to be forgotten.
// It takes a few microseconds, whatever the size. ok is false where the kernel does not say (6.18 does, 6.1 does not), or where
// the set is not there.
func (c *Conn) Count(f Family, table, set string) (n int, ok bool, err error) {
	var req attrs
	req.str(unix.NFTA_SET_TABLE, table)
	req.str(unix.NFTA_SET_NAME, set)
	c.mu.Lock()
	defer c.mu.Unlock()
	err = c.request(unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_GETSET, 0, f, req, func(b []byte) {
		if v := Attr(b, setCount); len(v) == 4 {
			n, ok = int(getU32(v)), true
		}
	})
	if errors.Is(err, unix.ENOENT) {
		return 0, false, nil
	}
	return n, ok, wrap(err, "count elements of %s %s", table, set)
}

// Elements calls yield for every element of a set. The element's memory is valid only during the call. When the
// set changes meanwhile the dump starts again: restart is called, and yield sees every element anew. A set that
// packets change all the time may never hold still: then the error is [ErrChanged].
func (c *Conn) Elements(f Family, table, set string, restart func(), yield func(Element)) error {
	var req attrs
	req.str(unix.NFTA_SET_ELEM_LIST_TABLE, table)
	req.str(unix.NFTA_SET_ELEM_LIST_SET, set)
	var seen distinct
	err := c.dump(unix.NFT_MSG_GETSETELEM, f, req, func() { seen = seen[:0]; restart() }, func(b []byte) {
		for _, x := range Attrs(Attr(b, unix.NFTA_SET_ELEM_LIST_ELEMENTS)) {
			e := DecodeElement(x)
			seen.add(e)
			yield(e)
		}
	}, seen.check)
	return wrap(err, "list elements of %s %s", table, set)
}

// Element looks one element of a set up, by the key; ok is false where there is none. It shares no memory.
func (c *Conn) Element(f Family, table, set string, key []byte) (e Element, ok bool, err error) {
	var req attrs
	req.str(unix.NFTA_SET_ELEM_LIST_TABLE, table)
	req.str(unix.NFTA_SET_ELEM_LIST_SET, set)
	list := req.open(unix.NFTA_SET_ELEM_LIST_ELEMENTS)
	item := req.open(unix.NFTA_LIST_ELEM)
	k := req.open(unix.NFTA_SET_ELEM_KEY)
	req.raw(unix.NFTA_DATA_VALUE, key)
	req.close(k)
	req.close(item)
	req.close(list)
	c.mu.Lock()
	defer c.mu.Unlock()
	err = c.request(unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_GETSETELEM, 0, f, req, func(b []byte) {
		for _, x := range Attrs(Attr(b, unix.NFTA_SET_ELEM_LIST_ELEMENTS)) {
			e, ok = DecodeElement(bytes.Clone(x)), true
		}
	})
	if errors.Is(err, unix.ENOENT) {
		return Element{}, false, nil
	}
	return e, ok, wrap(err, "look up an element of %s %s", table, set)
}

// distinct tells a whole dump from one that the growing of the set's hash table reordered between two messages: the
// kernel skips as many elements as it has sent, so that for each one left out another comes twice, and says nothing.
type distinct []uint64

var seed = maphash.MakeSeed()

func (d *distinct) add(e Element) {
	var h maphash.Hash
	h.SetSeed(seed)
	h.Write(e.Key)
	h.Write(e.KeyEnd)
	if e.End {
		h.WriteByte(1) // an interval may end at the key at which the next one starts
	}
	*d = append(*d, h.Sum64())
}

func (d *distinct) check() error {
	slices.Sort(*d)
	if n := len(*d); len(slices.Compact(*d)) < n {
		return ErrChanged
	}
	return nil
}

// DecodeElement reads one element. The element shares b's memory.
func DecodeElement(b []byte) (e Element) {
	for t, v := range Attrs(b) {
		switch t {
		case unix.NFTA_SET_ELEM_KEY:
			e.Key = Attr(v, unix.NFTA_DATA_VALUE)
		case setElemKeyEnd:
			e.KeyEnd = Attr(v, unix.NFTA_DATA_VALUE)
		case unix.NFTA_SET_ELEM_DATA:
			e.Data, e.Verdict = DecodeData(v)
		case unix.NFTA_SET_ELEM_FLAGS:
			f := getU32(v)
			e.CatchAll, e.End = f&elemCatchAll != 0, f&unix.NFT_SET_ELEM_INTERVAL_END != 0
		case unix.NFTA_SET_ELEM_TIMEOUT:
			e.Timeout = getU64(v)
		case unix.NFTA_SET_ELEM_EXPIRATION:
			e.Expires = getU64(v)
		case unix.NFTA_SET_ELEM_USERDATA:
			e.Comment = getComment(v)
		case unix.NFTA_SET_ELEM_EXPR:
			e.Counted = getStr(Attr(v, unix.NFTA_EXPR_NAME)) == "counter"
			e.Packets = getU64(Attr(Attr(v, unix.NFTA_EXPR_DATA), unix.NFTA_COUNTER_PACKETS))
		}
	}
	return e
}

// DecodeData reads data: a value or a verdict.
func DecodeData(b []byte) ([]byte, *Verdict) {
	if v := Attr(b, unix.NFTA_DATA_VERDICT); v != nil {
		return nil, &Verdict{
			Code:  VerdictCode(int32(getU32(Attr(v, unix.NFTA_VERDICT_CODE)))),
			Chain: getStr(Attr(v, unix.NFTA_VERDICT_CHAIN)),
		}
	}
	return Attr(b, unix.NFTA_DATA_VALUE), nil
}

func wrap(err error, format string, a ...any) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("netfilter: "+format+": %w", append(a, err)...)
}

// dump asks for a list and calls each for the attributes of every part. Another change of the ruleset in between
// spoils it (NLM_F_DUMP_INTR, or what one of checks says of the whole): then it starts again.
func (c *Conn) dump(op uint16, f Family, req attrs, restart func(), each func([]byte), checks ...func() error) (err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for range interrupted {
		restart()
		err = c.request(unix.NFNL_SUBSYS_NFTABLES<<8|op, unix.NLM_F_DUMP, f, req, each)
		for _, check := range checks {
			if err == nil {
				err = check()
			}
		}
		if !errors.Is(err, ErrChanged) && !errors.Is(err, unix.EINTR) {
			return err
		}
	}
	return err
}

// request sends a request and calls each for every part of the answer. One that is no dump ends with its first part.
func (c *Conn) request(typ, flags uint16, f Family, req attrs, each func([]byte)) error {
	c.seq++
	m := make([]byte, 20, 20+len(req))
	binary.NativeEndian.PutUint32(m, uint32(20+len(req)))
	binary.NativeEndian.PutUint16(m[4:], typ)
	binary.NativeEndian.PutUint16(m[6:], unix.NLM_F_REQUEST|flags)
	binary.NativeEndian.PutUint32(m[8:], c.seq)
	m[16] = byte(f)
	if err := unix.Sendto(c.fd, append(m, req...), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	var spoilt error
	for {
		n, _, err := unix.Recvfrom(c.fd, c.buf, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return err
		}
		for b := c.buf[:n]; len(b) >= 16; {
			l := int(binary.NativeEndian.Uint32(b))
			if l < 16 || l > len(b) {
				return fmt.Errorf("part of %d bytes in an answer of %d", l, len(b))
			}
			if binary.NativeEndian.Uint32(b[8:]) == c.seq {
				if binary.NativeEndian.Uint16(b[6:])&unix.NLM_F_DUMP_INTR != 0 {
					spoilt = ErrChanged
				}
				done, err := part(b[:l], each)
				if err != nil || done || flags&unix.NLM_F_DUMP == 0 {
					return errors.Join(err, spoilt)
				}
			}
			b = b[min((l+3)&^3, len(b)):]
		}
	}
}

// part takes one message of a dump. A set or a table that is not there ends it with ENOENT, which is returned.
func part(m []byte, each func([]byte)) (done bool, err error) {
	switch binary.NativeEndian.Uint16(m[4:]) {
	case unix.NLMSG_DONE, unix.NLMSG_ERROR:
		if len(m) >= 20 {
			if code := int32(binary.NativeEndian.Uint32(m[16:])); code < 0 {
				return true, unix.Errno(-code)
			}
		}
		return true, nil
	}
	if len(m) > 20 {
		each(m[20:])
	}
	return false, nil
}

// Generation reads the version of the namespace's whole ruleset: it grows by one with each batch that changes
// something, whoever sends it, and is never 0. It takes a few microseconds, whatever the size of the ruleset.
func (c *Conn) Generation() (id uint32, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	err = c.request(unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_GETGEN, 0, 0, nil, func(b []byte) { id = getU32(Attr(b, unix.NFTA_GEN_ID)) })
	return id, wrap(err, "read the generation")
}
