//go:build linux

package kernel

import (
	"fmt"
	"hash/fnv"

	"minato/internal/model"
	"minato/internal/nfnl"
)

// The chains that do not depend on any Service. The class chains stand beside them.
const (
	chainPrerouting  = "prerouting"
	chainOutput      = "output"
	chainForward     = "forward"
	chainPostrouting = "postrouting"
	chainVIP         = "vip"
	chainSource      = "source"
	chainReject      = "reject"
	chainDrop        = "drop"
	chainRefused     = "count-refused" // of a Service, which chainReject need not be
	chainDropped     = "count-dropped"
)

// ruleset writes the rules of one table. Rules hold no addresses and no ports, so they never change: what a packet
// meets is decided by elements of maps. Each rule loads its own registers, because a new rule may not read those of
// the one before.
type ruleset struct {
	*family
	table   string
	clients int // most that affinity remembers
}

func (r ruleset) chains() []nfnl.Chain {
	base := func(name, typ string, hook nfnl.Hook, priority int32) nfnl.Chain {
		return nfnl.Chain{Family: r.id, Table: r.table, Name: name, Type: typ, Hook: hook, Priority: priority}
	}
	plain := func(name string) nfnl.Chain { return nfnl.Chain{Family: r.id, Table: r.table, Name: name} }
	return []nfnl.Chain{
		plain(chainReject), plain(chainDrop), plain(chainRefused), plain(chainDropped), plain(chainVIP), plain(chainSource),
		base(chainPrerouting, "nat", nfnl.Prerouting, nfnl.PriorityDNAT),
		base(chainOutput, "nat", nfnl.Output, nfnl.PriorityDNAT),
		base(chainForward, "filter", nfnl.Forward, nfnl.PriorityFilter),
		base(chainPostrouting, "nat", nfnl.Postrouting, nfnl.PrioritySNAT),
	}
}

func (r ruleset) rule(chain, comment string, parts ...[]nfnl.Expr) nfnl.Rule {
	rule := nfnl.Rule{Family: r.id, Table: r.table, Chain: chain, Comment: comment}
	for _, p := range parts {
		rule.Exprs = append(rule.Exprs, p...)
	}
	return rule
}

func seq(e ...nfnl.Expr) []nfnl.Expr { return e }

func decide(code nfnl.VerdictCode, chain string) []nfnl.Expr {
	return seq(nfnl.Counter(), nfnl.Decide(nfnl.Verdict{Code: code, Chain: chain}))
}

// Registers. The key of svc fills R1 to rAfter-1; R0 only holds the unused word of scope's data.
const (
	rFirst = 0
	rKey   = 1
)

func (f *family) rAfter() int { return rKey + f.words + 3 }

// key loads scope . address . protocol . port of the packet into the registers from rKey.
func (r ruleset) key() []nfnl.Expr {
	dst := rKey + 1
	return seq(
		nfnl.Payload(nfnl.NetworkHeader, r.saddr, r.addrLen, nfnl.R(rFirst)),
		nfnl.LookupMap(string(setScope), nfnl.R(rFirst), nfnl.R(rFirst)),
		nfnl.Payload(nfnl.NetworkHeader, r.daddr, r.addrLen, nfnl.R(dst)),
		nfnl.Meta(nfnl.MetaL4Proto, nfnl.R(dst+r.words)),
		nfnl.Payload(nfnl.TransportHeader, 2, 2, nfnl.R(dst+r.words+1)),
	)
}

// originalKey loads the key of the connection's first packet as it was before any translation.
func (r ruleset) originalKey() []nfnl.Expr {
	dst := rKey + 1
	return seq(
		nfnl.CtOriginal(r.ctSrc, nfnl.R(rFirst)),
		nfnl.LookupMap(string(setScope), nfnl.R(rFirst), nfnl.R(rFirst)),
		nfnl.CtOriginal(r.ctDst, nfnl.R(dst)),
		nfnl.Ct(nfnl.CtProtocol, nfnl.R(dst+r.words)),
		nfnl.CtOriginal(nfnl.CtProtoDst, nfnl.R(dst+r.words+1)),
	)
}

