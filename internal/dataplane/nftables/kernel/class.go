//go:build linux

package kernel

import (
	"fmt"
	"math"
	"time"

	"minato/internal/dataplane/nftables"
	"minato/internal/model"
	"minato/internal/nfnl"
)

// class is a nftables.Class as it stands in the kernel: two words of svc's data, and the key of the class map.
type class struct {
	n       uint32 // endpoints, 0: none
	seconds uint32 // of affinity, 0: none
	guarded bool   // only for clients in the pool's ranges
}

// Classes without endpoints.
var (
	rejected = class{}
	dropped  = class{seconds: 1}
)

// guard is the bit of the second word that makes a class guarded.
const guard = 1 << 31

func (c class) words(b []byte) []byte {
	second := c.seconds
	if c.guarded {
		second |= guard
	}
	return number(number(b, c.n), second)
}

func (r *reader) class() class {
	n, second := r.number(), r.number()
	return class{n, second &^ guard, second&guard != 0}
}

// base is the class that those clients meet who are let in.
func (c class) base() class { return class{n: c.n, seconds: c.seconds} }

// longestAffinity is the API's limit of sessionAffinityConfig.clientIP.timeoutSeconds.
const longestAffinity = 86400 * time.Second

func classOf(c nftables.Class) class {
	switch c.Verdict {
	case model.Reject:
		return rejected
	case model.Drop:
		return dropped
	}
	return class{n: uint32(c.N), seconds: uint32(math.Ceil(min(c.Affinity, longestAffinity).Seconds()))}
}

func (c class) String() string {
	switch {
	case c.guarded:
		return c.base().String() + ", of clients in range"
	case c == rejected:
		return "reject"
	case c == dropped:
		return "drop"
	case c.seconds > 0:
		return fmt.Sprintf("affinity %s over %d", time.Duration(c.seconds)*time.Second, c.n)
	}
	return fmt.Sprintf("random over %d", c.n)
}

// affinityChains begins the names of the chains of classes with affinity, and of no others.
const affinityChains = "affinity-"

// commentRandom marks the rule that chooses any endpoint.
const commentRandom = "random endpoint"

// chain is the name of the class's chain.
func (c class) chain() string {
	switch {
	case c.guarded:
		return c.base().chain() + "-in-range"
	case c == rejected:
		return chainRefused
	case c == dropped:
		return chainDropped
	case c.seconds > 0:
		return fmt.Sprintf(affinityChains+"%d-over-%d", c.seconds, c.n)
	}
	return fmt.Sprintf("random-over-%d", c.n)
}

// addClass writes the class's chain and its element of the class map. The chain may be there already.
func (r ruleset) addClass(b *nfnl.Batch, c class) {
	if c != rejected && c != dropped {
		b.AddChain(nfnl.Chain{Family: r.id, Table: r.table, Name: c.chain()})
		b.FlushChain(r.id, r.table, c.chain())
		for _, rule := range r.classRules(c) {
			b.AddRule(rule)
		}
	}
	b.AddElements(r.id, r.table, string(setClass), nfnl.Element{
		Key:     c.words(nil),
		Verdict: &nfnl.Verdict{Code: nfnl.Goto, Chain: c.chain()},
	})
}

// classRules are the rules of the class's chain. A look-up that finds nothing ends its rule; the last rule drops, so
// that a packet which comes between two changes is sent again and never enters conntrack untranslated.
func (r ruleset) classRules(c class) []nfnl.Rule {
	chain := c.chain()
	var out []nfnl.Rule
	add := func(comment string, parts ...[]nfnl.Expr) { out = append(out, r.rule(chain, comment, parts...)) }
	if c.guarded {
		load, key, _ := r.client()
		add("client in range", r.pool(), seq(load, nfnl.Lookup(string(setAllow), key)), decide(nfnl.Goto, c.base().chain()))
		add("client not in range", r.pool(), r.counted(model.Drop), decide(nfnl.Drop, ""))
		add("look-up failed", decide(nfnl.Drop, ""))
		return out
	}
	if c.seconds > 0 {
		add("known client", r.pool(), r.knownClient(c))
		add("new client", r.pool(), r.newClient(c))
	}
	add(commentRandom, r.pool(), r.random(c))
	add("look-up failed", decide(nfnl.Drop, ""))
	return out
}

// pool loads the packet's frontend again: an unused word, the pool, and the class over which it writes later.
func (r ruleset) pool() []nfnl.Expr {
	return append(r.key(), nfnl.LookupMap(string(setSvc), nfnl.R(rKey), nfnl.R(r.rAfter())))
}

func (r ruleset) random(c class) []nfnl.Expr {
	pool := nfnl.R(r.rAfter() + 1)
	return append(seq(
		nfnl.Random(c.n, pool+1),
		nfnl.LookupMap(string(setSlot), pool, pool+2),
		nfnl.LookupMap(string(setEp), pool+3, nfnl.R(0)),
	), r.forward()...)
}

// forward counts the connection and sends it to the address and port in the first registers.
func (r ruleset) forward() []nfnl.Expr {
	return append(r.counted(model.Forward), nfnl.Counter(), nfnl.DNAT(r.id, nfnl.R(0), nfnl.R(r.words)))
}

// client loads the client's address after the pool, which makes the key of aff, and returns the first free register.
func (r ruleset) client() (load nfnl.Expr, key, after nfnl.Reg) {
	key = nfnl.R(r.rAfter() + 1)
	after = key + 1 + nfnl.Reg(r.words)
	return nfnl.Payload(nfnl.NetworkHeader, r.saddr, r.addrLen, key+1), key, after
}

func (c class) timeout() uint64 { return uint64(c.seconds) * 1000 }

// knownClient goes to the endpoint that the client had, if it is still there, and counts its time from now.
func (r ruleset) knownClient(c class) []nfnl.Expr {
	load, key, found := r.client()
	return append(seq(load,
		nfnl.LookupMap(string(setAff), key, found),
		nfnl.LookupMap(string(setEp), found+1, nfnl.R(0)),
		nfnl.Dynset(string(setAff), nfnl.DynsetUpdate, key, found, c.timeout()),
	), r.forward()...)
}

// newClient forgets an endpoint that is gone, chooses one and remembers it. The pool is copied (by a bitwise step
// that changes nothing) to stand before the random number as the key of slot.
func (r ruleset) newClient(c class) []nfnl.Expr {
	load, key, found := r.client()
	slot := nfnl.R(12)
	if r.ipv6 {
		slot = nfnl.R(3) // within the first address, which is no longer needed; all others are taken
	}
	return append(seq(load,
		nfnl.Dynset(string(setAff), nfnl.DynsetDelete, key, key, 0),
		nfnl.Random(c.n, slot+1),
		nfnl.Bitwise(key, slot, nfnl.Number(math.MaxUint32), nfnl.Number(0)),
		nfnl.LookupMap(string(setSlot), slot, found),
		nfnl.LookupMap(string(setEp), found+1, nfnl.R(0)),
		nfnl.Dynset(string(setAff), nfnl.DynsetAdd, key, found, c.timeout()),
	), r.forward()...)
}
