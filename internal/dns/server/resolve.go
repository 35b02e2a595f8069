package server

import (
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	mdns "github.com/miekg/dns"
)

const (
	firstPatience = time.Second // for the last upstream, in the first round; lost packets are the common case
	patience      = 2 * time.Second
	rounds        = 3

	hedgeMin, hedgeMax = 50 * time.Millisecond, 500 * time.Millisecond
	rttForget          = 10 * time.Second // half of what is known of an upstream that is not asked
)

// resolution is one question on its way to upstreams.
type resolution struct {
	us      *upstreams
	o       outgoing
	results chan result
	wg      sync.WaitGroup
	refused []*upstream
	last    *answer // of an upstream that would not answer
}

type result struct {
	u   *upstream
	a   *answer
	err error
}

// resolve asks one upstream after the other until one gives an answer, which may be that the name does not exist. The
// next is asked before the one before has given up, after as long as that usually needs. It never returns nil: the
// answer is a failure when there is none within ctx.
func (us *upstreams) resolve(ctx context.Context, o outgoing) *answer {
	r := &resolution{us: us, o: o, results: make(chan result)}
	defer r.wg.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	pending := 0
	for round := range rounds {
		order := us.order(time.Now())
		for i, u := range order {
			if slices.Contains(r.refused, u) {
				continue
			}
			r.start(ctx, u)
			pending++
			if a := r.await(ctx, &pending, r.pause(u, round, i == len(order)-1)); a != nil {
				return a
			}
		}
		if pending == 0 && (len(order) == 0 || len(r.refused) >= len(order)) {
			break
		}
	}
	for pending > 0 && ctx.Err() == nil {
		if a := r.await(ctx, &pending, budget); a != nil {
			return a
		}
	}
	if r.last != nil {
		return r.last
	}
	return failure(time.Now())
}

// pause is how long to wait for an upstream before the next one is asked too.
func (r *resolution) pause(u *upstream, round int, last bool) time.Duration {
	switch {
	case !last && round == 0:
		return min(max(3*u.usual(time.Now()), hedgeMin), hedgeMax)
	case round == 0:
		return firstPatience
	}
	return patience
}

// await waits for a result, or for the time to ask the next upstream. It returns an answer that is one, else nil.
func (r *resolution) await(ctx context.Context, pending *int, wait time.Duration) *answer {
	t := time.NewTimer(wait)
	defer t.Stop()
	for {
		select {
		case got := <-r.results:
			*pending--
			switch {
			case got.err != nil:
			case got.a.rcode == mdns.RcodeSuccess || got.a.rcode == mdns.RcodeNameError:
				return got.a
			default:
				r.refused, r.last = append(r.refused, got.u), got.a
			}
			return nil
		case <-t.C:
			return nil
		case <-ctx.Done():
			return nil
		}
	}
}

// start asks one upstream.
func (r *resolution) start(ctx context.Context, u *upstream) {
	r.wg.Go(func() {
		a, err := r.us.try(ctx, u, r.o)
		select {
		case r.results <- result{u, a, err}:
		case <-ctx.Done():
		}
	})
}

// try asks an upstream once, and notes how it was.
func (us *upstreams) try(ctx context.Context, u *upstream, o outgoing) (*answer, error) {
	limited, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if u.asked.CompareAndSwap(false, true) {
		us.suspect(u)
	}
	began := time.Now()
	m, err := u.ask(limited, o)
	now := time.Now()
	if ctx.Err() != nil { // another one was faster, which is no failure
		u.took(now.Sub(began), now, true)
		return nil, ctx.Err()
	}
	var a *answer
	if err == nil {
		a, err = newAnswer(m, now, us.keep)
	}
	u.took(now.Sub(began), now, err != nil)
	u.count(a, err, now.Sub(began))
	if u.note(err, now) {
		us.log.Warn("dns: upstream does not answer", "upstream", u.addr, "error", err)
		us.suspect(u)
	}
	return a, err
}

// order is the list with those that work first, in the order that the policy gives, but that one which is much slower
// than another goes behind it. Loops are left out.
func (us *upstreams) order(now time.Time) []*upstream {
	var up, slow, down []*upstream
	best := time.Duration(-1)
	for _, u := range *us.list.Load() {
		if rtt := u.usual(now); rtt > 0 && !u.loop.Load() && u.down.Load() <= now.UnixNano() && (best < 0 || rtt < best) {
			best = rtt
		}
	}
	for _, u := range *us.list.Load() {
		switch {
		case u.loop.Load():
		case u.down.Load() > now.UnixNano():
			down = append(down, u)
		case best > 0 && u.usual(now) > 4*best+20*time.Millisecond:
			slow = append(slow, u)
		default:
			up = append(up, u)
		}
	}
	switch {
	case len(up) == 0:
	case us.forward.Policy == Random:
		rand.Shuffle(len(up), func(i, j int) { up[i], up[j] = up[j], up[i] })
	case us.forward.Policy == RoundRobin:
		first := int(us.turn.Add(1)) % len(up)
		up = slices.Concat(up[first:], up[:first])
	}
	return slices.Concat(up, slow, down)
}
