package corefile

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"minato/internal/dns"
	"minato/internal/dns/server"
)

// kubernetes reads the options of the cluster zone.
func (r *reader) kubernetes(l *line) error {
	for _, z := range l.words[1:] {
		if !strings.HasSuffix(z, ".arpa") && !strings.EqualFold(strings.Trim(z, "."), strings.Trim(r.host.Domain, ".")) && r.zone == "." {
			r.warn(l, "the cluster domain is %s, given when the cluster was made: %s is left out", r.host.Domain, z)
		}
	}
	o := &r.c.Cluster
	for _, s := range l.block {
		args := s.words[1:]
		switch s.words[0] {
		case "pods":
			modes := map[string]dns.PodMode{"disabled": dns.PodsDisabled, "insecure": dns.PodsInsecure, "verified": dns.PodsVerified}
			mode, ok := modes[strings.Join(args, " ")]
			if !ok {
				return s.errorf("pods is one of disabled, insecure, verified")
			}
			o.Pods = mode
		case "ttl":
			n, err := number(s, 3600)
			if err != nil {
				return err
			}
			if o.TTL = n; n == 0 {
				o.TTL = -1
			}
		case "endpoint_pod_names":
			o.EndpointPodNames = true
		case "noendpoints":
			o.NoEndpoints = true
		case "namespaces":
			o.Namespaces = append(o.Namespaces, args...)
		case "ignore":
			if len(args) != 1 || args[0] != "empty_service" {
				return s.errorf("ignore knows empty_service only")
			}
			o.IgnoreEmptyService = true
		case "fallthrough", "startup_timeout", "apiserver_qps", "apiserver_burst", "apiserver_max_inflight":
		default:
			r.warn(s, "option %q of kubernetes is not supported and is left out", s.words[0])
		}
	}
	return nil
}

// number is the one argument of a line, from 0 to most.
func number(l *line, most int) (int, error) {
	if len(l.words) != 2 {
		return 0, l.errorf("%s takes one number", l.words[0])
	}
	n, err := strconv.Atoi(l.words[1])
	if err != nil || n < 0 || n > most {
		return 0, l.errorf("%s takes a number from 0 to %d, not %q", l.words[0], most, l.words[1])
	}
	return n, nil
}

// forward reads who is asked for a zone.
func (r *reader) forward(l *line) error {
	if len(l.words) < 3 {
		return l.errorf("forward takes a zone and who is asked")
	}
	f := server.Forward{Zone: l.words[1]}
	if _, ok := dns.ParseName(f.Zone); !ok {
		return l.errorf("forward: %q is not a domain name", f.Zone)
	}
	if !r.main && f.Zone == "." {
		f.Zone = r.zone
	}
	for _, to := range l.words[2:] {
		if err := r.upstream(l, &f, to); err != nil {
			return err
		}
	}
	if len(f.Upstreams) == 0 && f.ResolvConf == "" {
		return l.errorf("nobody is left to be asked about %s", f.Zone)
	}
	for _, s := range l.block {
		switch s.words[0] {
		case "force_tcp":
			f.TCP = true
		case "prefer_udp", "policy", "max_fails", "health_check", "expire", "max_concurrent", "max_age", "next", "failover",
			"failfast_all_unhealthy_upstreams", "max_idle_conns":
		default:
			r.warn(s, "option %q of forward is not supported and is left out", s.words[0])
		}
	}
	r.c.Server.Forward = append(r.c.Server.Forward, f)
	return nil
}

// upstream adds one that is asked: an address, or a file in the form of resolv.conf.
func (r *reader) upstream(l *line, f *server.Forward, to string) error {
	if strings.HasPrefix(to, "/") {
		if to != "/etc/resolv.conf" {
			r.warn(l, "only /etc/resolv.conf is read, which is the host's: %s is left out", to)
			return nil
		}
		f.Upstreams, f.ResolvConf = append(f.Upstreams, r.host.Resolvers.Upstreams...), r.host.Resolvers.ResolvConf
		return nil
	}
	scheme, rest, ok := strings.Cut(to, "://")
	if !ok {
		rest = to
	} else if scheme != "dns" {
		r.warn(l, "upstreams are asked over UDP and TCP only: %s is left out", to)
		return nil
	}
	if a, err := netip.ParseAddr(strings.Trim(rest, "[]")); err == nil {
		f.Upstreams = append(f.Upstreams, netip.AddrPortFrom(a, 53))
		return nil
	}
	a, err := netip.ParseAddrPort(rest)
	if err != nil {
		return l.errorf("forward: %q is not an address", to)
	}
	f.Upstreams = append(f.Upstreams, a)
	return nil
}

