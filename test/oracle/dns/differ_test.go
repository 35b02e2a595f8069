package oracle

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	mdns "github.com/miekg/dns"

	"minato/internal/dns"
)

var worlds = flag.Uint64("worlds", 200, "random worlds to compare")

// exceptions are the differences that we want, each with its reason. A case which is none of them must agree.
var exceptions = []struct {
	name, reason string
	holds        func(q *mdns.Msg, theirs, ours *mdns.Msg) bool
}{
	{"ANY", "RFC 8482: one small record; CoreDNS looks for an A record and says NODATA or NXDOMAIN", func(q, _, ours *mdns.Msg) bool {
		return qtype(q) == mdns.TypeANY && len(ours.Answer) == 1 && ours.Answer[0].Header().Rrtype == mdns.TypeHINFO
	}},
	{"reverse names outside our ranges", "they are not of the cluster: an upstream is asked", func(q, theirs, ours *mdns.Msg) bool {
		return strings.HasSuffix(name(q), ".arpa.") && theirs.Rcode == mdns.RcodeNameError && !ours.Authoritative
	}},
	{"names that exist without records", "RFC 8020: what has names below it exists, for every type; CoreDNS has NXDOMAIN for some", func(q, theirs, ours *mdns.Msg) bool {
		l := mdns.SplitDomainName(strings.TrimSuffix(name(q), zones[0]))
		nonTerminal := name(q) == "dns-version.cluster.local." || name(q) == "dns.cluster.local." ||
			len(l) > 0 && (l[0] == "_tcp" || l[0] == "_udp" || l[0] == "_sctp") || qtype(q) == mdns.TypeTXT || strings.HasSuffix(name(q), ".arpa.")
		return nonTerminal && theirs.Rcode == mdns.RcodeNameError && ours.Rcode == mdns.RcodeSuccess && len(ours.Answer) == 0
	}},
	{"SOA of a name that does not exist", "it does not exist for any type; CoreDNS says NODATA", func(q, theirs, ours *mdns.Msg) bool {
		return qtype(q) == mdns.TypeSOA && theirs.Rcode == mdns.RcodeSuccess && len(theirs.Answer) == 0 && ours.Rcode == mdns.RcodeNameError
	}},
	{"names below a pod's", "they do not exist; CoreDNS looks at the last label only", func(q, theirs, ours *mdns.Msg) bool {
		l := mdns.SplitDomainName(strings.TrimSuffix(name(q), zones[0]))
		return len(l) > 3 && l[len(l)-1] == "pod" && ours.Rcode == mdns.RcodeNameError
	}},
	{"large replies", "no UDP reply is over 1232 bytes (DNS Flag Day 2020); CoreDNS sends what the client says it takes", func(q, theirs, ours *mdns.Msg) bool {
		return ours.Truncated && !theirs.Truncated && theirs.Len() > 1232-11
	}},
	{"SRV of a pod's name", "a pod's name has no port; CoreDNS says port 0", func(q, theirs, ours *mdns.Msg) bool {
		return qtype(q) == mdns.TypeSRV && strings.HasSuffix(name(q), ".pod.cluster.local.") && len(ours.Answer) == 0 &&
			len(theirs.Answer) == 1 && theirs.Answer[0].(*mdns.SRV).Port == 0
	}},
	{"TTL of what is not there", "5 seconds at most, so that a new pod's name is soon seen (kubernetes#92559); CoreDNS has the option's", func(q, theirs, ours *mdns.Msg) bool {
		theirs = theirs.Copy()
		for _, rr := range slices.Concat(theirs.Answer, theirs.Ns) {
			if soa, ok := rr.(*mdns.SOA); ok {
				soa.Hdr.Ttl, soa.Minttl = 5, 5
			}
		}
		return canon(theirs) == canon(ours)
	}},
	{"additional addresses that do not fit", "RFC 2181, 9: a reply without them is whole; CoreDNS marks it as cut", func(q, theirs, ours *mdns.Msg) bool {
		return theirs.Truncated && !ours.Truncated && qtype(q) == mdns.TypeSRV && len(ours.Answer) >= len(theirs.Answer)
	}},
	{"name servers", "the DNS Service, or ns.dns at its addresses; CoreDNS finds itself by the addresses of its interfaces", func(q, theirs, ours *mdns.Msg) bool {
		return strings.HasPrefix(name(q), "ns.dns.") || qtype(q) == mdns.TypeNS
	}},
}

