//go:build linux

package nodes

import (
	"slices"

	"minato/internal/nfnl"
)

// Firewall is what is found of the host's firewall, before anything is changed.
type Firewall struct {
	Opened  []string // those that Up opens for the nodes by itself
	Notices []Notice // those that only their owner can open
}

// Look reports whether Up would find its ranges free, and which firewalls it would meet. It changes nothing.
func Look(cfg Config) (Firewall, error) {
	host, err := openSpace(cfg.HostNetns)
	if err != nil {
		return Firewall{}, err
	}
	defer host.Close()
	if err := cfg.checkRanges(host); err != nil {
		return Firewall{}, err
	}
	conn, err := nfnl.Open(cfg.HostNetns)
	if err != nil {
		return Firewall{}, err
	}
	defer conn.Close()
	var f Firewall
	chains, err := conn.Chains(nfnl.IPv4, filterTable)
	if err != nil {
		return Firewall{}, err
	}
	for _, known := range []struct{ chain, name string }{{dockerChain, "Docker"}, {"ufw-before-forward", "ufw"}, {forwardChain, "iptables"}} {
		if slices.ContainsFunc(chains, func(ch nfnl.Chain) bool { return ch.Name == known.chain }) {
			f.Opened = append(f.Opened, known.name)
		}
	}
	f.Notices, err = cfg.firewallNotices(conn)
	f.Notices = append(f.Notices, cfg.legacyNotices()...)
	return f, err
}