// cache reads for how long answers of upstreams are kept. The cluster's own are never kept: see docs/dns.md.
func (r *reader) cache(l *line) error {
	kept := &r.c.Server
	if len(l.words) > 1 {
		if n, err := strconv.Atoi(l.words[1]); err == nil {
			kept.Kept, kept.Denied = seconds(n), seconds(n)
		}
	}
	for _, s := range l.block {
		switch s.words[0] {
		case "success", "denial":
			if len(s.words) < 3 {
				continue // the number of answers: here bytes are bounded
			}
			n, err := strconv.Atoi(s.words[2])
			if err != nil || n < 0 {
				return s.errorf("%s: %q is not a number of seconds", s.words[0], s.words[2])
			}
			if s.words[0] == "success" {
				kept.Kept = seconds(n)
			} else {
				kept.Denied = seconds(n)
			}
		case "prefetch", "serve_stale", "servfail", "disable", "keepttl":
		default:
			r.warn(s, "option %q of cache is not supported and is left out", s.words[0])
		}
	}
	return nil
}

// stubCache is a cache of one zone's names, which there is not: the settings for all names count.
func (*reader) stubCache(*line) error { return nil }

func seconds(n int) time.Duration {
	if n == 0 {
		return -1
	}
	return time.Duration(n) * time.Second
}

// hosts reads names with addresses.
func (r *reader) hosts(l *line) error {
	h := &server.Hosts{TTL: 3600, Addrs: map[string][]netip.Addr{}}
	for _, w := range l.words[1:] {
		if strings.HasPrefix(w, "/") {
			r.warn(l, "hosts reads no files: %s is left out", w)
		}
	}
	for _, s := range l.block {
		switch w := s.words; w[0] {
		case "fallthrough":
			if h.Fallthrough = w[1:]; len(w) == 1 {
				h.Fallthrough = []string{"."}
			}
		case "ttl":
			n, err := number(s, 65535)
			if err != nil {
				return err
			}
			h.TTL = n
		case "no_reverse", "reload":
		default:
			a, err := netip.ParseAddr(w[0])
			if err != nil || len(w) < 2 {
				return s.errorf("hosts: a line has an address and names, not %q", strings.Join(w, " "))
			}
			for _, name := range w[1:] {
				h.Addrs[strings.ToLower(name)] = append(h.Addrs[strings.ToLower(name)], a)
			}
		}
	}
	r.c.Server.Hosts = h
	return nil
}

var rewriteKinds = map[string]server.RewriteKind{
	"exact": server.RewriteExact, "prefix": server.RewritePrefix, "suffix": server.RewriteSuffix, "substring": server.RewriteSubstring,
}

// rewrite reads one rule. Answers always carry the name that was asked for.
func (r *reader) rewrite(l *line) error {
	w := l.words[1:]
	if len(w) > 0 && (w[0] == "stop" || w[0] == "continue") {
		w = w[1:]
	}
	if i := slices.Index(w, "answer"); i >= 0 {
		w = w[:i]
	}
	if l.open || len(w) == 0 {
		r.warn(l, "this form of rewrite is not supported and is left out")
		return nil
	}
	field, args := w[0], w[1:]
	kind, named := server.RewriteExact, false
	if len(args) == 3 {
		kind, named = rewriteKinds[args[0]]
		args = args[1:]
	}
	switch {
	case field == "type" && len(args) == 2:
		kind = server.RewriteType
	case field != "name" || len(w) == 4 && !named:
		r.warn(l, "rewrite %s is not supported and is left out", strings.Join(w[:min(2, len(w))], " "))
		return nil
	case len(args) != 2:
		return l.errorf("rewrite name takes a name and another")
	}
	r.c.Server.Rewrites = append(r.c.Server.Rewrites, server.Rewrite{Kind: kind, From: args[0], To: args[1]})
	return nil
}

func (r *reader) errors(*line) error {
	r.c.Server.LogErrors = true
	return nil
}

// log reads what is logged; a class other than all and error makes no sense where only questions are.
func (r *reader) log(l *line) error {
	for _, s := range l.block {
		if s.words[0] == "class" && slices.Equal(s.words[1:], []string{"error"}) {
			r.c.Server.LogErrors = true
			return nil
		}
	}
	r.c.Server.LogQuestions = true
	return nil
}

func (r *reader) health(l *line) error {
	for _, s := range l.block {
		if s.words[0] != "lameduck" || len(s.words) != 2 {
			r.warn(s, "option %q of health is not supported and is left out", s.words[0])
			continue
		}
		d, err := time.ParseDuration(s.words[1])
		if err != nil || d < 0 {
			return s.errorf("lameduck: %q is not a duration", s.words[1])
		}
		r.c.Server.Lameduck = d
	}
	return nil
}
