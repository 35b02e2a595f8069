// Package heartbeat tells the agents of a network which of them are there, within a second, so that the address of
// a load balancer does not wait for the API to notice that its node is gone.
//
// Every agent sends a small UDP packet to every other, ten times a second, and hears theirs. Whoever was heard and is
// silent for 600 ms is gone, for this agent. An agent that hears less than half of those it has heard before, itself with
// them, is cut off, and says so; of two equal halves, the one with the witness goes on. So of a network in parts at most
// one announces. Who is known to be away by the API, too, is not counted. An agent that comes back is new for some seconds, so that a link which comes and goes does not take
// addresses with it each time. Time in which this process itself stood still is not counted as others' silence.
//
// What it hears goes into the agent's snapshots (model.Peer); package announce draws the conclusions. It authenticates
// nobody but by the address: who can forge that on a LAN can answer ARP as well. It is not for networks of many
// hundred nodes, since everybody sends to everybody.
package heartbeat

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"minato/internal/model"
	"minato/internal/netns"
)

// Port is the UDP port on which agents hear each other.
const Port = 10262

const (
	interval = 100 * time.Millisecond
	patience = 600 * time.Millisecond // silence after which a peer is gone
	hold     = 3 * time.Second        // how long who comes back is new
	// Silence of the witness after which this agent is parted from its side. To be cut off from there costs more than an
	// address that moves in vain, so that a busy machine gets more time.
	parting = 3 * time.Second
)

// Member is one who sends heartbeats.
type Member struct {
	Name string
	Addr netip.Addr
	Away bool // its silence is no news: it does not count
}

// Heard is how things stand for one agent.
type Heard struct {
	Peers []model.Peer // sorted by name; the agent itself is one
	// Connected is false when the witness was not heard for 3 s: what is on its side of the network is out of reach.
	Connected bool
}

// Config is what a Heart works with.
type Config struct {
	Self    Member
	Netns   netns.NS
	Members func() []Member // all agents there are; the Heart's own among them does not matter
	Witness Member          // takes part and announces nothing; zero for none, and for the witness itself
	Heard   func(Heard)     // is told of every change, one after the other; nil for who only sends
	Log     *slog.Logger
}

// Heart is one agent's part. Its methods are safe for concurrent use.
type Heart struct {
	cfg Config

	mu      sync.Mutex
	hearing hearing
	told    Heard
	paused  bool
}

// New makes a Heart. It does not beat before Run.
func New(cfg Config) *Heart { return &Heart{cfg: cfg} }

// Pause makes the Heart neither send nor hear, or beat on, as new: the next beat tells how things stand by then.
func (h *Heart) Pause(paused bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.paused && !paused {
		h.hearing.resume(time.Now())
		h.told = Heard{}
	}
	h.paused = paused
}

// Run beats until ctx ends, and then returns nil. Only a port that cannot be opened is an error: a network that does
// not carry heartbeats is what it is there to notice.
func (h *Heart) Run(ctx context.Context) error {
	packets, err := h.cfg.Netns.ListenPacket(ctx, "udp", netip.AddrPortFrom(h.cfg.Self.Addr, Port).String())
	if err != nil {
		return fmt.Errorf("open the port of heartbeats: %w", err)
	}
	conn := packets.(*net.UDPConn)
	h.mu.Lock()
	h.hearing = newHearing(h.cfg.Self.Name, h.cfg.Witness.Name, time.Now())
	h.mu.Unlock()
	listening := make(chan struct{})
	go func() { // ended by Close, waited for below
		defer close(listening)
		h.listen(conn)
	}()
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for ctx.Err() == nil {
		h.beat(conn)
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
	err = conn.Close()
	<-listening
	return err
}

// beat judges what was heard, tells of a change, and sends to everybody.
func (h *Heart) beat(conn *net.UDPConn) {
	h.mu.Lock()
	if h.paused {
		h.mu.Unlock()
		return
	}
	to := h.cfg.Members()
	now := h.hearing.judge(time.Now(), to)
	changed := !slices.Equal(now.Peers, h.told.Peers) || now.Connected != h.told.Connected
	h.told = now
	message := encode(h.cfg.Self.Name, h.hearing.own)
	h.mu.Unlock()
	if changed && h.cfg.Heard != nil {
		h.cfg.Heard(now)
	}
	if h.cfg.Witness.Name != "" {
		to = append(slices.Clip(to), h.cfg.Witness)
	}
	for _, m := range to {
		if m.Name != h.cfg.Self.Name && m.Addr.IsValid() {
			_, _ = conn.WriteToUDPAddrPort(message, netip.AddrPortFrom(m.Addr, Port)) // who is out of reach hears nothing
		}
	}
}

func (h *Heart) listen(conn *net.UDPConn) {
	buf := make([]byte, maxMessage+1)
	for {
		n, from, err := conn.ReadFromUDPAddrPort(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue // an ICMP error about something that was sent
		}
		name, state, ok := decode(buf[:n])
		if !ok || !h.isMember(name, from.Addr().Unmap()) {
			h.cfg.Log.Debug("a heartbeat of nobody", "from", from, "name", name)
			continue
		}
		h.mu.Lock()
		if !h.paused {
			h.hearing.hear(name, state, time.Now())
		}
		h.mu.Unlock()
	}
}

func (h *Heart) isMember(name string, addr netip.Addr) bool {
	is := func(m Member) bool { return m.Name == name && m.Addr == addr }
	return name != h.cfg.Self.Name && (is(h.cfg.Witness) || slices.ContainsFunc(h.cfg.Members(), is))
}
