//go:build linux

package server

import (
	"io"
	"maps"
	"os"
	"sync"
	"time"
)

// shownFor is how long it is remembered what of a log was shown: kubectl attaches at once after it.
const shownFor = time.Minute

// shown remembers how much of the output of containers that live for one client was given out as their log. kubectl
// 1.36 prints the log and then attaches; an earlier one attaches alone. Both are to get everything, and once.
type shown struct {
	mu   sync.Mutex
	logs map[string]shownLog // by container id
}

type shownLog struct {
	file           os.FileInfo
	stdout, stderr int64 // bytes
	at             time.Time
}

func (s *shown) remember(id string, log shownLog) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.logs == nil {
		s.logs = make(map[string]shownLog)
	}
	maps.DeleteFunc(s.logs, func(_ string, l shownLog) bool { return log.at.Sub(l.at) > shownFor })
	s.logs[id] = log
}

// take forgets what was shown of a container's log and returns it, nothing if the log is not that file any more.
func (s *shown) take(id, path string) shownLog {
	s.mu.Lock()
	log, ok := s.logs[id]
	delete(s.logs, id)
	s.mu.Unlock()
	now, err := os.Stat(path)
	if !ok || err != nil || !os.SameFile(log.file, now) {
		return shownLog{}
	}
	return log
}

// counter counts what passes to a writer.
type counter struct {
	io.Writer
	n int64
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.Writer.Write(p)
	c.n += int64(n)
	return n, err
}

// skipper leaves out the first bytes.
type skipper struct {
	io.Writer
	left int64
}

func (s *skipper) Write(p []byte) (int, error) {
	skip := min(int64(len(p)), s.left)
	s.left -= skip
	if skip == int64(len(p)) {
		return len(p), nil
	}
	n, err := s.Writer.Write(p[skip:])
	return n + int(skip), err
}
