package explain

import (
	"net/netip"
	"time"

	"minato/internal/dataplane/nftables"
	"minato/internal/dns"
	"minato/internal/model"
)

// World is what an explanation is drawn from. Snapshot must be set, and Names where names are asked for.
type World struct {
	Snapshot     *model.Snapshot
	Names        Names
	Zone         dns.Zone // of the cluster; without a Domain it is cluster.local
	NodeSearch   []string // search path of the nodes' own resolv.conf, which pods have after the cluster's
	ServiceCIDRs []netip.Prefix
	LAN          []netip.Addr               // of the machine that "lan" stands for, one of a family; empty: any
	Unrouted     []netip.Prefix             // ranges that the machine which is the LAN refuses by an unreachable route of its own
	Except       map[model.ServiceName]bool // Services that something on every node itself answers for: DNS
	Front        model.ServiceName          // the Service of the Ingress proxies, which answer at 80 and 443 of nodes too
	Pods         Pods                       // may be nil: then only pods behind some Service are known
	// Held reads what the kernel of a node holds for one scope of a frontend, and for one client; it may be nil.
	Held func(node string, f Frontend, client netip.Addr) (Held, error)
}

// Names answers a fully qualified name, without its last dot, as the cluster's DNS does. A dns.View is one.
type Names interface {
	Resolve(name string) dns.Resolution
}

// Pods asks the API about pods. A failed request finds nothing; who has made the World reports it.
type Pods interface {
	Pod(namespace, name string) (model.Pod, bool)
	At(netip.Addr) (model.Pod, bool)   // which has the address and is not in its node's network
	In(namespace string) []model.Pod   // all of a namespace
	Match(selector string) []model.Pod // of any namespace
}

// Frontend is what a node's dataplane looks a connection up by.
type Frontend struct {
	Scope    model.Scope
	Addr     netip.AddrPort
	Protocol model.Protocol
}

// Held is what a kernel holds for a frontend, for one client, and has counted.
type Held struct {
	nftables.Held
	Pin     Pin // Backend is invalid without one
	Counted Counted
}

// Counted are new connections that a kernel has counted, to the port of the Service by the same policy.
type Counted struct {
	Forwarded uint64 `json:"forwarded"`
	Refused   uint64 `json:"refused"`
	Dropped   uint64 `json:"dropped"`
}

// Pin is a backend that session affinity keeps a client at.
type Pin struct {
	Backend netip.AddrPort `json:"backend"`
	Left    time.Duration  `json:"left"` // until it is forgotten, if the client does not come again; nanoseconds in JSON
}
