// Package store runs the one-member etcd in which the API keeps its objects. It
// listens nowhere: clients are of this process and call it directly. Writes are
// synced to disk before they are answered. It does not know what is stored.
package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3client"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"
)

// ErrLocked says that another process has the same store open.
var ErrLocked = errors.New("another process is using this instance")

const (
	// quota is the size of the database at which etcd refuses further writes.
	quota = 2 << 30
	// maxTxnOps lets the first start write all objects of a new cluster at once.
	maxTxnOps = 1024
)

// Config says where the store lives.
type Config struct {
	// Dir holds data and lock. It is created with mode 0700.
	Dir string
	Log *slog.Logger
}

// Store is a running etcd. Its methods are safe for concurrent use.
type Store struct {
	etcd    *embed.Etcd
	lock    *os.File
	failure *failure
	stopped chan struct{} // closed when etcd has stopped or failed
}

// Start opens the store and waits until it answers. It returns ErrLocked, wrapped,
// when another process holds it: two writers would destroy each other's data.
func Start(ctx context.Context, cfg Config) (*Store, error) {
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, classify(cfg.Dir, fmt.Errorf("creating the store's folder: %w", err))
	}
	lock, err := takeLock(filepath.Join(cfg.Dir, "lock"))
	if errors.Is(err, ErrLocked) {
		return nil, err
	}
	if err != nil {
		return nil, classify(cfg.Dir, err)
	}
	s := &Store{lock: lock, failure: newFailure(cfg.Dir), stopped: make(chan struct{})}
	if err := s.open(ctx, cfg); err != nil {
		s.Stop()
		return nil, err
	}
	return s, nil
}

func (s *Store) open(ctx context.Context, cfg Config) error {
	type result struct {
		etcd *embed.Etcd
		err  error
	}
	started := make(chan result, 1)
	go func() { // ends by itself, or by a failure
		defer func() {
			if p := recover(); p != nil { // so do parts of etcd that meet a damaged log
				s.failure.fail(fmt.Sprint(p), nil)
			}
		}()
		c := etcdConfig(cfg, s.failure)
		if err := checkLog(c.Dir, zap.New(&slogCore{log: cfg.Log}, s.failure.options()...)); err != nil {
			started <- result{nil, err}
			return
		}
		e, err := embed.StartEtcd(c)
		started <- result{e, err}
	}()
	var e *embed.Etcd
	select {
	case r := <-started:
		if r.err != nil {
			return classify(cfg.Dir, fmt.Errorf("starting etcd: %w", r.err))
		}
		e = r.etcd
	case <-s.failure.done:
		return s.failure.err
	}
	s.etcd = e
	go func() { // ends with etcd
		defer close(s.stopped)
		select {
		case <-e.Server.StopNotify():
		case <-s.failure.done:
		}
	}()
	select {
	case <-e.Server.ReadyNotify():
		return nil
	case <-s.failure.done:
		return s.failure.err
	case <-e.Server.StopNotify():
		return errors.New("starting etcd: it stopped")
	case <-ctx.Done():
		return fmt.Errorf("waiting for etcd: %w", ctx.Err())
	}
}

func etcdConfig(cfg Config, f *failure) *embed.Config {
	c := embed.NewConfig()
	c.Name = "minato"
	c.Dir = filepath.Join(cfg.Dir, "data")
	// Nobody dials a lone member with clients in its own process. The advertised
	// URLs, which stay at etcd's defaults, are only the member's name.
	c.ListenClientUrls, c.ListenPeerUrls = nil, nil
	c.InitialCluster = c.InitialClusterFromName(c.Name)
	c.EnableGRPCGateway = false
	// Nobody else votes, so the election can be over in a tenth of a second.
	c.TickMs, c.ElectionMs = 20, 100
	c.QuotaBackendBytes = quota
	c.AutoCompactionMode, c.AutoCompactionRetention = embed.CompactorModePeriodic, "5m"
	c.MaxTxnOps = maxTxnOps
	// Log entries in memory serve followers that lag; there are none.
	c.SnapshotCount, c.SnapshotCatchUpEntries = 2000, 100
	c.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.New(&slogCore{log: cfg.Log}, f.options()...))
	return c
}

// takeLock holds path for this process until the file is closed.
func takeLock(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("opening the lock: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("%w: %s is locked", ErrLocked, path)
		}
		return nil, fmt.Errorf("locking %s: %w", path, err)
	}
	return f, nil
}

// NewClient makes a client, with a stream of watches of its own. The caller closes it
// before Stop.
func (s *Store) NewClient() *clientv3.Client { return v3client.New(s.etcd.Server) }

// Stopped is closed when the store has stopped, by Stop or by itself; Err then says why it failed, if it did.
func (s *Store) Stopped() <-chan struct{} { return s.stopped }

// Err is what ended the store, nil for Stop.
func (s *Store) Err() error {
	select {
	case <-s.failure.done:
		return s.failure.err
	default:
		return nil
	}
}

// Stop closes the store and gives up the lock, after everything that uses it. A store that failed is left as it is: it
// has lost a goroutine that the others would wait for.
func (s *Store) Stop() {
	if s.etcd != nil && s.Err() == nil {
		s.etcd.Close()
	}
	s.lock.Close()
}