// static are the rules of all chains but the class chains.
func (r ruleset) static() []nfnl.Rule {
	var out []nfnl.Rule
	add := func(chain, comment string, parts ...[]nfnl.Expr) {
		out = append(out, r.rule(chain, comment, parts...))
	}
	add(chainReject, "TCP", seq(nfnl.Meta(nfnl.MetaL4Proto, nfnl.R(0)), nfnl.Cmp(nfnl.Equal, nfnl.R(0), []byte{byte(model.TCP)}),
		nfnl.Counter(), nfnl.RejectReset()))
	add(chainReject, "others", seq(nfnl.Counter(), nfnl.RejectPort(r.id)))
	add(chainDrop, "all", decide(nfnl.Drop, ""))
	for verdict, to := range []string{model.Reject: chainReject, model.Drop: chainDrop} {
		if to != "" {
			out = append(out, r.countEnd(model.Verdict(verdict), to)...)
		}
	}
	daddr := nfnl.Payload(nfnl.NetworkHeader, r.daddr, r.addrLen, nfnl.R(0))
	add(chainVIP, "answered by others", seq(daddr, nfnl.Lookup(string(setPass), nfnl.R(0))), decide(nfnl.Return, ""))
	add(chainVIP, "no such port", seq(daddr, nfnl.Lookup(string(setVIP), nfnl.R(0))), decide(nfnl.Goto, chainReject))
	add(chainVIP, "no such Service", decide(nfnl.Drop, ""))
	svc := nfnl.R(r.rAfter())
	for _, c := range []string{chainPrerouting, chainOutput} {
		add(c, "frontend to its class", r.key(), seq(nfnl.LookupMap(string(setSvc), nfnl.R(rKey), svc),
			nfnl.LookupVerdict(string(setClass), svc+2)))
		add(c, "frontend without a class", r.key(), seq(nfnl.Lookup(string(setSvc), nfnl.R(rKey))), decide(nfnl.Drop, ""))
		add(c, "rest of the service range", seq(daddr, nfnl.Lookup(string(setRange), nfnl.R(0))), decide(nfnl.Goto, chainVIP))
		add(c, commentPing, r.ping(daddr))
	}
	for _, pod := range []uint32{r.saddr, r.daddr} {
		add(chainForward, commentInvalid, r.invalid(pod), decide(nfnl.Drop, ""))
	}
	add(chainForward, "no such port of a load balancer", seq(daddr, nfnl.Lookup(string(setLB), nfnl.R(0))), decide(nfnl.Drop, ""))
	return append(out, r.postrouting()...)
}

// commentInvalid marks rules that count packets of connections, and no connections.
const commentInvalid = "not in order"

// invalid finds TCP packets from or to a pod of the node, by the offset of its address, that conntrack does not take for
// part of their connection. It does not translate them: a client would reset the connection over a reply from an
// address that it does not know (kubernetes/kubernetes#74839). Others' packets may come one way only, and pass.
func (r ruleset) invalid(pod uint32) []nfnl.Expr {
	return seq(
		nfnl.Ct(nfnl.CtState, nfnl.R(0)),
		nfnl.Bitwise(nfnl.R(0), nfnl.R(0), nfnl.Number(nfnl.CtStateInvalid), nfnl.Number(0)),
		nfnl.Cmp(nfnl.NotEqual, nfnl.R(0), nfnl.Number(0)),
		nfnl.Meta(nfnl.MetaL4Proto, nfnl.R(0)), nfnl.Cmp(nfnl.Equal, nfnl.R(0), []byte{byte(model.TCP)}),
		nfnl.Payload(nfnl.NetworkHeader, pod, r.addrLen, nfnl.R(0)), nfnl.LookupMap(string(setScope), nfnl.R(0), nfnl.R(0)),
		nfnl.Cmp(nfnl.Equal, nfnl.R(1), nfnl.Number(uint32(model.Inside))))
}

// commentPing marks the rule that counts pings, which are no connections.
const commentPing = "ping"

