//go:build linux

package nfnl

import (
	"encoding/binary"
	"errors"
	"fmt"
	"iter"

	"golang.org/x/sys/unix"
)

// maxElements keeps a message's list of elements below the 64 KB which an attribute can hold.
const maxElements = 60000

// MaxComment is the most bytes of an element's comment, to keep within the 256 bytes of user data (NFT_USERDATA_MAXLEN).
const MaxComment = 250

// Batch is a list of changes that is applied as one transaction. The first error made while building sticks and
// comes out at Conn.Commit, so that building reads straight. It is for one goroutine.
type Batch struct {
	b     attrs
	start int   // of the message being written
	msgs  []int // offsets of messages
	err   error
}

// NewBatch starts an empty batch.
func NewBatch() *Batch {
	b := new(Batch)
	b.Reset()
	return b
}

// Reset empties the batch and keeps its memory.
func (b *Batch) Reset() {
	*b = Batch{b: b.b[:0], msgs: b.msgs[:0]}
	b.begin(unix.NFNL_MSG_BATCH_BEGIN, 0, 0, unix.NFNL_SUBSYS_NFTABLES)
	b.b.u32(unix.NFNL_BATCH_GENID, 0)
	b.end()
}

// expectation is where the first message has the generation.
const expectation = 24

// Expect lets the kernel refuse the batch, with ErrOtherGeneration, where the ruleset is at another generation, so that
// a change by somebody else is noticed. 0 is any.
func (b *Batch) Expect(generation uint32) {
	binary.BigEndian.PutUint32(b.b[expectation:], generation)
}

// Expected is what Expect has set, for fakes of the kernel.
func (b *Batch) Expected() uint32 { return binary.BigEndian.Uint32(b.b[expectation:]) }

// Len is the number of messages.
func (b *Batch) Len() int { return len(b.msgs) }

// Bytes is how much has been written.
func (b *Batch) Bytes() int { return len(b.b) }

func (b *Batch) fail(format string, a ...any) {
	if b.err == nil {
		b.err = fmt.Errorf("building a batch for nf_tables: "+format, a...)
	}
}

func (b *Batch) begin(typ, flags uint16, f Family, res uint16) {
	b.start = len(b.b)
	var h [20]byte
	binary.NativeEndian.PutUint16(h[4:], typ)
	binary.NativeEndian.PutUint16(h[6:], flags|unix.NLM_F_REQUEST)
	binary.NativeEndian.PutUint32(h[8:], uint32(len(b.msgs)))
	h[16] = byte(f)
	binary.BigEndian.PutUint16(h[18:], res)
	b.b = append(b.b, h[:]...)
}

func (b *Batch) end() {
	binary.NativeEndian.PutUint32(b.b[b.start:], uint32(len(b.b)-b.start))
}

// msg starts a message. Sequence numbers count from 1: the message at msgs[i] has i+1, the batch itself 0.
func (b *Batch) msg(op, flags uint16, f Family) {
	b.msgs = append(b.msgs, len(b.b))
	b.begin(unix.NFNL_SUBSYS_NFTABLES<<8|op, flags, f, 0)
}

// name appends a name attribute of 1 to 127 bytes (NFT_NAME_MAXLEN is 256, nft takes 128).
func (b *Batch) name(typ uint16, s string) {
	if s == "" || len(s) > 127 {
		b.fail("bad name %q", s)
	}
	b.b.str(typ, s)
}

// AddTable makes a table; one that is there stays as it is.
func (b *Batch) AddTable(t Table) {
	b.msg(unix.NFT_MSG_NEWTABLE, unix.NLM_F_CREATE, t.Family)
	b.name(unix.NFTA_TABLE_NAME, t.Name)
	b.b.comment(tableUserdata, t.Comment)
	b.end()
}

// DeleteTable deletes a table with everything in it. It must exist.
func (b *Batch) DeleteTable(f Family, name string) {
	b.msg(unix.NFT_MSG_DELTABLE, 0, f)
	b.name(unix.NFTA_TABLE_NAME, name)
	b.end()
}

