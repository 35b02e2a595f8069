package corefile

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"minato/internal/dns"
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
