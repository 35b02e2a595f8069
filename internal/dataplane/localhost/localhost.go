// Package localhost answers NodePorts over TCP and UDP at 127.0.0.1 and ::1 of one node, as kube-proxy's iptables mode does
// at 127.0.0.1: by a socket for each, which passes connections and datagrams on to the node's own address.
//
// A socket, because the kernel cannot: a translated packet from 127.0.0.1 leaves the node only with route_localnet,
// which lets the LAN reach what listens on the loopback (CVE-2020-8558), and one from ::1 never does. (Kubernetes goes
// the same way in KEP-6032.) What becomes of a connection is decided by nftables, as for any of the node itself.
//
// A Server is an apply.Publisher: a port opens after it is programmed, and closes before it is not. It does not answer
// SCTP, nor at addresses that --nodeport-addresses leaves out; connections of TCP end with the process.
package localhost

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"minato/internal/apply"
	"minato/internal/handover"
	"minato/internal/model"
	"minato/internal/netns"
)

// Config is what a Server works with.
type Config struct {
	Netns   netns.NS
	Sockets *handover.Set // of the process; nil: none are handed over
	Log     *slog.Logger
	// Idle is after how long without a datagram a client of UDP is forgotten, DefaultIdle. Sessions is how many are known
	// for each port, DefaultSessions: beyond it a new one takes the place of the one that was quiet for the longest time.
	Idle     time.Duration
	Sessions int
}

// Server has the listeners of one node. Make it with New; Run runs it. Withdraw and Publish may be called before Run
// and beside it.
type Server struct {
	cfg  Config
	node atomic.Pointer[model.Node]
	ctx  context.Context // of all connections
	end  context.CancelFunc
	work sync.WaitGroup
	// over is closed when no port is open any more.
	over chan struct{}

	mu     sync.Mutex // guards all below
	closed bool
	seen   *model.Snapshot
	again  map[model.ServiceName]bool // to look at although they are unchanged: held, or refused
	ports  map[address]port
	of     map[model.ServiceName][]address
}

// address is where the node listens.
type address struct {
	netip.AddrPort
	protocol model.Protocol
}

func (a address) String() string { return a.AddrPort.String() + "/" + a.protocol.String() }

type port struct {
	io.Closer
	service model.ServiceName
}

// New makes a server without open ports.
func New(cfg Config) *Server {
	if cfg.Idle == 0 {
		cfg.Idle = DefaultIdle
	}
	if cfg.Sessions == 0 {
		cfg.Sessions = DefaultSessions
	}
	s := &Server{cfg: cfg, again: map[model.ServiceName]bool{}, ports: map[address]port{}, of: map[model.ServiceName][]address{}, over: make(chan struct{})}
	s.ctx, s.end = context.WithCancel(context.Background())
	return s
}

// Name names the component in the status.
func (s *Server) Name() string { return "localhost" }

// lastConnections is how long connections have that were taken before a successor of the process took the ports.
const lastConnections = time.Minute

// Run keeps the ports open until ctx ends, and then closes them and ends all connections; where a successor has the
// ports, those that end by themselves within a minute are not cut.
func (s *Server) Run(ctx context.Context) error {
	<-ctx.Done()
	s.mu.Lock()
	s.closed = true
	for _, p := range s.ports {
		p.Close()
	}
	s.mu.Unlock()
	close(s.over)
	if s.cfg.Sockets.Handed() {
		defer time.AfterFunc(lastConnections, s.end).Stop()
	} else {
		s.end()
	}
	s.work.Wait()
	s.end()
	return nil
}

// Closed is closed when Run has closed all ports, and so takes nothing more from clients. A successor begins then.
func (s *Server) Closed() <-chan struct{} { return s.over }

// wanted are the addresses at which the node is to listen for a Service; nil is one that is gone.
func wanted(svc *model.Service, n *model.Node) (at []address) {
	if svc == nil || n == nil {
		return nil
	}
	for _, f := range svc.Frontends {
		if f.Kind != model.NodePort || f.Protocol == model.SCTP {
			continue
		}
		local := netip.AddrFrom4([4]byte{127, 0, 0, 1})
		if f.Addr.Addr().Is6() {
			local = netip.IPv6Loopback()
		}
		if n.AnswersNodePorts(local) && len(n.NodePortAddrs(local.Is6())) > 0 {
			at = append(at, address{netip.AddrPortFrom(local, f.Addr.Port()), f.Protocol})
		}
	}
	return at
}

// changed are the Services to look at: those that differ, all where the node answers otherwise, and those from before.
func (s *Server) changed(next *model.Snapshot) map[model.ServiceName]bool {
	names := maps.Clone(s.again)
	for _, c := range model.Diff(s.seen, next).Services {
		names[c.Name] = true
	}
	if s.seen == nil || !sameNode(s.seen.Node, next.Node) {
		for svc := range next.Services() {
			names[svc.Name] = true
		}
	}
	return names
}

