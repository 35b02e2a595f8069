//go:build linux

package doctor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"minato/internal/cluster/nodes"
)

// fake is a machine of which everything can be said.
type fake struct {
	files     map[string]string
	programs  map[string]string // what they print when asked for their version
	features  []Feature
	links     []Feature
	firewall  nodes.Firewall
	lookErr   error
	listen    map[string]error
	free      uint64
	readOnly  bool
	openFiles uint64
	unsynced  bool
	now       time.Time
}

// healthy is a machine on which there is nothing to say.
func healthy() *fake {
	return &fake{
		files: map[string]string{
			"/proc/sys/kernel/osrelease":              "6.1.0-18-amd64\n",
			"/sys/fs/cgroup/cgroup.controllers":       "cpuset cpu io memory pids\n",
			"/proc/meminfo":                           "MemTotal: 8000000 kB\nMemAvailable: 6000000 kB\n",
			"/proc/sys/fs/inotify/max_user_instances": "128\n",
			"/proc/sys/net/ipv4/ip_forward":           "1\n",
			"/proc/mounts":                            "proc /proc proc rw 0 0\n",
		},
		programs: map[string]string{
			"containerd": "containerd github.com/containerd/containerd 1.6.20~ds1 1.6.20~ds1-1+b1\n", "runc": "runc version 1.1.5+ds1\ncommit: x\n",
			"containerd-shim-runc-v2": "",
		},
		features:  []Feature{{"maps", nil}, {"numgen", nil}, {"SCTP", nil}},
		links:     []Feature{{"bridge", nil}, {"veth", nil}},
		listen:    map[string]error{},
		free:      100 << 30,
		openFiles: 1 << 20,
		now:       time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC),
	}
}

func (f *fake) ReadFile(path string) ([]byte, error) {
	text, ok := f.files[path]
	if !ok {
		return nil, &fs.PathError{Op: "open", Path: path, Err: unix.ENOENT}
	}
	return []byte(text), nil
}

func (f *fake) LookPath(program string) (string, error) {
	if _, ok := f.programs[program]; !ok {
		return "", errors.New("not found")
	}
	return "/usr/bin/" + program, nil
}

func (f *fake) Output(_ context.Context, program string, _ ...string) (string, error) {
	return f.programs[program], nil
}
func (f *fake) Features() []Feature                  { return f.features }
func (f *fake) Links() []Feature                     { return f.links }
func (f *fake) Look() (nodes.Firewall, error)        { return f.firewall, f.lookErr }
func (f *fake) Listen(network, address string) error { return f.listen[network+" "+address] }
func (f *fake) Owner(string, uint16) string          { return "dnsmasq (process 7)" }
func (f *fake) Free(string) (uint64, bool, error)    { return f.free, f.readOnly, nil }
func (f *fake) OpenFiles() (uint64, error)           { return f.openFiles, nil }
func (f *fake) Synchronized() (bool, error)          { return !f.unsynced, nil }
func (f *fake) Now() time.Time                       { return f.now }

var want = Want{StateDir: "/var/lib/minato/minato", APIPort: 6443}

// rangeInUse is how nodes says it.
var rangeInUse = &nodes.RangeError{Wanted: netip.MustParsePrefix("10.96.0.0/12"), User: "link wg0 (10.100.0.2/24)", Flag: "--service-cidr"}

func TestNothingToSayOfAHealthyMachine(t *testing.T) {
	for _, f := range Run(t.Context(), healthy(), want) {
		if f.Level != OK || f.Do != "" || f.Found == "" {
			t.Errorf("%+v", f)
		}
	}
}

