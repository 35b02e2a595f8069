// Package lan makes load balancer addresses known on a node's link: it answers who asks for them, and tells everybody
// when one has come here.
//
// The addresses are on no interface, so nothing of them is left when the process ends, and the kernel never answers
// for them itself: packets are taken by the dataplane before they are routed. A Speaker is an apply.Publisher: it
// stops answering in the withdraw phase and starts when the dataplane is ready. What it announces is package
// announce's plan; it decides nothing. Another machine that uses one of its addresses is noticed and told of, and
// everybody is told again (RFC 5227, 2.4 c); the address is not given up.
//
// It knows no protocol: packages arp and ndp are its wires.
package lan

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"

	"minato/internal/announce"
	"minato/internal/model"
)

const (
	// An address that is new here is told of this often at once, with a pause that is longer than the second in which
	// Linux ignores a change after another (metallb#172).
	quickTellings = 5
	quickPause    = 1100 * time.Millisecond
	// After that slowly for ever: switches forget where an address is (metallb#2910).
	slowPause = 30 * time.Second
	// A link that is not there, or goes, is looked for again.
	retryMin, retryMax = 100 * time.Millisecond, 10 * time.Second
)

// Config is what a Speaker works with.
type Config struct {
	Name string // of the component on the status board
	Node string
	IPv6 bool                 // announce addresses of IPv6, else those of IPv4
	Open func() (Wire, error) // opens the node's link, which may not be there
	// Conflict, optional, is told once when another machine keeps saying that it has an address. It must not call the
	// Speaker.
	Conflict func(services []model.ServiceName, text string)
	Log      *slog.Logger
}

// Wire speaks one protocol on one link. Receive is called by one goroutine and the others by another; after Close,
// Receive returns an error that wraps os.ErrClosed.
type Wire interface {
	Receive() (Question, error) // waits for the next
	Answer(Question) error      // says to who asks that the address is here
	Tell(netip.Addr) error      // says so to everybody, and asks whether another has it
	Close() error
}

// Question asks who has an address, or, where Addr and From are the same, says that MAC has it.
type Question struct {
	Addr netip.Addr
	From netip.Addr // unspecified: who asks wants to know whether the address is free
	MAC  MAC        // of who asks
}

// Speaker announces addresses on one link. Its methods are safe for concurrent use.
type Speaker struct {
	cfg  Config
	wake chan struct{} // the addresses have changed

	mu     sync.Mutex
	plan   *announce.Plan
	peers  []model.Peer // as of the last Publish
	addrs  map[netip.Addr]*telling
	broken error // why the link is not served; nil while it is
	muted  bool
}

// telling is how often everybody was told of an address, and when to tell again.
type telling struct {
	times int
	next  time.Time
	rival rival
}

// New makes a Speaker. It says nothing before Run.
func New(cfg Config) *Speaker {
	return &Speaker{cfg: cfg, wake: make(chan struct{}, 1), plan: &announce.Plan{}, addrs: map[netip.Addr]*telling{}}
}

// Name is the component's on the status board.
func (s *Speaker) Name() string { return s.cfg.Name }

// Withdraw stops answering for every address that is not this node's in next.
func (s *Speaker) Withdraw(_ context.Context, next *model.Snapshot) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.plan = s.plan.Next(next)
	for a := range s.addrs {
		if of := s.plan.Of(a); of == nil || of.Node != s.cfg.Node {
			delete(s.addrs, a)
			s.cfg.Log.Info("stopped announcing a load balancer address", "address", a)
		}
	}
	return nil
}

