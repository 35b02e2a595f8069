// Package instance is what is asked of one `minato up` and where it keeps its things: the configuration, and every
// name and path that derives from the instance's name.
//
// Two instances of different names share nothing: state folder, run folder, lock, control socket, network namespaces,
// cgroups, links and tables are all derived here.
//
// It starts nothing and creates no network; it reads and writes only the instance's own configuration file.
package instance

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// DefaultName is the name of the instance where none is given.
const DefaultName = "minato"

// Instance locates one instance. It is a value; making one touches nothing.
type Instance struct {
	Name     string
	StateDir string // survives a reboot, 0700
	RunDir   string // sockets and pid files, gone with a reboot
}

var validName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$`)

// New derives the instance of a name. An empty stateDir means the folder where it was brought up last, or the
// default one.
func New(name, stateDir string) (Instance, error) {
	if !validName.MatchString(name) {
		return Instance{}, fmt.Errorf("choose a --name of at most 32 lower-case letters, digits and dashes: %q is none", name)
	}
	i := Instance{Name: name, RunDir: filepath.Join("/run/minato", name)}
	switch known, err := os.ReadFile(i.stateDirFile()); {
	case stateDir != "":
		abs, err := filepath.Abs(stateDir)
		if err != nil {
			return Instance{}, fmt.Errorf("find --state-dir: %w", err)
		}
		i.StateDir = abs
	case err == nil:
		i.StateDir = string(known)
	default:
		i.StateDir = filepath.Join("/var/lib/minato", name)
	}
	return i, nil
}

func (i Instance) stateDirFile() string { return filepath.Join(i.RunDir, "state-dir") }

// ControlSocket is where the running instance answers: HTTP over a unix socket.
func (i Instance) ControlSocket() string { return filepath.Join(i.RunDir, "control.sock") }

// Kubeconfig is the instance's own copy; --kubeconfig names a second place.
func (i Instance) Kubeconfig() string { return filepath.Join(i.StateDir, "kubeconfig") }

// LogFile is where a detached instance writes.
func (i Instance) LogFile() string { return filepath.Join(i.StateDir, "minato.log") }

// ContainerdDir and ContainerdRunDir hold the private containerd's root and its sockets.
func (i Instance) ContainerdDir() string    { return filepath.Join(i.StateDir, "containerd") }
func (i Instance) ContainerdRunDir() string { return filepath.Join(i.RunDir, "containerd") }

// ImagesDir holds loaded images.
func (i Instance) ImagesDir() string { return filepath.Join(i.StateDir, "images") }

// NodeDir is what one node keeps, and NamesFile what its DNS last said.
func (i Instance) NodeDir(node string) string   { return filepath.Join(i.StateDir, "nodes", node) }
func (i Instance) NamesFile(node string) string { return filepath.Join(i.NodeDir(node), "names") }

// CgroupRoot is the parent of all pods' cgroups, as a path below every hierarchy's mount point.
func (i Instance) CgroupRoot() string { return "/minato-" + i.Name }

// KubeContext is the name of the context in a kubeconfig.
func (i Instance) KubeContext() string {
	if i.Name == DefaultName {
		return DefaultName
	}
	return "minato-" + i.Name
}

// marker is a file that says whose folder it is in, so that delete never removes another's.
func (i Instance) marker() string { return filepath.Join(i.StateDir, ".minato") }

// MakeDirs makes the state and run folders and remembers in the run folder where the state is. It refuses a state
// folder in which somebody else keeps things.
func (i Instance) MakeDirs() error {
	if err := os.MkdirAll(i.StateDir, 0o700); err != nil {
		return fmt.Errorf("make the state folder: %w", err)
	}
	if _, err := os.Stat(i.marker()); errors.Is(err, fs.ErrNotExist) {
		entries, err := os.ReadDir(i.StateDir)
		if err != nil {
			return fmt.Errorf("look into the state folder: %w", err)
		}
		if len(entries) > 0 {
			return fmt.Errorf("choose another --state-dir: %s has %s in it, which is not minato's", i.StateDir, entries[0].Name())
		}
		if err := os.WriteFile(i.marker(), []byte(i.Name+"\n"), 0o600); err != nil {
			return fmt.Errorf("mark the state folder: %w", err)
		}
	}
	if err := os.MkdirAll(i.RunDir, 0o755); err != nil {
		return fmt.Errorf("make the run folder: %w", err)
	}
	if err := os.WriteFile(i.stateDirFile(), []byte(i.StateDir), 0o644); err != nil {
		return fmt.Errorf("remember the state folder: %w", err)
	}
	return nil
}

// CNISocket is where the CNI plugin asks: for root alone, because a request names a path that is entered as root.
func (i Instance) CNISocket() string { return filepath.Join(i.RunDir, "cni.sock") }

// HandoverSocket is where a process that replaces the running one gets its sockets: for root alone.
func (i Instance) HandoverSocket() string { return filepath.Join(i.RunDir, "handover.sock") }

// Remove removes the state folder. It refuses a folder that does not look like an instance's.
func (i Instance) Remove() error {
	switch _, err := os.Stat(i.marker()); {
	case err == nil:
	case !errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("look into the state folder: %w", err)
	default:
		if _, err := os.Stat(i.StateDir); errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return fmt.Errorf("remove %s yourself if it is yours to remove: it is not marked as minato's", i.StateDir)
	}
	if err := os.RemoveAll(i.StateDir); err != nil {
		return fmt.Errorf("remove the state: %w", err)
	}
	return nil
}

// ErrRunning says that another process has the instance.
var ErrRunning = errors.New("already running")

func (i Instance) lockFile() string { return filepath.Join(i.RunDir, "lock") }

// Holder is the process that has the lock, or had it last.
func (i Instance) Holder() (pid int, err error) {
	b, err := os.ReadFile(i.lockFile())
	if err != nil {
		return 0, fmt.Errorf("read the lock: %w", err)
	}
	if pid, err = strconv.Atoi(strings.TrimSpace(string(b))); err != nil {
		return 0, fmt.Errorf("read the lock: %w", err)
	}
	return pid, nil
}

// TryLock is Lock without leaving a trace: it tells whether the instance is free.
func (i Instance) TryLock() (unlock func(), err error) {
	f, err := os.OpenFile(i.lockFile(), os.O_RDONLY, 0)
	if err != nil {
		return nil, fmt.Errorf("open the lock: %w", err)
	}
	return i.flock(f)
}

// Lock takes the instance for this process until the returned function is called or the process ends. It fails with
// ErrRunning when another process has it.
func (i Instance) Lock() (unlock func(), err error) {
	f, err := os.OpenFile(i.lockFile(), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("open the lock: %w", err)
	}
	unlock, err = i.flock(f)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(f.Truncate(0), writePID(f)); err != nil {
		unlock()
		return nil, fmt.Errorf("sign the lock: %w", err)
	}
	return unlock, nil
}

func (i Instance) flock(f *os.File) (unlock func(), err error) {
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("instance %s: %w", i.Name, ErrRunning)
		}
		return nil, fmt.Errorf("take the lock: %w", err)
	}
	return func() { f.Close() }, nil
}

func writePID(f *os.File) error {
	_, err := f.WriteAt([]byte(strconv.Itoa(os.Getpid())), 0)
	return err
}

// Node is one node as asked for.
type Node struct {
	Name  string       `json:"name"`
	Addrs []netip.Addr `json:"addrs"` // complete: one of each family, in the order of Config.Families
}

// Config is what the user asked for, complete: Default fills what was left out.
type Config struct {
	Version       int              `json:"version"` // of the state, see StateVersion; set by Save
	Nodes         []Node           `json:"nodes"`
	Host          bool             `json:"host,omitempty"` // one node which is the host's own namespace
	Families      []Family         `json:"families"`       // the first is that of Services which ask for none
	ClusterDomain string           `json:"clusterDomain"`
	APIPort       uint16           `json:"apiPort"`
	UpstreamDNS   []netip.AddrPort `json:"upstreamDNS,omitempty"`       // empty: the host's resolv.conf
	NodePorts     []netip.Prefix   `json:"nodePortAddresses,omitempty"` // where NodePorts are answered; empty: at all addresses of nodes
	NoExternalIPs bool             `json:"refuseExternalIPs,omitempty"`
	Kubeconfig    string           `json:"kubeconfig,omitempty"` // where to write a second kubeconfig
}

// StateVersion is of what is in the state folder. It grows when an older program could no longer read it.
const StateVersion = 1

// ErrNewer says that the state was written by a newer program.
var ErrNewer = errors.New("the state is newer than this program")

func (i Instance) configFile() string { return filepath.Join(i.StateDir, "instance.json") }

// Load reads the configuration with which the instance was made; ok is false when there is none.
func (i Instance) Load() (c Config, ok bool, err error) {
	b, err := os.ReadFile(i.configFile())
	if errors.Is(err, fs.ErrNotExist) {
		return Config{}, false, nil
	}
	if err != nil {
		return Config{}, false, fmt.Errorf("read the instance's configuration: %w", err)
	}
	if err := json.Unmarshal(b, &c); err != nil {
		return Config{}, false, fmt.Errorf("remove the instance (minato delete --name %s): its configuration %s is not readable: %w",
			i.Name, i.configFile(), err)
	}
	if c.Version > StateVersion {
		return Config{}, false, fmt.Errorf("use a newer minato: %w: %s has version %d, and %d is the newest known", ErrNewer, i.StateDir, c.Version, StateVersion)
	}
	if len(c.Families) == 0 {
		return Config{}, false, fmt.Errorf("remove the instance (minato delete --name %s): it was made before instances had IP families", i.Name)
	}
	return c, true, nil
}

// Save writes the configuration, whole or not at all.
func (i Instance) Save(c Config) error {
	c.Version = StateVersion
	return save(i.configFile(), c)
}

func (i Instance) conditionsFile() string { return filepath.Join(i.StateDir, "node-conditions.json") }

// NodeConditions reads what SaveNodeConditions wrote last; nothing when it never did.
func (i Instance) NodeConditions() (conditions map[string]string, err error) {
	b, err := os.ReadFile(i.conditionsFile())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the conditions of the nodes: %w", err)
	}
	if err := json.Unmarshal(b, &conditions); err != nil {
		return nil, fmt.Errorf("remove %s, and all nodes are whole: it is not readable: %w", i.conditionsFile(), err)
	}
	return conditions, nil
}

// SaveNodeConditions keeps what was done to the nodes, by their names, for the next start.
func (i Instance) SaveNodeConditions(conditions map[string]string) error {
	return save(i.conditionsFile(), conditions)
}

// save writes a file, whole or not at all.
func save(file string, v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fmt.Errorf("encode %s: %w", filepath.Base(file), err)
	}
	tmp := file + ".new"
	if err := writeSynced(tmp, b); err != nil {
		return fmt.Errorf("write the instance's state: %w", err)
	}
	if err := os.Rename(tmp, file); err != nil {
		return fmt.Errorf("write the instance's state: %w", err)
	}
	return nil
}

// writeSynced writes a file that survives a power cut, or returns why it may not.
func writeSynced(path string, b []byte) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	return errors.Join(err, f.Sync(), f.Close())
}
