//go:build linux

package doctor

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"minato/internal/cluster/nodes"
)

// System is the machine that is looked at. Host is the real one.
type System interface {
	ReadFile(path string) ([]byte, error)
	LookPath(program string) (string, error)
	Output(ctx context.Context, program string, args ...string) (string, error)
	Features() []Feature                  // what rules need of nf_tables, each tried
	Links() []Feature                     // what nodes need, each tried
	Look() (nodes.Firewall, error)        // ranges and firewalls
	Listen(network, address string) error // opens and closes a port
	Owner(protocol string, port uint16) string
	Free(dir string) (bytes uint64, readOnly bool, err error)
	OpenFiles() (hard uint64, err error)
	Synchronized() (bool, error)
	Now() time.Time
}

// Feature is something that was tried of the kernel.
type Feature struct {
	Name string
	Err  error
}

// Host is this machine, and the network that is wanted on it.
type Host struct{ Network nodes.Config }

// ReadFile is os.ReadFile.
func (Host) ReadFile(path string) ([]byte, error) { return os.ReadFile(path) }

// LookPath is exec.LookPath.
func (Host) LookPath(program string) (string, error) { return exec.LookPath(program) }

// Output is what a program prints.
func (Host) Output(ctx context.Context, program string, args ...string) (string, error) {
	out, err := exec.CommandContext(ctx, program, args...).Output()
	return string(out), err
}

// Look looks at the host's ranges and firewalls.
func (h Host) Look() (nodes.Firewall, error) { return nodes.Look(h.Network) }

// Listen opens a port and closes it at once.
func (Host) Listen(network, address string) error {
	if strings.HasPrefix(network, "udp") {
		c, err := net.ListenPacket(network, address)
		if err == nil {
			c.Close()
		}
		return err
	}
	l, err := net.Listen(network, address)
	if err == nil {
		l.Close()
	}
	return err
}

// Owner names the program that has a port, as far as one is allowed to know.
func (Host) Owner(protocol string, port uint16) string {
	wanted := map[string]bool{}
	for _, table := range []string{protocol, protocol + "6"} {
		b, err := os.ReadFile("/proc/net/" + table)
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(b)) {
			v := strings.Fields(line) // sl local_address rem_address st ... inode
			if len(v) > 9 && strings.HasSuffix(v[1], fmt.Sprintf(":%04X", port)) && (v[3] == "0A" || protocol == "udp") {
				wanted["socket:["+v[9]+"]"] = true
			}
		}
	}
	links, _ := filepath.Glob("/proc/[0-9]*/fd/*")
	for _, link := range links {
		if target, err := os.Readlink(link); err == nil && wanted[target] {
			pid := strings.Split(link, "/")[2]
			name, _ := os.ReadFile("/proc/" + pid + "/comm")
			return fmt.Sprintf("%s (process %s)", strings.TrimSpace(string(name)), pid)
		}
	}
	return "another program"
}

// Free is the room on the file system of dir, or of its nearest parent that is there.
func (Host) Free(dir string) (bytes uint64, readOnly bool, err error) {
	var s unix.Statfs_t
	for {
		err = unix.Statfs(dir, &s)
		if !errors.Is(err, unix.ENOENT) || dir == "/" {
			break
		}
		dir = filepath.Dir(dir)
	}
	return s.Bavail * uint64(s.Bsize), s.Flags&unix.ST_RDONLY != 0, err
}

// OpenFiles is how many files a process may have open at most.
func (Host) OpenFiles() (uint64, error) {
	var r unix.Rlimit
	err := unix.Getrlimit(unix.RLIMIT_NOFILE, &r)
	return r.Max, err
}

// Synchronized reports whether something keeps the clock right.
func (Host) Synchronized() (bool, error) {
	var t unix.Timex
	state, err := unix.Adjtimex(&t)
	const timeError = 5 // TIME_ERROR of adjtimex(2): not synchronized
	return state != timeError, err
}

// Now is time.Now.
func (Host) Now() time.Time { return time.Now() }