// AddChain makes a chain; one that is there stays as it is.
func (b *Batch) AddChain(c Chain) {
	b.msg(unix.NFT_MSG_NEWCHAIN, unix.NLM_F_CREATE, c.Family)
	b.name(unix.NFTA_CHAIN_TABLE, c.Table)
	b.name(unix.NFTA_CHAIN_NAME, c.Name)
	if c.Type != "" {
		h := b.b.open(unix.NFTA_CHAIN_HOOK)
		b.b.u32(unix.NFTA_HOOK_HOOKNUM, uint32(c.Hook))
		b.b.u32(unix.NFTA_HOOK_PRIORITY, uint32(c.Priority))
		b.b.close(h)
		b.b.str(unix.NFTA_CHAIN_TYPE, c.Type)
	}
	b.end()
}

// DeleteChain deletes an empty chain that nothing goes to.
func (b *Batch) DeleteChain(f Family, table, chain string) {
	b.msg(unix.NFT_MSG_DELCHAIN, 0, f)
	b.name(unix.NFTA_CHAIN_TABLE, table)
	b.name(unix.NFTA_CHAIN_NAME, chain)
	b.end()
}

// AddRule puts a rule at the end of its chain.
func (b *Batch) AddRule(r Rule) { b.rule(r, unix.NLM_F_CREATE|unix.NLM_F_APPEND) }

// InsertRule puts a rule at the head of its chain.
func (b *Batch) InsertRule(r Rule) { b.rule(r, unix.NLM_F_CREATE) }

func (b *Batch) rule(r Rule, flags uint16) {
	if len(r.Comment) > 128 {
		b.fail("rule comment of %d bytes, 128 are allowed", len(r.Comment))
	}
	b.msg(unix.NFT_MSG_NEWRULE, flags, r.Family)
	b.name(unix.NFTA_RULE_TABLE, r.Table)
	b.name(unix.NFTA_RULE_CHAIN, r.Chain)
	l := b.b.open(unix.NFTA_RULE_EXPRESSIONS)
	for _, e := range r.Exprs {
		x := b.b.open(unix.NFTA_LIST_ELEM)
		b.b.str(unix.NFTA_EXPR_NAME, e.Name)
		if len(e.Data) > 0 {
			b.b.raw(unix.NFTA_EXPR_DATA|unix.NLA_F_NESTED, e.Data)
		}
		b.b.close(x)
	}
	b.b.close(l)
	b.b.comment(unix.NFTA_RULE_USERDATA, r.Comment)
	b.end()
}

// DeleteRule deletes the rule with r.Handle.
func (b *Batch) DeleteRule(r Rule) {
	if r.Handle == 0 {
		b.fail("delete rule of chain %s without a handle", r.Chain)
	}
	b.msg(unix.NFT_MSG_DELRULE, 0, r.Family)
	b.name(unix.NFTA_RULE_TABLE, r.Table)
	b.name(unix.NFTA_RULE_CHAIN, r.Chain)
	b.b.u64(unix.NFTA_RULE_HANDLE, r.Handle)
	b.end()
}

// FlushChain deletes all rules of a chain.
func (b *Batch) FlushChain(f Family, table, chain string) {
	b.msg(unix.NFT_MSG_DELRULE, 0, f)
	b.name(unix.NFTA_RULE_TABLE, table)
	b.name(unix.NFTA_RULE_CHAIN, chain)
	b.end()
}