func sameNode(a, b *model.Node) bool {
	return a == b || a != nil && b != nil && slices.Equal(a.Addrs, b.Addrs) && slices.Equal(a.NodePorts, b.NodePorts)
}

// Withdraw closes the ports that next does not have.
func (s *Server) Withdraw(ctx context.Context, next *model.Snapshot) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := ctx.Err(); err != nil || s.closed {
		return err
	}
	for name := range s.changed(next) {
		s.closeBut(name, wanted(next.Service(name), next.Node))
	}
	return nil
}

func (s *Server) closeBut(name model.ServiceName, keep []address) {
	left := slices.DeleteFunc(s.of[name], func(at address) bool {
		if slices.Contains(keep, at) {
			return false
		}
		s.ports[at].Close()
		delete(s.ports, at)
		return true
	})
	if s.of[name] = left; len(left) == 0 {
		delete(s.of, name)
	}
}

// Publish opens the ports of next, except those of Services that are held. A port that cannot be opened is an error;
// the others are open.
func (s *Server) Publish(ctx context.Context, next *model.Snapshot, held func(model.ServiceName) bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := ctx.Err(); err != nil || s.closed {
		return err
	}
	s.node.Store(next.Node)
	names := s.changed(next)
	s.seen, s.again = next, map[model.ServiceName]bool{}
	var errs []error
	for _, name := range slices.SortedFunc(maps.Keys(names), model.ServiceName.Compare) {
		if held(name) {
			s.again[name] = true
			continue
		}
		for _, at := range wanted(next.Service(name), next.Node) {
			if err := s.open(ctx, name, at); err != nil {
				s.again[name] = true
				errs = append(errs, fmt.Errorf("the NodePort of Service %s is not answered at %s, but at the node's other addresses (%w): %w", name, at, apply.ErrWithdrawn, err))
			}
		}
	}
	return errors.Join(errs...)
}

// open listens at an address, unless it does already. One that another Service has is that one's until it goes.
func (s *Server) open(ctx context.Context, name model.ServiceName, at address) error {
	if p, ok := s.ports[at]; ok {
		if p.service != name {
			return fmt.Errorf("the Service %s has it", p.service)
		}
		return nil
	}
	open := s.openTCP
	if at.protocol == model.UDP {
		open = s.openUDP
	}
	c, err := open(ctx, at.AddrPort)
	if err != nil {
		return err
	}
	s.ports[at] = port{c, name}
	s.of[name] = append(s.of[name], at)
	return nil
}

func (s *Server) openTCP(ctx context.Context, at netip.AddrPort) (io.Closer, error) {
	l, err := s.cfg.Sockets.Listener("localhost/"+s.cfg.Netns.String()+"/"+at.String(), func() (net.Listener, error) {
		return s.cfg.Netns.Listen(ctx, "tcp", at.String())
	})
	if err == nil {
		s.work.Go(func() { s.accept(l, at) })
	}
	return l, err
}

// takeoverBuffer has room for some hundred milliseconds of what clients send, in which a new process may be too busy to
// read.
const takeoverBuffer = 1 << 20

func (s *Server) openUDP(ctx context.Context, at netip.AddrPort) (io.Closer, error) {
	name := "localhost/" + s.cfg.Netns.String() + "/" + at.String() + "/udp"
	c, err := s.cfg.Sockets.PacketConn(name, func() (net.PacketConn, error) {
		c, err := s.cfg.Netns.ListenPacket(ctx, "udp", at.String())
		if err == nil {
			_ = c.(*net.UDPConn).SetReadBuffer(takeoverBuffer) // the kernel may give less
		}
		return c, err
	})
	if err != nil {
		return nil, err
	}
	r := newRelay(s, name, c, at)
	s.work.Go(r.run)
	return r, nil
}

// target is the same port of the node's own address. What answers there, and what refuses, is nftables'.
func (s *Server) target(at netip.AddrPort) (to netip.AddrPort, ok bool) {
	n := s.node.Load()
	if n == nil {
		return to, false
	}
	addrs := n.NodePortAddrs(at.Addr().Is6())
	if len(addrs) == 0 {
		return to, false
	}
	return netip.AddrPortFrom(addrs[0], at.Port()), true
}

// pause waits a moment after an error that passes, such as too many descriptors; it reports false when the server ends.
func (s *Server) pause(at netip.AddrPort, err error) bool {
	if s.ctx.Err() != nil {
		return false
	}
	s.cfg.Log.Warn("a connection to a NodePort at the loopback was not taken", "address", at, "error", err)
	select {
	case <-s.ctx.Done():
		return false
	case <-time.After(100 * time.Millisecond):
		return true
	}
}