// Publish announces what is new. An address of which every Service is held waits until one is programmed.
func (s *Speaker) Publish(_ context.Context, next *model.Snapshot, held func(model.ServiceName) bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.plan = s.plan.Next(next)
	if s.muted {
		return nil
	}
	if !slices.Equal(s.peers, next.Peers) { // where a network was in parts, some have not heard who has the address
		s.peers = next.Peers
		s.again()
	}
	for a := range s.plan.On(s.cfg.Node) {
		if a.Addr.Is6() == s.cfg.IPv6 && s.addrs[a.Addr] == nil && !all(a.Services, held) {
			s.addrs[a.Addr] = &telling{}
			s.cfg.Log.Info("announcing a load balancer address", "address", a.Addr, "services", a.Services)
		}
	}
	s.poke()
	if len(s.addrs) == 0 {
		return nil // a link that is not served hurts nobody
	}
	return s.broken
}

func all(names []model.ServiceName, held func(model.ServiceName) bool) bool {
	for _, n := range names {
		if !held(n) {
			return false
		}
	}
	return true
}

// Announced reports whether the address is answered for now.
func (s *Speaker) Announced(a netip.Addr) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.addrs[a] != nil
}

// Mute makes the Speaker fall silent without a word, as if its program hung. When it may speak again, it announces
// nothing before the next Publish.
func (s *Speaker) Mute(muted bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.muted = muted; muted {
		clear(s.addrs)
	}
}

// again has every address told of as if it were new here. The mutex is held.
func (s *Speaker) again() {
	for _, t := range s.addrs {
		t.times, t.next = 0, time.Time{}
	}
}

// poke has tell look at the addresses.
func (s *Speaker) poke() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Run speaks on the link until ctx ends, and then returns nil. While the link is not there it is looked for.
func (s *Speaker) Run(ctx context.Context) error {
	delay := retryMin
	for ctx.Err() == nil {
		start := time.Now()
		w, err := s.cfg.Open()
		if err == nil {
			s.serving(nil)
			err = s.serve(ctx, w)
		}
		if ctx.Err() != nil {
			return nil
		}
		if time.Since(start) > retryMax { // it worked for a while
			delay = retryMin
		}
		s.serving(err)
		s.cfg.Log.Warn("load balancer addresses are not announced", "again in", delay, "error", err)
		select {
		case <-ctx.Done():
		case <-time.After(delay):
		}
		delay = min(2*delay, retryMax)
	}
	return nil
}

// serving records whether the link is served. Whoever has lost it may have missed what was told before.
func (s *Speaker) serving(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.broken = err
	s.again()
}

// serve answers and tells until ctx ends or the link fails.
func (s *Speaker) serve(ctx context.Context, w Wire) error {
	answering := make(chan error, 1)
	go func() { answering <- s.answer(w) }()
	err := s.tell(ctx, w, answering)
	return errors.Join(err, w.Close(), <-answering)
}

// answer answers requests until the wire is closed or fails.
func (s *Speaker) answer(w Wire) error {
	for {
		q, err := w.Receive()
		if errors.Is(err, os.ErrClosed) {
			return nil
		}
		if err != nil {
			return err
		}
		s.claimed(q.From, q.MAC, time.Now())
		// Who announces the address itself gets no answer: two of them would never end.
		if q.From == q.Addr || !s.Announced(q.Addr) {
			continue
		}
		if err := w.Answer(q); err != nil {
			return err
		}
	}
}

// tell tells everybody of the addresses when it is time to.
func (s *Speaker) tell(ctx context.Context, w Wire, answering chan error) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-answering:
			answering <- err // for serve
			return nil
		case <-s.wake:
		case <-timer.C:
		}
		due, next := s.due(time.Now())
		for _, a := range due {
			if err := w.Tell(a); err != nil {
				return err
			}
		}
		timer.Reset(next)
	}
}

// due takes the addresses that are to be told of now, and says how long to wait for the next.
func (s *Speaker) due(now time.Time) (due []netip.Addr, next time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	next = slowPause
	for a, t := range s.addrs {
		if !t.next.After(now) {
			due = append(due, a)
			t.times++
			pause := slowPause
			if t.times < quickTellings {
				pause = quickPause
			}
			t.next = now.Add(pause)
		}
		next = min(next, t.next.Sub(now))
	}
	return due, next
}