// AddSet makes a set. One that is there must have the same key, data and flags.
func (b *Batch) AddSet(s Set) {
	b.msg(unix.NFT_MSG_NEWSET, unix.NLM_F_CREATE, s.Family)
	b.name(unix.NFTA_SET_TABLE, s.Table)
	b.name(unix.NFTA_SET_NAME, s.Name)
	b.b.u32(unix.NFTA_SET_FLAGS, uint32(s.Flags))
	b.b.u32(unix.NFTA_SET_KEY_TYPE, uint32(s.KeyType))
	b.b.u32(unix.NFTA_SET_KEY_LEN, s.KeyLen)
	if s.Flags&Map != 0 {
		b.b.u32(unix.NFTA_SET_DATA_TYPE, uint32(s.DataType))
		b.b.u32(unix.NFTA_SET_DATA_LEN, s.DataLen)
	}
	b.describeSet(s)
	b.b.u32(unix.NFTA_SET_ID, uint32(len(b.msgs)))
	if s.DefaultTimeoutMS > 0 {
		b.b.u64(unix.NFTA_SET_TIMEOUT, s.DefaultTimeoutMS)
	}
	b.b.raw(unix.NFTA_SET_USERDATA, byteOrders(s))
	b.end()
}

// describeSet writes the set's limit and the fields of its key.
func (b *Batch) describeSet(s Set) {
	if s.Size == 0 && s.Fields[0] == 0 {
		return
	}
	d := b.b.open(unix.NFTA_SET_DESC)
	if s.Size > 0 {
		b.b.u32(unix.NFTA_SET_DESC_SIZE, s.Size)
	}
	if s.Fields[0] > 0 {
		c := b.b.open(setDescConcat)
		for _, n := range s.Fields {
			if n > 0 {
				f := b.b.open(unix.NFTA_LIST_ELEM)
				b.b.u32(setFieldLen, n)
				b.b.close(f)
			}
		}
		b.b.close(c)
	}
	b.b.close(d)
}

// byteOrders tells nft in which byte order to print keys and data; without it numbers come out swapped.
func byteOrders(s Set) []byte {
	order := func(t Type) uint32 {
		if t == TypeMark {
			return 1 // the machine's
		}
		return 2 // big endian
	}
	u := binary.NativeEndian.AppendUint32([]byte{0, 4}, order(s.KeyType))
	return binary.NativeEndian.AppendUint32(append(u, 1, 4), order(s.DataType))
}

// FlushSet deletes all elements of a set.
func (b *Batch) FlushSet(f Family, table, set string) {
	b.msg(unix.NFT_MSG_DELSETELEM, 0, f)
	b.name(unix.NFTA_SET_ELEM_LIST_TABLE, table)
	b.name(unix.NFTA_SET_ELEM_LIST_SET, set)
	b.end()
}

// AddElements adds elements to a set. An equal element may be there; one with the same key and other data is an
// error (EEXIST), so what replaces another follows its deletion in the same batch.
func (b *Batch) AddElements(f Family, table, set string, es ...Element) {
	b.elements(unix.NFT_MSG_NEWSETELEM, unix.NLM_F_CREATE, f, table, set, es)
}

// DeleteElements deletes elements by key. They must exist.
func (b *Batch) DeleteElements(f Family, table, set string, es ...Element) {
	b.elements(unix.NFT_MSG_DELSETELEM, 0, f, table, set, es)
}

func (b *Batch) elements(op, flags uint16, f Family, table, set string, es []Element) {
	for len(es) > 0 {
		b.msg(op, flags, f)
		b.name(unix.NFTA_SET_ELEM_LIST_TABLE, table)
		b.name(unix.NFTA_SET_ELEM_LIST_SET, set)
		l := b.b.open(unix.NFTA_SET_ELEM_LIST_ELEMENTS)
		n := 0
		for n < len(es) && len(b.b)-l < maxElements {
			b.element(&es[n], op == unix.NFT_MSG_NEWSETELEM)
			n++
		}
		b.b.close(l)
		b.end()
		es = es[n:]
	}
}