// ping lets the node answer echo requests to the address of a load balancer.
func (r ruleset) ping(daddr nfnl.Expr) []nfnl.Expr {
	return seq(
		nfnl.Meta(nfnl.MetaL4Proto, nfnl.R(0)), nfnl.Cmp(nfnl.Equal, nfnl.R(0), []byte{r.icmp}),
		nfnl.Payload(nfnl.TransportHeader, 0, 1, nfnl.R(0)), nfnl.Cmp(nfnl.Equal, nfnl.R(0), []byte{r.echoRequest}),
		daddr, nfnl.Lookup(string(setLB), nfnl.R(0)),
		nfnl.Immediate(nfnl.R(0), nfnl.Number(0)), nfnl.LookupMap(string(setNode), nfnl.R(0), nfnl.R(r.words)),
		nfnl.Counter(), nfnl.DNATAddr(r.id, nfnl.R(r.words)))
}

// postrouting gives connections that were translated, and need it, the node's own address.
func (r ruleset) postrouting() []nfnl.Rule {
	translated := func(op nfnl.CmpOp) []nfnl.Expr {
		return seq(nfnl.Ct(nfnl.CtStatus, nfnl.R(0)),
			nfnl.Bitwise(nfnl.R(0), nfnl.R(0), nfnl.Number(nfnl.CtStatusDNAT), nfnl.Number(0)),
			nfnl.Cmp(op, nfnl.R(0), nfnl.Number(0)))
	}
	pair := seq(nfnl.Payload(nfnl.NetworkHeader, r.saddr, r.addrLen, nfnl.R(0)),
		nfnl.Payload(nfnl.NetworkHeader, r.daddr, r.addrLen, nfnl.R(r.words)),
		nfnl.Lookup(string(setHairpin), nfnl.R(0)))
	return []nfnl.Rule{
		r.rule(chainPostrouting, "not translated", translated(nfnl.Equal), seq(nfnl.Decide(nfnl.Verdict{Code: nfnl.Return}))),
		r.rule(chainPostrouting, "to itself", pair, decide(nfnl.Goto, chainSource)),
		r.rule(chainPostrouting, "masquerade", r.originalKey(), seq(nfnl.Lookup(string(setMasq), nfnl.R(rKey))),
			decide(nfnl.Goto, chainSource)),
		r.rule(chainSource, "the node's own address", seq(nfnl.Immediate(nfnl.R(0), nfnl.Number(0)),
			nfnl.LookupMap(string(setNode), nfnl.R(0), nfnl.R(r.words)), nfnl.SNAT(r.id, nfnl.R(r.words)))),
	}
}

// install writes everything static into the batch. Over a table of the same stamp it puts chains and rules back
// in order and leaves elements alone.
func (r ruleset) install(b *nfnl.Batch) {
	b.AddTable(nfnl.Table{Family: r.id, Name: r.table, Comment: r.stamp()})
	r.body(b)
}

func (r ruleset) body(b *nfnl.Batch) {
	for _, s := range r.sets() {
		b.AddSet(s)
	}
	for _, c := range r.chains() {
		b.AddChain(c)
	}
	for _, c := range r.chains() {
		b.FlushChain(r.id, r.table, c.Name)
	}
	for _, rule := range r.static() {
		b.AddRule(rule)
	}
	for _, c := range []class{rejected, dropped} {
		r.addClass(b, c)
	}
	b.AddElements(r.id, r.table, string(setCount), nfnl.Element{CatchAll: true})
}

// stamp names the version of sets and rules by their content. It is the table's comment.
func (r ruleset) stamp() string {
	b := nfnl.NewBatch()
	r.body(b)
	for _, c := range []class{{n: 1}, {n: 1, seconds: 1}, {n: 1, guarded: true}} { // the shapes of class chains
		r.addClass(b, c)
	}
	h := fnv.New64a()
	for m := range b.Messages() {
		h.Write(m.Body)
	}
	return fmt.Sprintf("minato services, rules %016x", h.Sum64())
}
