package server

import (
	"sync"
	"time"
)

const (
	cacheBytes  = 16 << 20 // of all answers that are kept
	cacheShards = 16
	itemBytes   = 256 // what an item takes beside its key and records, about

	cacheMax   = 30 * time.Second // CoreDNS's usual `cache 30`
	cacheFail  = time.Second      // RFC 9520, 3.2 asks for one at least
	staleFor   = time.Hour        // for how long an answer is used after its time when no upstream answers
	staleTTL   = 30               // seconds, that such an answer says (RFC 8767, 4)
	staleRetry = 5 * time.Second  // between attempts to get a new one
	prefetched = 2                // asked for so often, an answer is renewed before its time is over
)

// cache keeps answers of upstreams: for as long as they may be used, and after that for times without an answer. The
// zero value is empty. It is safe for concurrent use.
type cache struct{ shards [cacheShards]cacheShard }

// cacheShard is a part of the keys. Its items are a ring in the order of their last use, around root.
type cacheShard struct {
	mu    sync.Mutex
	by    map[string]*item
	root  item
	bytes int
}

type item struct {
	key        string
	a          *answer
	hits       int
	prev, next *item
}

func (i *item) size() int { return itemBytes + len(i.key) + len(i.a.body) + 8*len(i.a.ttls) }

func (i *item) unlink() { i.prev.next, i.next.prev = i.next, i.prev }

func (c *cache) shard(key []byte) *cacheShard {
	h := uint32(2166136261)
	for _, b := range key {
		h = (h ^ uint32(b)) * 16777619
	}
	return &c.shards[h%cacheShards]
}

// get returns an answer that may be used now, and whether it should be renewed soon; nil when there is none.
func (c *cache) get(key []byte, now time.Time) (a *answer, renew bool) {
	s := c.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	i := s.by[string(key)]
	if i == nil || now.Sub(i.a.got) >= i.a.keep {
		return nil, false
	}
	i.hits++
	s.front(i)
	left := i.a.keep - now.Sub(i.a.got)
	if renew = i.hits >= prefetched && left < i.a.keep/10 && !i.a.stale; renew {
		i.hits = 0 // once
	}
	return i.a, renew
}

// stale returns an answer whose time is over, for when there is no other; nil when there is none.
func (c *cache) stale(key []byte, now time.Time) *answer {
	s := c.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	i := s.by[string(key)]
	if i == nil || i.a.last.Before(now) {
		return nil
	}
	old := *i.a
	old.stale, old.got, old.keep = true, now, staleRetry
	return &old
}

// put keeps an answer. When there is no room, those go that were not used for the longest time.
func (c *cache) put(key string, a *answer) {
	if a.keep <= 0 {
		return
	}
	s := c.shard([]byte(key))
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.by == nil {
		s.by = map[string]*item{}
		s.root.prev, s.root.next = &s.root, &s.root
	}
	i := s.by[key]
	if i == nil {
		i = &item{key: key, a: a}
		i.prev, i.next = i, i
		s.by[key] = i
	} else {
		s.bytes -= i.size()
		i.a, i.hits = a, 0
	}
	s.bytes += i.size()
	s.front(i)
	for s.bytes > cacheBytes/cacheShards && s.root.prev != i {
		oldest := s.root.prev
		oldest.unlink()
		delete(s.by, oldest.key)
		s.bytes -= oldest.size()
	}
}

func (s *cacheShard) front(i *item) {
	i.unlink()
	i.prev, i.next = &s.root, s.root.next
	i.prev.next, i.next.prev = i, i
}

// kinds are the numbers of answers with records, and without.
func (c *cache) kinds() (n [2]int) {
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.Lock()
		for _, item := range s.by {
			n[item.a.kind()]++
		}
		s.mu.Unlock()
	}
	return n
}

// clear forgets everything: another upstream may say something else.
func (c *cache) clear() {
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.Lock()
		s.by, s.bytes = nil, 0
		s.mu.Unlock()
	}
}
