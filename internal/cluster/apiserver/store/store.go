// Package store runs the one-member etcd in which the API keeps its objects, in
// this process, on a unix socket in the instance's private folder. Writes are
// synced to disk before they are answered. It does not know what is stored.
package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3client"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"
)

// ErrLocked says that another process has the same store open.
var ErrLocked = errors.New("another process is using this instance")

// quota is where etcd refuses further writes; MaxTxnOps lets the first start
// write all objects of a new cluster at once.
const (
	quota      = 2 << 30
	MaxTxnOps  = 1024
	maxSocket  = 107 // sun_path of unix(7), less its final NUL
	socketName = "client.sock"
)

// Config says where the store lives.
type Config struct {
	// Dir holds data, socket and lock. It is created with mode 0700.
	Dir string
	Log *slog.Logger
}

// Store is a running etcd. Its methods are safe for concurrent use.
type Store struct {
	etcd   *embed.Etcd
	client *clientv3.Client
	lock   *os.File
	socket string
}

// Start opens the store and waits until it answers. It returns ErrLocked, wrapped,
// when another process holds it: two writers would destroy each other's data.
func Start(ctx context.Context, cfg Config) (*Store, error) {
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("creating the store's folder: %w", err)
	}
	dir, err := filepath.Abs(cfg.Dir)
	if err != nil {
		return nil, fmt.Errorf("finding the store's folder: %w", err)
	}
	socket := filepath.Join(dir, socketName)
	if len(socket) > maxSocket {
		return nil, fmt.Errorf("choose a shorter state folder: a unix socket's path has at most %d bytes, %s has %d", maxSocket, socket, len(socket))
	}
	lock, err := takeLock(filepath.Join(dir, "lock"))
	if err != nil {
		return nil, err
	}
	s := &Store{lock: lock, socket: socket}
	if err := s.open(ctx, dir, cfg.Log); err != nil {
		s.Stop()
		return nil, err
	}
	return s, nil
}

func (s *Store) open(ctx context.Context, dir string, log *slog.Logger) error {
	// A socket left behind by a process that was killed; the lock says it is dead.
	if err := os.Remove(s.socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("removing the old socket: %w", err)
	}
	e, err := embed.StartEtcd(etcdConfig(dir, s.socket, log))
	if err != nil {
		return fmt.Errorf("starting etcd: %w", err)
	}
	s.etcd = e
	s.client = v3client.New(e.Server)
	select {
	case <-e.Server.ReadyNotify():
		return nil
	case err := <-e.Err():
		return fmt.Errorf("starting etcd: %w", err)
	case <-ctx.Done():
		return fmt.Errorf("waiting for etcd: %w", ctx.Err())
	}
}

func etcdConfig(dir, socket string, log *slog.Logger) *embed.Config {
	c := embed.NewConfig()
	c.Name = "minato"
	c.Dir = filepath.Join(dir, "data")
	// The socket's path goes into the URL's path: etcd's own parser would only
	// take host:port, but it is the parser of flags and is not asked here.
	c.ListenClientUrls = []url.URL{{Scheme: "unix", Path: socket}}
	// A lone member has no peers. The advertised URLs are names that nobody dials.
	c.ListenPeerUrls = nil
	c.InitialCluster = c.InitialClusterFromName(c.Name)
	c.EnableGRPCGateway = false
	// Nobody else votes, so the election can be over in a tenth of a second.
	c.TickMs, c.ElectionMs = 20, 100
	c.QuotaBackendBytes = quota
	c.AutoCompactionMode, c.AutoCompactionRetention = embed.CompactorModePeriodic, "5m"
	c.MaxTxnOps = MaxTxnOps
	// Log entries in memory serve followers that lag; there are none.
	c.SnapshotCount, c.SnapshotCatchUpEntries = 2000, 100
	c.WarningUnaryRequestDuration = embed.DefaultWarningUnaryRequestDuration // zero would log every request
	c.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.New(&slogCore{log: log}))
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

// Endpoint is the address for etcd clients of this process.
func (s *Store) Endpoint() string { return "unix://" + s.socket }

// Client talks to the store without a socket. The Store owns and closes it.
func (s *Store) Client() *clientv3.Client { return s.client }

// Failed receives the error that ended the store, and is closed by Stop.
func (s *Store) Failed() <-chan error { return s.etcd.Err() }

// Stop closes the store and gives up the lock. Stop everything that uses the store
// before, or Stop waits some seconds for it.
func (s *Store) Stop() {
	if s.client != nil {
		s.client.Close()
	}
	if s.etcd != nil {
		s.etcd.Close()
	}
	s.lock.Close()
}

// Timeout is what one request to a healthy store may take.
const Timeout = 10 * time.Second
