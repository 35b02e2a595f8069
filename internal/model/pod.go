package model

import "net/netip"

// Pod is a pod as far as connections to and from it need it. Snapshots know pods only as backends: these are read
// when somebody asks for one.
type Pod struct {
	Namespace, Name string
	Addr            netip.Addr // invalid before it has one
	Node            string
	HostNetwork     bool
	Phase           string // of its status
	Labels          map[string]string
	Ports           []Port // that its containers declare: Name, Protocol and Port of each

	// Of its resolv.conf.
	DNSPolicy   string
	Nameservers []string // of dnsConfig
	Searches    []string // of dnsConfig
	Ndots       int      // of dnsConfig, 0: not set
}
