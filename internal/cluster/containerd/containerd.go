//go:build linux

package containerd

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"

	internalapi "k8s.io/cri-api/pkg/apis"
)

// Errors that a user can act upon.
var (
	// ErrNotInstalled says that there is no containerd or no runc on the PATH.
	ErrNotInstalled = errors.New("install containerd: apt-get install containerd")
	// ErrStart says that containerd was started and did not come up; the error holds the end of its log.
	ErrStart = errors.New("containerd did not start")
)

// Config says where the private containerd lives. All folders are the instance's own.
type Config struct {
	Dir        string // everything that survives a reboot: images, snapshots, configuration, CNI folders, log
	RunDir     string // sockets and the state of running containers
	PauseImage string // see images.PauseImage
	Mirror     string // base URL of the registry mirror, "http://127.0.0.1:PORT"; empty for none
	Log        *slog.Logger
}

// Socket is the gRPC socket.
func (c Config) Socket() string { return filepath.Join(c.RunDir, "containerd.sock") }

// CNIBinDir and CNIConfDir are where cni.Install puts the plugin and its configuration.
func (c Config) CNIBinDir() string  { return filepath.Join(c.Dir, "cni", "bin") }
func (c Config) CNIConfDir() string { return filepath.Join(c.Dir, "cni", "conf") }

// Daemon is a running containerd. Its methods are safe for concurrent use.
type Daemon struct {
	cfg Config
}

// Start adopts the instance's containerd where one runs, else starts it, and returns when its CRI answers. It is
// restarted when it dies, until Close or Stop. The daemon and its containers outlive this process.
func Start(ctx context.Context, cfg Config) (*Daemon, error) { return nil, errors.ErrUnsupported }

// CRI connects to the runtime. The connections live until their own Close and survive a restart of containerd.
func (d *Daemon) CRI(ctx context.Context) (internalapi.RuntimeService, internalapi.ImageManagerService, error) {
	return nil, nil, errors.ErrUnsupported
}

// Close ends supervision and leaves containerd and its containers running.
func (d *Daemon) Close() error { return nil }

// Stop stops all pods of the instance and containerd.
func (d *Daemon) Stop(ctx context.Context) error { return nil }

// Delete stops what still runs and removes every trace of the instance's containerd. Without any it does nothing.
func Delete(ctx context.Context, cfg Config) error { return nil }
