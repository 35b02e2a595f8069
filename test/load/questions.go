//go:build linux

package load

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// Questions asks a name server for addresses, each name every few milliseconds, and never again for what was lost. Its
// fields are read when Run has returned.
type Questions struct {
	From  Source            // Netns and DNS
	IPv6  bool              // ask for addresses of IPv6
	Names map[string]string // the wanted address, or response code, by fully qualified name

	Asked int
	Lost  []Lost // in the order in which they were asked

	mu sync.Mutex
}

// Lost is a question without the right answer.
type Lost struct {
	At   time.Time // when it was asked
	Name string
	Err  error
}

// How often each name is asked for, and how long an answer is waited for.
const (
	askEvery    = 5 * time.Millisecond
	askPatience = time.Second
)

// Run asks until ctx ends.
func (q *Questions) Run(ctx context.Context) {
	var waiting sync.WaitGroup
	tick := time.NewTicker(askEvery)
	defer tick.Stop()
	for ctx.Err() == nil {
		for name := range q.Names {
			q.Asked++
			waiting.Go(func() {
				at := time.Now()
				if err := q.Ask(name); err != nil {
					q.mu.Lock()
					defer q.mu.Unlock()
					q.Lost = append(q.Lost, Lost{at, name, err})
				}
			})
		}
		<-tick.C
	}
	waiting.Wait()
	slices.SortFunc(q.Lost, func(a, b Lost) int { return a.At.Compare(b.At) })
}

// Ask asks for one of the names once. What is not the wanted answer is an error.
func (q *Questions) Ask(name string) error {
	conn, err := q.From.NS.DialContext(context.Background(), "udp", q.From.DNS)
	if err != nil {
		return fmt.Errorf("ask for %s: %w", name, err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(askPatience)); err != nil {
		return err
	}
	c := &dns.Conn{Conn: conn}
	kind := dns.TypeA
	if q.IPv6 {
		kind = dns.TypeAAAA
	}
	if err := c.WriteMsg(new(dns.Msg).SetQuestion(name, kind)); err != nil {
		return fmt.Errorf("ask for %s: %w", name, err)
	}
	m, err := c.ReadMsg()
	if err != nil {
		return fmt.Errorf("ask for %s: %w", name, err)
	}
	got := dns.RcodeToString[m.Rcode]
	for _, rr := range m.Answer {
		switch a := rr.(type) {
		case *dns.A:
			got = a.A.String()
		case *dns.AAAA:
			got = a.AAAA.String()
		}
	}
	if want := q.Names[name]; got != want {
		return fmt.Errorf("%s is %s, want %s", name, got, want)
	}
	return nil
}
