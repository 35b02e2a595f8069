// Package explain says of any destination where a connection to it goes, and why.
//
// It follows one connection through a snapshot the way the packets go: the name, the frontend, the traffic policy,
// every backend with its probability and every one left out with the reason, and the address that the backend will
// see. Where there is no answer it says exactly why, and what to change. Backends are chosen by model.Select, the
// same function that the dataplane is planned with, names by the DNS plan, and routes of a URL by that of the proxy.
//
// What is wanted comes from the snapshot. What a node's kernel holds for the one connection in question, World.Held
// reads, so that a difference is told, and the backend that a client keeps by session affinity.
//
// It is pure but for what World's functions do. It sends no packet and does not look into pods: a backend that does
// not listen is one that the connection is delivered to.
package explain

import (
	"errors"
	"fmt"
	"net/netip"

	"minato/internal/model"
)

// Query is the question of `minato explain`.
type Query struct {
	To        string // name:port, address:port, URL, name, svc/NAME, svc/NAMESPACE/NAME
	From      string // pod/NAMESPACE/NAME, node/NAME, lan, an address; empty: some pod of Namespace
	Protocol  string // tcp, udp, sctp; empty: tcp, or udp where only that is served
	Namespace string // of svc/NAME and of the pod that an empty From stands for; empty: default
}

// Verdict is how a new connection ends.
type Verdict string

// The verdicts. ExitCode gives each its number.
const (
	Delivered  Verdict = "delivered"
	Refused    Verdict = "refused" // at once: a TCP reset, an ICMP error, or an error of the Ingress proxy
	Dropped    Verdict = "dropped" // silence until the client gives up
	NoSuchName Verdict = "no such name"
)

// ExitCode is the exit code of `minato explain`.
func (v Verdict) ExitCode() int {
	switch v {
	case Refused:
		return 3
	case Dropped:
		return 4
	case NoSuchName:
		return 5
	}
	return 0
}

// Origin is where the connection starts.
type Origin struct {
	Kind    string     `json:"kind"` // pod, node, or lan
	Name    string     `json:"name,omitempty"`
	Addr    netip.Addr `json:"address,omitzero"`
	Node    string     `json:"node,omitempty"` // whose dataplane the connection meets first; empty on the LAN
	Assumed bool       `json:"assumed,omitempty"`

	namespace string
	pod       *model.Pod // when the API was asked for it
}

// Lookup is how a name became addresses.
type Lookup struct {
	Name     string       `json:"name"`
	Resolver string       `json:"resolver,omitempty"` // who is asked and with which search path, in words
	Steps    []Step       `json:"steps"`              // in the order of the search path; the last one answered
	CNAME    string       `json:"cname,omitempty"`
	Addrs    []netip.Addr `json:"addresses,omitempty"`
	Chosen   netip.Addr   `json:"chosen,omitzero"`
}

// Step is one name that was asked for, and the answer.
type Step struct {
	Name   string `json:"name"`
	Answer string `json:"answer"` // addresses, an alias, or NXDOMAIN or NODATA with the reason
}

// Choice is a backend that a connection may reach.
type Choice struct {
	Addr        netip.AddrPort `json:"address"`
	Pod         string         `json:"pod,omitempty"`
	Node        string         `json:"node,omitempty"`
	Probability float64        `json:"probability"`
	Source      string         `json:"source"`    // the client address that it sees
	SourceWhy   string         `json:"sourceWhy"` // why that one
	Condition   string         `json:"condition"` // of the endpoint
}

// LeftOut is a backend that is not used, and why.
type LeftOut struct {
	Addr   netip.AddrPort `json:"address"`
	Pod    string         `json:"pod,omitempty"`
	Node   string         `json:"node,omitempty"`
	Reason string         `json:"reason"`
}

// Result is a whole explanation.
type Result struct {
	To       string         `json:"to"`
	From     Origin         `json:"from"`
	Protocol string         `json:"protocol"`
	Revision uint64         `json:"revision"`
	Lookup   *Lookup        `json:"lookup,omitempty"`
	Addr     netip.AddrPort `json:"address,omitzero"`
	Service  string         `json:"service,omitempty"`
	Kind     string         `json:"kind,omitempty"` // of the frontend
	Port     string         `json:"port,omitempty"` // name of the Service's port
	Node     string         `json:"node,omitempty"` // that chooses the backend and translates the addresses
	Scope    string         `json:"scope,omitempty"`
	Policy   string         `json:"policy,omitempty"`
	Backends []Choice       `json:"backends,omitempty"`
	Pinned   *Pin           `json:"pinned,omitempty"` // by session affinity
	LeftOut  []LeftOut      `json:"leftOut,omitempty"`
	HTTP     *Request       `json:"http,omitempty"`    // a URL that an Ingress proxy answers
	Counted  *Counted       `json:"counted,omitempty"` // by the node's kernel
	Kernel   []string       `json:"kernel,omitempty"`  // in what the node's kernel differs from what is wanted
	Notes    []string       `json:"notes,omitempty"`
	Verdict  Verdict        `json:"verdict"`
	Reason   string         `json:"reason,omitempty"` // why the verdict is not delivered, or what is special
	Advice   []string       `json:"advice,omitempty"` // what to change
}

// ErrQuestion is in every error of Explain: the question itself cannot be understood, or names something that is
// not there to start from.
var ErrQuestion = errors.New("question not understood")

func questionf(format string, v ...any) error {
	return fmt.Errorf("%s%w", fmt.Sprintf(format, v...), silent{ErrQuestion})
}

// silent wraps an error without adding to the text.
type silent struct{ error }

func (silent) Error() string   { return "" }
func (s silent) Unwrap() error { return s.error }

// Explain answers q. An error, always an ErrQuestion, is for the user to mend; every other outcome is a Result.
func Explain(w World, q Query) (Result, error) {
	if w.Zone.Domain == "" {
		w.Zone.Domain = "cluster.local"
	}
	if q.Namespace == "" {
		q.Namespace = "default"
	}
	to, err := parseDestination(q)
	if err != nil {
		return Result{}, err
	}
	from, err := w.origin(q)
	if err != nil {
		return Result{}, err
	}
	r := Result{To: q.To, From: from, Protocol: to.protocol.String(), Revision: w.Snapshot.Revision}
	t := &trace{World: w, to: to, r: r}
	if err := t.run(); err != nil {
		return Result{}, err
	}
	return t.r, nil
}