func TestFindings(t *testing.T) {
	for _, test := range []struct {
		name  string
		ail   func(*fake)
		check string
		level Level
		found string
		do    string
	}{
		{"an old kernel", func(f *fake) { f.files["/proc/sys/kernel/osrelease"] = "5.10.0-9-arm64\n" }, "kernel", Fail, "5.10", "Linux 5.13 or newer"},
		{"a kernel without numgen", func(f *fake) { f.features[1].Err = unix.ENOENT }, "nf_tables", Fail, "numgen: no such file", "CONFIG_NFT_NUMGEN"},
		{"a kernel without SCTP", func(f *fake) { f.features[2].Err = unix.EPROTONOSUPPORT }, "nf_tables", Warn, "missing: SCTP", "modprobe sctp"},
		{"not root", func(f *fake) { f.features = []Feature{{"network namespaces", unix.EPERM}} }, "nf_tables", Warn, "cannot be looked at", "sudo minato doctor"},
		{"a kernel without bridges", func(f *fake) { f.links[0].Err = unix.EOPNOTSUPP }, "links", Fail, "bridge", "CONFIG_BRIDGE"},
		{"no runc", func(f *fake) { delete(f.programs, "runc") }, "containerd", Fail, "runc is not on the PATH", "apt-get install containerd runc"},
		{"an old containerd", func(f *fake) { f.programs["containerd"] = "containerd github.com/containerd/containerd v1.5.9 x\n" }, "containerd", Fail, "v1.5.9", "1.6 or newer"},
		{"a Raspberry Pi as it comes", func(f *fake) {
			f.files["/sys/fs/cgroup/cgroup.controllers"] = "cpuset cpu io pids\n"
			f.files["/proc/cgroups"] = "#subsys_name hierarchy num_cgroups enabled\nmemory 0 54 0\n"
		}, "cgroups", Fail, "version 2, without the memory controller", "/boot/firmware/cmdline.txt"},
		{"cgroups version 1", func(f *fake) {
			delete(f.files, "/sys/fs/cgroup/cgroup.controllers")
			f.files["/proc/cgroups"] = "#subsys_name hierarchy num_cgroups enabled\nmemory 9 54 1\n"
		}, "cgroups", OK, "version 1, with", ""},
		{"little memory", func(f *fake) { f.files["/proc/meminfo"] = "MemAvailable: 500000 kB\n" }, "memory", Warn, "488 MiB", "--nodes 1"},
		{"no memory", func(f *fake) { f.files["/proc/meminfo"] = "MemAvailable: 100000 kB\n" }, "memory", Fail, "97 MiB", "end other programs"},
		{"a full disk", func(f *fake) { f.free = 1 << 20 }, "disk", Fail, "1 MiB free", "--state-dir"},
		{"a read-only disk", func(f *fake) { f.readOnly = true }, "disk", Fail, "read-only", "mount it writable"},
		{"few open files", func(f *fake) { f.openFiles = 1024 }, "limits", Warn, "1024 open files", "ulimit -Hn"},
		{"few inotify instances", func(f *fake) { f.files["/proc/sys/fs/inotify/max_user_instances"] = "64\n" }, "limits", Warn, "64 inotify", "max_user_instances=512"},
		{"a clock without battery", func(f *fake) { f.now = time.Date(1970, 1, 1, 0, 0, 9, 0, time.UTC) }, "clock", Fail, "1970-01-01", "set the clock"},
		{"a clock that nobody keeps", func(f *fake) { f.unsynced = true }, "clock", Warn, "nobody keeps it right", "set-ntp"},
		{"forwarding that cannot be set", func(f *fake) {
			f.files["/proc/sys/net/ipv4/ip_forward"] = "0\n"
			f.files["/proc/mounts"] = "proc /proc/sys proc ro,nosuid 0 0\n"
		}, "forwarding", Warn, "cannot be set here", "outside of this container"},
		{"forwarding that can be set", func(f *fake) { f.files["/proc/sys/net/ipv4/ip_forward"] = "0\n" }, "forwarding", OK, "turns it on", ""},
		{"a VPN in the range of Services", func(f *fake) { f.lookErr = rangeInUse }, "ranges", Fail, "link wg0", "choose another range"},
		{"firewalld", func(f *fake) {
			f.firewall.Notices = []nodes.Notice{{Problem: "firewalld rejects.", Command: "firewall-cmd --zone=trusted"}}
		},
			"firewall", Warn, "firewalld rejects", "firewall-cmd"},
		{"Docker", func(f *fake) { f.firewall.Opened = []string{"Docker"} }, "firewall", OK, "Docker; minato up lets the nodes through", ""},
		{"a resolver on the host", func(f *fake) { f.listen["udp 0.0.0.0:53"] = unix.EADDRINUSE }, "port 53", OK, "dnsmasq (process 7)", ""},
		{"another Kubernetes", func(f *fake) { f.listen["tcp 127.0.0.1:6443"] = unix.EADDRINUSE }, "API port", Warn, "6443 is used by", "--api-port"},
	} {
		t.Run(test.name, func(t *testing.T) {
			machine := healthy()
			test.ail(machine)
			for _, f := range Run(t.Context(), machine, want) {
				switch {
				case f.Check != test.check && f.Level == OK || f.Check == "firewall" && test.check == "ranges":
				case f.Check != test.check:
					t.Errorf("another check: %+v", f)
				case f.Level != test.level || !strings.Contains(f.Found, test.found) || !strings.Contains(f.Do, test.do) || (f.Do == "") != (f.Level == OK):
					t.Errorf("%+v, want %s %q => %q", f, test.level, test.found, test.do)
				case strings.Contains(f.Do, "\n") || strings.Contains(f.Found, "\n"):
					t.Errorf("more than one line: %+v", f)
				}
			}
		})
	}
}

func TestTheRunningInstancesOwnPortIsNoObstacle(t *testing.T) {
	machine := healthy()
	machine.listen["tcp 127.0.0.1:6443"] = unix.EADDRINUSE
	running := want
	running.Running = true
	if worst := Worst(Run(t.Context(), machine, running)); worst != OK {
		t.Error(worst)
	}
}

func TestWhatFailsIsSaidWithTheRemedyFirst(t *testing.T) {
	machine := healthy()
	machine.readOnly = true
	err := Err(Run(t.Context(), machine, want))
	if err == nil || !strings.HasPrefix(err.Error(), "mount it writable, or choose") {
		t.Error(err)
	}
	machine.readOnly, machine.unsynced = false, true
	if err := Err(Run(t.Context(), machine, want)); err != nil {
		t.Errorf("a warning stops the start: %v", err)
	}
}

func TestJSON(t *testing.T) {
	var out strings.Builder
	all := Run(t.Context(), healthy(), want)
	if err := PrintJSON(&out, all); err != nil {
		t.Fatal(err)
	}
	var back []Finding
	if err := json.Unmarshal([]byte(out.String()), &back); err != nil || fmt.Sprint(back) != fmt.Sprint(all) {
		t.Errorf("%v, %v", back, err)
	}
}

// This machine runs the other tests, so the kernel's features must be found.
func TestTheRealKernel(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("a network namespace to try things in needs root")
	}
	for _, f := range append(Host{}.Features(), Host{}.Links()...) {
		if f.Err != nil && f.Name != "SCTP" {
			t.Errorf("%s: %v", f.Name, f.Err)
		}
	}
}