func qtype(q *mdns.Msg) uint16 { return q.Question[0].Qtype }
func name(q *mdns.Msg) string  { return strings.ToLower(q.Question[0].Name) }

func TestAnswersAreCoreDNSs(t *testing.T) {
	used := map[string]int{}
	for _, mode := range []struct {
		options string
		ours    dns.Options
	}{
		{"cluster.local {\npods insecure\n}", dns.Options{Pods: dns.PodsInsecure}},
		{"cluster.local {\npods disabled\nttl 30\nendpoint_pod_names\n}", dns.Options{Pods: dns.PodsDisabled, TTL: 30, EndpointPodNames: true}},
		{"cluster.local {\npods verified\nignore empty_service\nnamespaces a bare\n}", dns.Options{
			Pods: dns.PodsVerified, IgnoreEmptyService: true, Namespaces: []string{"a", "bare"}}},
		{"cluster.local {\npods insecure\nnoendpoints\n}", dns.Options{Pods: dns.PodsInsecure, NoEndpoints: true}},
	} {
		t.Run(strings.Join(strings.Fields(mode.options), " "), func(t *testing.T) { differ(t, mode.options, mode.ours, used) })
	}
	for _, e := range exceptions {
		if used[e.name] == 0 && *worlds >= 200 {
			t.Errorf("exception %q was never needed", e.name)
		}
	}
}

// differ compares all answers, and counts in used which exceptions were made.
func differ(t *testing.T, options string, ours dns.Options, used map[string]int) {
	var w *world
	ours.PodExists = func(namespace string, addr string) bool { return slices.Contains(w.pods, pod{namespace, addr}) }
	w = &world{}
	m := newMinato(t, ours)
	excused, asked, different := map[string]int{}, 0, 0
	for seed := range *worlds {
		r := rand.New(rand.NewPCG(seed, 1))
		w = randomWorld(r)
		k := newCoreDNS(t, w, options)
		m.become(t, w)
		for range 200 {
			q, tcp := randomQuestion(r)
			theirs, got := askCoreDNS(k, q.Copy(), tcp), m.ask(t, q, tcp)
			asked++
			if canon(theirs) == canon(got) {
				continue
			}
			if e := excuse(q, theirs, got); e != "" {
				excused[e]++
				continue
			}
			t.Errorf("world %d, over TCP %t, %s\nCoreDNS: %s\nours:    %s", seed, tcp, text(q), canon(theirs), canon(got))
			if different++; different == 10 {
				t.Fatal("enough")
			}
		}
	}
	t.Logf("%d questions; exceptions used: %v", asked, excused)
	for name, n := range excused {
		used[name] += n
	}
}

func excuse(q, theirs, ours *mdns.Msg) string {
	for _, e := range exceptions {
		if e.holds(q, theirs, ours) {
			return e.name
		}
	}
	return ""
}

// randomQuestion asks for something that often exists, in any spelling, of any type, with and without EDNS.
func randomQuestion(r *rand.Rand) (q *mdns.Msg, tcp bool) {
	types := []uint16{mdns.TypeA, mdns.TypeA, mdns.TypeAAAA, mdns.TypeSRV, mdns.TypeSRV, mdns.TypeTXT, mdns.TypeCNAME, mdns.TypeMX,
		mdns.TypePTR, mdns.TypeHTTPS, mdns.TypeSOA, mdns.TypeNS, mdns.TypeANY, mdns.TypeDS, 666}
	n := randomName(r)
	qtype := pick(r, types...)
	if strings.HasSuffix(n, "arpa.") && r.IntN(4) > 0 {
		qtype = mdns.TypePTR
	}
	q = new(mdns.Msg).SetQuestion(respell(r, n), qtype)
	q.Id = uint16(r.Uint32())
	q.RecursionDesired = r.IntN(2) == 0
	if r.IntN(2) == 0 {
		q.SetEdns0(pick[uint16](r, 100, 512, 1232, 4096), r.IntN(2) == 0)
	}
	return q, r.IntN(3) == 0
}

