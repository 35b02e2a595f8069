//go:build linux

package nodes

import (
	"context"
	"errors"
	"net/netip"

	"minato/internal/netns"
)

// Network is a network that is up. Its methods are safe for concurrent use.
type Network struct {
	cfg   Config
	nodes map[string]*node
	// Notices tell the user what the host needs that could not be done for him, with the command to run.
	Notices []Notice
}

// Notice is something for the user to do. The network is up, but not whole, without it.
type Notice struct {
	Problem string // one sentence
	Command string // what to run, exactly
}

// ErrNoNode classifies errors about a node the network does not have.
var ErrNoNode = errors.New("no such node")

type node struct{ Node }

// Up makes the network, or adopts what exists of it and repairs what differs; running pods are not disturbed.
// Nodes the Config no longer has are removed. Errors are ErrConfig, ErrRangeInUse or of the kernel.
func Up(ctx context.Context, cfg Config) (*Network, error) {
	return nil, errors.ErrUnsupported
}

// Delete removes every trace of the network, also of one half made or left by a crash, and puts the host back. Of
// cfg it needs Name, StateDir and HostNetns. It is what both `minato down` and `minato delete` do.
func Delete(ctx context.Context, cfg Config) error { return errors.ErrUnsupported }

// Netns is the namespace of a node, for sockets and processes. A node that is not in the network is ErrNoNode.
func (n *Network) Netns(node string) (netns.NS, error) { return netns.NS{}, errors.ErrUnsupported }

// Close gives back the sockets of the Network. The network in the kernel stays.
func (n *Network) Close() {}

// AttachRequest asks for the link of a pod, or with HostNetwork for the node's own namespace.
type AttachRequest struct {
	Node        string
	Netns       string // path where the sandbox's network namespace is mounted
	ContainerID string // of the sandbox; identifies the link from now on
	IfName      string // of the pod's end; empty is eth0
	HostNetwork bool
}

// AttachResult says what the pod got.
type AttachResult struct {
	Netns    string
	IfName   string // empty with HostNetwork
	MAC      string
	MTU      int
	Addrs    []netip.Prefix // of the pod; with HostNetwork the node's addresses
	Gateways []netip.Addr   // one per family; none with HostNetwork
}

// ErrNoAddress classifies an Attach for which the node's pod range has no address left.
var ErrNoAddress = errors.New("no pod address left")

// Attach links a sandbox to its node and gives it an address. Asked again for the same container it answers the
// same; what a broken Attach left is completed.
func (n *Network) Attach(ctx context.Context, req AttachRequest) (AttachResult, error) {
	return AttachResult{}, errors.ErrUnsupported
}

// Detach removes what Attach made. What is not there is no error. Only Node and ContainerID are needed, and no
// Node means any.
func (n *Network) Detach(ctx context.Context, req AttachRequest) error { return errors.ErrUnsupported }
