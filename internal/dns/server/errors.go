package server

import (
	"log/slog"
	"sync/atomic"
	"time"

	mdns "github.com/miekg/dns"

	"minato/internal/dns"
)

const errorLogEvery = 5 * time.Second

// errorLog tells of forwarded questions without an answer, a line now and then that says how many there were. It is
// safe for concurrent use.
type errorLog struct {
	log  *slog.Logger
	on   atomic.Bool
	next atomic.Int64 // unix nanoseconds from which a line may be written
	more atomic.Int64
}

// note looks at the answer to a question.
func (l *errorLog) note(q *query, a *answer) {
	if a.rcode != dns.RcodeServFail || !l.on.Load() {
		return
	}
	n, now, next := l.more.Add(1), time.Now().UnixNano(), l.next.Load()
	if now < next || !l.next.CompareAndSwap(next, now+int64(errorLogEvery)) {
		return
	}
	l.more.Add(-n)
	l.log.Warn("dns: no upstream answered", "name", q.name.String(), "type", typeText(q.qtype), "questions", n)
}

func typeText(t uint16) string { return mdns.Type(t).String() }
