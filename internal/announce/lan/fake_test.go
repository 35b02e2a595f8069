package lan_test

import (
	"fmt"
	"net/netip"
	"os"
	"sync"
	"time"

	"minato/internal/announce/lan"
)

// fakeWire is a link in memory. It panics when it is used in a way that a real one would not survive.
type fakeWire struct {
	in chan lan.Question

	mu     sync.Mutex
	closed bool
	told   []told
	fail   error // of the next that is said
}

// told is what was said when, to one (an answer) or to everybody.
type told struct {
	At   time.Time
	To   lan.MAC
	Addr netip.Addr
}

func newFakeWire() *fakeWire { return &fakeWire{in: make(chan lan.Question)} }

func (f *fakeWire) Receive() (lan.Question, error) {
	q, ok := <-f.in
	if !ok {
		return lan.Question{}, fmt.Errorf("receiving: %w", os.ErrClosed)
	}
	return q, nil
}

func (f *fakeWire) Answer(q lan.Question) error { return f.say(told{time.Now(), q.MAC, q.Addr}) }

func (f *fakeWire) Tell(a netip.Addr) error { return f.say(told{time.Now(), lan.Everybody, a}) }

func (f *fakeWire) say(t told) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !t.Addr.Is4() {
		panic(fmt.Sprintf("said %+v", t))
	}
	if f.closed {
		return os.ErrClosed
	}
	err := f.fail
	if f.fail = nil; err == nil {
		f.told = append(f.told, t)
	}
	return err
}

func (f *fakeWire) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		panic("closed twice")
	}
	f.closed = true
	close(f.in)
	return nil
}

// take is what was sent since the last call.
func (f *fakeWire) take() []told {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := f.told
	f.told = nil
	return out
}

func (f *fakeWire) failNext(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fail = err
}
