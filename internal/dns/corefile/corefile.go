// Package corefile reads what people put into the ConfigMaps coredns and coredns-custom of kube-system, and gives a
// node's DNS the settings that come of it, so that stub domains, hosts and rewrites made for CoreDNS go on working.
//
// It knows a part of CoreDNS's directives (docs/dns.md lists them). Of the others each makes a warning: nothing is
// left out silently. A text that cannot be read is an error, and what was in force before stays.
//
// It watches nothing (package source does) and answers no questions (package server does).
package corefile

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"minato/internal/dns"
	"minato/internal/dns/server"
)

// Host is what a Corefile cannot know: the cluster that it is for, and the resolvers of the machine.
type Host struct {
	Domain    string         // cluster domain
	Resolvers server.Forward // for /etc/resolv.conf
}

// Config is what a Corefile says.
type Config struct {
	Cluster  dns.Options
	Server   server.Settings
	Warnings []string // what it asks for that is not there
}

// Parse reads a Corefile with the files of coredns-custom by their names. Those that end with .server are further
// server blocks also without an import, as in the clusters that have such a ConfigMap.
func Parse(text string, custom map[string]string, host Host) (*Config, error) {
	blocks, err := read("Corefile", text, custom)
	if err != nil {
		return nil, err
	}
	if !strings.Contains(text, ".server") {
		more, err := imported([]string{"*.server"}, "coredns-custom", custom)
		if err != nil {
			return nil, err
		}
		blocks = append(blocks, more...)
	}
	r := &reader{host: host, files: custom}
	r.c.Cluster.Pods = dns.PodsDisabled // CoreDNS's default
	for _, b := range blocks {
		if err := r.server(b); err != nil {
			return nil, err
		}
	}
	if len(blocks) == 0 {
		return nil, errors.New("the Corefile has no server block")
	}
	if err := r.c.Server.Check(); err != nil {
		return nil, fmt.Errorf("the Corefile: %w", err)
	}
	return &r.c, nil
}

// reader gathers a Config.
type reader struct {
	host  Host
	files map[string]string // of the ConfigMaps, by their names
	c     Config
	zone  string // of the server block being read
	main  bool   // it is the one of all names, or of the cluster
}

func (r *reader) warn(l *line, format string, v ...any) {
	r.c.Warnings = append(r.c.Warnings, l.errorf(format, v...).Error())
}

// server reads one server block, for each of its zones.
func (r *reader) server(b *line) error {
	if !b.open {
		return b.errorf("%q is not a server block: a { is missing", strings.Join(b.words, " "))
	}
	for _, key := range b.words {
		zone, err := zoneOf(strings.TrimSuffix(key, ","))
		if err != nil {
			return b.errorf("%v", err)
		}
		r.zone = zone
		r.main = zone == "." || strings.EqualFold(strings.TrimSuffix(zone, "."), strings.TrimSuffix(r.host.Domain, "."))
		for _, l := range b.block {
			if err := r.directive(l); err != nil {
				return err
			}
		}
	}
	return nil
}

// zoneOf reads a server block's key: "example.org:53", "dns://.:53".
func zoneOf(key string) (string, error) {
	scheme, rest, ok := strings.Cut(key, "://")
	if !ok {
		rest = key
	} else if scheme != "dns" {
		return "", fmt.Errorf("%s: only plain DNS is served", key)
	}
	zone, _, _ := strings.Cut(rest, ":")
	if zone == "" {
		zone = "."
	}
	if _, ok := dns.ParseName(zone); !ok {
		return "", fmt.Errorf("%q is not a domain name", zone)
	}
	return zone, nil
}

// inherent are directives for which there is nothing to do: what they ask for is always so here.
var inherent = []string{"ready", "prometheus", "loop", "reload", "loadbalance", "any", "bufsize", "multisocket", "shed", "whoami"}

func (r *reader) directive(l *line) error {
	read := map[string]func(*line) error{"forward": r.forward, "errors": r.errors, "template": r.template}
	if r.main {
		read["kubernetes"], read["cache"], read["hosts"], read["rewrite"] = r.kubernetes, r.cache, r.hosts, r.rewrite
		read["log"], read["health"] = r.log, r.health
	} else {
		read["cache"] = r.stubCache
	}
	name := l.words[0]
	switch f := read[name]; {
	case f != nil:
		return f(l)
	case slices.Contains(inherent, name):
	case r.main:
		r.warn(l, "directive %q is not supported and is left out", name)
	default:
		r.warn(l, "directive %q is not supported in the server block of %s and is left out", name, r.zone)
	}
	return nil
}
