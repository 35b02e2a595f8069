//go:build linux

package nodes

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sync"

	"minato/internal/netns"
)

// Network is a network that is up. Its methods are safe for concurrent use.
type Network struct {
	// Notices tell the user what his host needs that could not be done for him.
	Notices []Notice

	cfg   Config
	nodes map[string]*node
}

// Notice is something for the user to do. Without it the network is up, but not whole.
type Notice struct {
	Problem string // one sentence
	Command string // what to run, exactly
}

// ErrNoNode classifies errors about a node which the network does not have.
var ErrNoNode = errors.New("no such node")

// Up makes the network, or adopts what exists of it and repairs what differs; running pods are not disturbed. Nodes
// that cfg no longer has are removed. There must be one Up or Delete of a name at a time. Errors are ErrConfig,
// ErrRangeInUse or of the kernel; what was made until then stays, for another Up or for Delete.
func Up(ctx context.Context, cfg Config) (*Network, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg.Nodes, cfg.Families, cfg.said = slices.Clone(cfg.Nodes), slices.Clone(cfg.Families), new(sync.Map)
	host, err := openSpace(cfg.HostNetns)
	if err != nil {
		return nil, err
	}
	defer host.Close()
	if err := cfg.checkRanges(host); err != nil {
		return nil, err
	}
	j, err := openJournal(cfg.StateDir)
	if err != nil {
		return nil, err
	}
	n := &Network{cfg: cfg, nodes: map[string]*node{}}
	if err := n.up(ctx, host, j); err != nil {
		n.Close()
		return nil, err
	}
	return n, nil
}

func (n *Network) up(ctx context.Context, host *space, j *journal) (err error) {
	if err := n.cfg.removeOthers(j); err != nil {
		return err
	}
	var lan *space
	if !n.cfg.onHost() {
		if lan, err = n.cfg.makeLAN(j); err != nil {
			return err
		}
		defer lan.Close()
		if err := n.cfg.setHostLink(ctx, lan, host); err != nil {
			return err
		}
	}
	if n.Notices, err = n.cfg.setHost(host, j); err != nil {
		return err
	}
	for _, wanted := range n.cfg.Nodes {
		if err := ctx.Err(); err != nil {
			return err
		}
		made, err := n.cfg.makeNode(ctx, wanted, lan, j)
		if err != nil {
			return err
		}
		n.nodes[wanted.Name] = made
		if err := n.cfg.loadPorts(made); err != nil {
			return err
		}
	}
	return nil
}

// removeOthers deletes the namespaces of nodes that are not wanted any more.
func (c *Config) removeOthers(j *journal) error {
	own, err := c.ownNetns(j)
	if err != nil {
		return err
	}
	wanted := []string{NetnsPath(c.Name, lanName)}
	if c.onHost() {
		wanted = nil
	}
	for _, n := range c.Nodes {
		if !n.Host {
			wanted = append(wanted, NetnsPath(c.Name, n.Name))
		}
	}
	for _, path := range own {
		if slices.Contains(wanted, path) {
			continue
		}
		if err := errors.Join(deleteNetns(path), j.removeNetns(path)); err != nil {
			return err
		}
	}
	return nil
}

// Delete removes every trace of the network, also of one half made or left by a crash, and puts the host back: for
// `minato down` as for `minato delete`. Of cfg it needs Name, StateDir and HostNetns. It goes on after an error and
// returns all of them; then the journal stays, and Delete can be called again.
func Delete(ctx context.Context, cfg Config) error {
	host, err := openSpace(cfg.HostNetns)
	if err != nil {
		return err
	}
	defer host.Close()
	j, err := openJournal(cfg.StateDir)
	if err != nil {
		return err
	}
	errs := []error{cfg.deleteHostLinks(host), cfg.unsetHost(host, j), deleteTables(cfg.HostNetns, portsTable(cfg.Name))}
	own, err := cfg.ownNetns(j)
	errs = append(errs, err)
	for _, path := range own {
		if ctx.Err() != nil {
			errs = append(errs, ctx.Err())
			break
		}
		errs = append(errs, deleteNetns(path))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("remove the network of %s: %w", cfg.Name, err)
	}
	return j.remove()
}

// deleteHostLinks deletes the links on the host that carry the instance's mark: the one into the LAN, and with a
// Host node those of its pods.
func (c *Config) deleteHostLinks(host *space) error {
	links, err := list(host.LinkList)
	if err != nil {
		return fmt.Errorf("list links of the host: %w", err)
	}
	for _, l := range links {
		if l.Attrs().Alias == owner(c.Name) {
			err = errors.Join(err, host.deleteLink(l.Attrs().Name))
		}
	}
	return err
}

// deleteNetns deletes a namespace and first the links in it, because a process that stays keeps it alive.
func deleteNetns(path string) error {
	if !isNetns(path) {
		return netns.Delete(path)
	}
	s, err := openSpace(netns.At(path))
	if err != nil {
		return err
	}
	defer s.Close()
	links, err := list(s.LinkList)
	if err != nil {
		return fmt.Errorf("list links in %s: %w", filepath.Base(path), err)
	}
	for _, l := range links {
		if l.Attrs().Index != loopbackIndex {
			err = errors.Join(err, s.deleteLink(l.Attrs().Name))
		}
	}
	return errors.Join(err, netns.Delete(path))
}

// Netns is the namespace of a node, for sockets and processes. A node that the network does not have is ErrNoNode.
func (n *Network) Netns(name string) (netns.NS, error) {
	node, err := n.node(name)
	if err != nil {
		return netns.NS{}, err
	}
	return node.ns, nil
}

func (n *Network) node(name string) (*node, error) {
	if node, ok := n.nodes[name]; ok {
		return node, nil
	}
	return nil, fmt.Errorf("%w: %q", ErrNoNode, name)
}

// Close gives back the sockets of the Network, which must not be used any more. What is in the kernel stays.
func (n *Network) Close() {
	for _, node := range n.nodes {
		node.Close()
	}
}