func (b *Batch) element(e *Element, data bool) {
	if len(e.Key) == 0 && !e.CatchAll {
		b.fail("element without a key")
	}
	x := b.b.open(unix.NFTA_LIST_ELEM)
	if flags := elemFlags(e); flags != 0 {
		b.b.u32(unix.NFTA_SET_ELEM_FLAGS, flags)
	}
	if !e.CatchAll {
		k := b.b.open(unix.NFTA_SET_ELEM_KEY)
		b.b.raw(unix.NFTA_DATA_VALUE, e.Key)
		b.b.close(k)
	}
	if e.KeyEnd != nil {
		k := b.b.open(setElemKeyEnd)
		b.b.raw(unix.NFTA_DATA_VALUE, e.KeyEnd)
		b.b.close(k)
	}
	if data && (len(e.Data) > 0 || e.Verdict != nil) {
		d := b.b.open(unix.NFTA_SET_ELEM_DATA)
		if e.Verdict != nil {
			b.b.verdict(*e.Verdict)
		} else {
			b.b.raw(unix.NFTA_DATA_VALUE, e.Data)
		}
		b.b.close(d)
	}
	if data && e.Timeout > 0 {
		b.b.u64(unix.NFTA_SET_ELEM_TIMEOUT, e.Timeout)
	}
	if data && e.Counted {
		// By element: the counters that a set clones for its elements the kernel allocates without waiting, until
		// Linux 6.10, and runs out of memory for many at once.
		x := b.b.open(unix.NFTA_SET_ELEM_EXPR)
		b.b.str(unix.NFTA_EXPR_NAME, "counter")
		b.b.close(x)
	}
	if data && e.Comment != "" {
		if len(e.Comment) > MaxComment {
			b.fail("element comment of %d bytes, %d are allowed", len(e.Comment), MaxComment)
		}
		b.b.comment(unix.NFTA_SET_ELEM_USERDATA, e.Comment)
	}
	b.b.close(x)
}

func elemFlags(e *Element) (f uint32) {
	if e.End {
		f |= unix.NFT_SET_ELEM_INTERVAL_END
	}
	if e.CatchAll {
		f |= elemCatchAll
	}
	return f
}

// finish asks for an answer to the last message, ends the batch and returns its bytes.
func (b *Batch) finish() ([]byte, error) {
	if b.err != nil {
		return nil, b.err
	}
	if len(b.msgs) == 0 {
		return nil, errEmpty
	}
	last := b.msgs[len(b.msgs)-1]
	flags := binary.NativeEndian.Uint16(b.b[last+6:])
	binary.NativeEndian.PutUint16(b.b[last+6:], flags|unix.NLM_F_ACK)
	size := len(b.b)
	b.begin(unix.NFNL_MSG_BATCH_END, 0, 0, unix.NFNL_SUBSYS_NFTABLES)
	b.end()
	out := b.b
	b.b = b.b[:size] // a batch can be sent again, or grow
	return out, nil
}

var errEmpty = errors.New("empty batch")

// Attributes that golang.org/x/sys does not have.
const (
	tableUserdata = 6  // NFTA_TABLE_USERDATA
	elemCatchAll  = 2  // NFT_SET_ELEM_CATCHALL
	setDescConcat = 2  // NFTA_SET_DESC_CONCAT
	setFieldLen   = 1  // NFTA_SET_FIELD_LEN
	setCount      = 20 // NFTA_SET_COUNT
	setElemKeyEnd = 10 // NFTA_SET_ELEM_KEY_END
)

// Message is one message of a batch, for fakes of the kernel.
type Message struct {
	Op     uint16 // unix.NFT_MSG_*
	Flags  uint16 // unix.NLM_F_*
	Family Family
	Body   []byte // attributes
}

// Messages goes over what the batch holds.
func (b *Batch) Messages() iter.Seq[Message] {
	return func(yield func(Message) bool) {
		for _, start := range b.msgs {
			m := b.b[start:]
			if !yield(Message{
				Op:     binary.NativeEndian.Uint16(m[4:]) & 0xff,
				Flags:  binary.NativeEndian.Uint16(m[6:]),
				Family: Family(m[16]),
				Body:   m[20:binary.NativeEndian.Uint32(m)],
			}) {
				return
			}
		}
	}
}

// Err is the first mistake made while building.
func (b *Batch) Err() error { return b.err }
