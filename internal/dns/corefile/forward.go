package corefile

import (
	"crypto/x509"
	"math"
	"net/netip"
	"path"
	"slices"
	"strings"

	"minato/internal/dns"
	"minato/internal/dns/server"
)

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
	to := l.words[2:]
	if secure := slices.ContainsFunc(to, secured); secure {
		f.TLS = new(server.TLS)
		for _, plain := range slices.DeleteFunc(slices.Clone(to), secured) {
			r.warn(l, "one forward asks over TLS or not, and %s is left out", plain)
		}
		to = slices.DeleteFunc(slices.Clone(to), func(t string) bool { return !secured(t) })
	}
	for _, t := range to {
		if err := r.upstream(l, &f, t); err != nil {
			return err
		}
	}
	if len(f.Upstreams) == 0 && f.ResolvConf == "" {
		return l.errorf("nobody is left to be asked about %s", f.Zone)
	}
	for _, s := range l.block {
		if err := r.forwardOption(s, &f); err != nil {
			return err
		}
	}
	r.c.Server.Forward = append(r.c.Server.Forward, f)
	return nil
}

func secured(to string) bool { return strings.HasPrefix(to, "tls://") }

var policies = map[string]server.Policy{"random": server.Random, "round_robin": server.RoundRobin, "sequential": server.Sequential}

// forwardOption reads one line of forward's block.
func (r *reader) forwardOption(s *line, f *server.Forward) error {
	args := s.words[1:]
	switch s.words[0] {
	case "except":
		for _, z := range args {
			if _, ok := dns.ParseName(z); !ok {
				return s.errorf("except: %q is not a domain name", z)
			}
		}
		f.Except = append(f.Except, args...)
	case "force_tcp":
		f.TCP = true
	case "policy":
		policy, ok := policies[strings.Join(args, " ")]
		if !ok {
			return s.errorf("policy is one of random, round_robin, sequential")
		}
		f.Policy = policy
	case "max_concurrent":
		n, err := number(s, math.MaxInt32)
		if err != nil {
			return err
		}
		f.MaxConcurrent = n
	case "tls_servername":
		if len(args) != 1 {
			return s.errorf("tls_servername takes one name")
		}
		if f.TLS != nil {
			f.TLS.ServerName = args[0]
		}
	case "tls":
		return r.tls(s, f)
	case "prefer_udp", "max_fails", "health_check", "expire", "max_age", "next", "failover",
		"failfast_all_unhealthy_upstreams", "max_idle_conns":
	default:
		r.warn(s, "option %q of forward is not supported and is left out", s.words[0])
	}
	return nil
}

// tls reads who vouches for upstreams: a file of the ConfigMaps, else those whom the machine trusts.
func (r *reader) tls(s *line, f *server.Forward) error {
	args := s.words[1:]
	switch {
	case len(args) == 0 || f.TLS == nil:
	case len(args) > 1:
		r.warn(s, "certificates of clients are not supported: %s is left out", strings.Join(args, " "))
	default:
		text, ok := r.files[path.Base(args[0])]
		if !ok {
			r.warn(s, "file %s is in none of the ConfigMaps, and is left out", args[0])
			return nil
		}
		if f.TLS.Roots = x509.NewCertPool(); !f.TLS.Roots.AppendCertsFromPEM([]byte(text)) {
			return s.errorf("tls: %s has no certificate", args[0])
		}
	}
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
	port := uint16(53)
	switch {
	case !ok:
		rest = to
	case scheme == "tls":
		port = 853
	case scheme != "dns":
		r.warn(l, "upstreams are asked over UDP, TCP and TLS only: %s is left out", to)
		return nil
	}
	if a, err := netip.ParseAddr(strings.Trim(rest, "[]")); err == nil {
		f.Upstreams = append(f.Upstreams, netip.AddrPortFrom(a, port))
		return nil
	}
	a, err := netip.ParseAddrPort(rest)
	if err != nil {
		return l.errorf("forward: %q is not an address", to)
	}
	f.Upstreams = append(f.Upstreams, a)
	return nil
}