func respell(r *rand.Rand, s string) string {
	if r.IntN(3) > 0 {
		return s
	}
	b := []byte(s)
	for i := range b {
		if r.IntN(3) == 0 {
			b[i] = strings.ToUpper(s)[i]
		}
	}
	return string(b)
}

func randomName(r *rand.Rand) string {
	svc := pick(r, "x", "y", "z", "long-name-of-a-service", "nosuch") + "." + pick(r, "a", "a", "b", "bare", "nons") + ".svc.cluster.local."
	switch r.IntN(14) {
	case 0, 1, 2:
		return svc
	case 3, 4:
		return pick(r, "_http", "_dns", "_p1", "http", "dns", "_sip", "_nosuch") + "." + pick(r, "_tcp", "_udp", "tcp", "_sctp") + "." + svc
	case 5, 6:
		return pick(r, "h0", "h1", "pod-1", "10-244-0-1", "10-244-0-2", "fd00-20--1", "fd00-20--0", "192-0-2-9", "_tcp", "x") + "." + svc
	case 7:
		return pick(r, "a.b.c.", "_http._tcp.h0.", "a._http._tcp.") + svc
	case 8:
		return pick(r, "", "x.", "10-244-0-1.", "10-1-2-3.", "fd00-20--1.", "10-1-2.", "300-1-1-1.", "1-2-3-4-5.", "--1.", "b.10-1-2-3.") +
			pick(r, "a", "b", "nons") + ".pod.cluster.local."
	case 9:
		return pick(r, "", "svc.", "pod.", "foo.", "dns-version.", "a.svc.", "bare.svc.", "nons.svc.", "a.foo.", "ns.dns.", "dns.", "x.a.") + "cluster.local."
	case 10:
		return fmt.Sprintf("%d.0.96.10.in-addr.arpa.", r.IntN(201))
	case 11:
		return reverse(fmt.Sprintf("fd00:10::%x", r.IntN(201)))
	case 12:
		return pick(r, "96.10.in-addr.arpa.", "0.96.10.in-addr.arpa.", "x.0.96.10.in-addr.arpa.", "1.1.0.96.10.in-addr.arpa.", "0.1.0.0.0.0.d.f.ip6.arpa.")
	}
	return reverse(pick(r, append(backendAddrs, backendAddrs6...)...))
}

func reverse(addr string) string {
	n, err := mdns.ReverseAddr(addr)
	if err != nil {
		panic(err)
	}
	return n
}

func text(q *mdns.Msg) string {
	s := q.Question[0].Name + " " + mdns.Type(qtype(q)).String()
	if o := q.IsEdns0(); o != nil {
		s += fmt.Sprintf(" edns %d do %t", o.UDPSize(), o.Do())
	}
	return s
}

// canon is what must be equal: records in any order, with the spelling that the question gives to owners. Of a reply
// that was cut, only that it was.
func canon(m *mdns.Msg) string {
	head := fmt.Sprintf("%s aa=%t tc=%t rd=%t cd=%t %v", mdns.RcodeToString[m.Rcode], m.Authoritative, m.Truncated, m.RecursionDesired, m.CheckingDisabled, m.Question)
	var lines []string
	if o := m.IsEdns0(); o != nil {
		head += fmt.Sprintf(" edns %d do=%t", o.Version(), o.Do())
	}
	if m.Truncated {
		return head
	}
	for i, section := range [][]mdns.RR{m.Answer, m.Ns, m.Extra} {
		for _, rr := range section {
			if rr.Header().Rrtype == mdns.TypeOPT {
				continue
			}
			lines = append(lines, fmt.Sprint(i, " ", canonical(rr, i == 0)))
		}
	}
	slices.Sort(lines)
	return head + "\n  " + strings.Join(lines, "\n  ")
}

func canonical(rr mdns.RR, answer bool) string {
	rr = mdns.Copy(rr)
	owner := rr.Header().Name
	if soa, ok := rr.(*mdns.SOA); ok {
		soa.Serial = 1
	}
	s := strings.ToLower(rr.String())
	if answer {
		s = owner + s[len(owner):]
	}
	return s
}
