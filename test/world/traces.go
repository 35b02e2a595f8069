//go:build linux

package world

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"minato/internal/netns/netnstest"
)

// traces is what an instance can leave, by kind: the settings of its host as they are, and all that bears its name.
type traces map[string][]string

// since says what differs from before, empty for nothing.
func (now traces) since(before traces) string {
	var b strings.Builder
	for kind, lines := range now {
		for _, line := range lines {
			if !slices.Contains(before[kind], line) {
				fmt.Fprintf(&b, "%s: + %s\n", kind, line)
			}
		}
		for _, line := range before[kind] {
			if kind != unused && !slices.Contains(lines, line) {
				fmt.Fprintf(&b, "%s: - %s\n", kind, line)
			}
		}
	}
	return b.String()
}

func (w *World) traces() (traces, error) {
	t := traces{}
	for kind, argv := range map[string][]string{
		"link":         {"ip", "-br", "link"},
		"address":      {"ip", "-br", "address"},
		"route":        {"ip", "-4", "route", "show", "table", "all"},
		"IPv6 route":   {"ip", "-6", "route", "show", "table", "main"},
		"routing rule": {"ip", "rule"},
		"nftables":     {"nft", "list", "ruleset"},
	} {
		if _, err := exec.LookPath(argv[0]); err != nil {
			continue // nft is no part of a small system, and minato does not need it
		}
		out, err := netnstest.Try(w.Host, argv...)
		if err != nil {
			return nil, fmt.Errorf("%s: %w\n%s", argv[0], err, out)
		}
		t[kind] = strings.Split(strings.TrimSpace(out), "\n")
	}
	if err := w.Host.Do(func() (err error) { t["sysctl"], err = sysctls(); return err }); err != nil {
		return nil, err
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("read mounts: %w", err)
	}
	for _, line := range strings.Split(string(mounts), "\n") {
		if w.owns(line) {
			t["mount"] = append(t["mount"], line)
		}
	}
	for _, pid := range w.processes() {
		cmdline, _ := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "cmdline")) // empty if it has just ended
		t["process"] = append(t["process"], fmt.Sprint(pid, " ", strings.ReplaceAll(string(cmdline), "\x00", " ")))
	}
	config, err := os.ReadFile(w.UserKubeconfig())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read kubeconfig: %w", err)
	}
	if w.owns(string(config)) {
		t["kubeconfig"] = strings.Split(string(config), "\n")
	}
	for _, pattern := range w.files() {
		found, err := filepath.Glob(pattern)
		if err != nil {
			return nil, fmt.Errorf("look for %s: %w", pattern, err)
		}
		t["file"] = append(t["file"], found...)
	}
	t[unused] = nil
	for _, dir := range shared {
		empty, err := hasNoFiles(dir)
		if err != nil {
			return nil, fmt.Errorf("look into %s: %w", dir, err)
		}
		if empty {
			t[unused] = append(t[unused], dir)
		}
	}
	return t, nil
}

// hasNoFiles reports whether dir is there and has nothing but folders in it.
func hasNoFiles(dir string) (bool, error) {
	errFile := errors.New("a file")
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist) && path != dir: // another instance's, gone meanwhile
			return nil
		case err == nil && !d.IsDir():
			return errFile
		}
		return err
	})
	switch {
	case err == nil:
		return true, nil
	case errors.Is(err, errFile), errors.Is(err, fs.ErrNotExist):
		return false, nil
	}
	return false, err
}

// owns reports whether a text names the instance or its state folder.
func (w *World) owns(text string) bool {
	return strings.Contains(text, w.Name) || w.StateDir != "" && strings.Contains(text, w.StateDir)
}

// files are the patterns of all paths that bear the instance's name.
func (w *World) files() []string {
	return []string{
		w.StateDir, "/run/minato/" + w.Name, "/run/netns/" + w.Name + "-*", "/var/lib/minato/" + w.Name,
		"/sys/fs/cgroup/minato-" + w.Name, "/sys/fs/cgroup/*/minato-" + w.Name,
	}
}

// unused is the kind of a shared folder that nobody uses. Another instance beside this one may come and go, and such a
// folder with it, so only one that was not there before counts, and only when nothing is in it.
const unused = "unused folder"

// shared are folders which containerd and its network library make wherever their own ones are.
var shared = []string{"/run/containerd", "/var/lib/cni", "/etc/cni", "/opt/cni"}

// processes are those which name the instance on their command line, are in its cgroups, or use the host's network.
func (w *World) processes() []int {
	var host unix.Stat_t
	hasHost := w.World != nil && unix.Stat(w.Host.Path(), &host) == nil
	var pids []int
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range dirs {
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err != nil || pid == os.Getpid() {
			continue
		}
		cmdline, _ := os.ReadFile(filepath.Join(dir, "cmdline")) // empty for one that has just ended
		cgroup, _ := os.ReadFile(filepath.Join(dir, "cgroup"))
		var ns unix.Stat_t
		inHost := hasHost && unix.Stat(filepath.Join(dir, "ns", "net"), &ns) == nil && ns.Ino == host.Ino
		if inHost || strings.Contains(string(cmdline), w.Name) || strings.Contains(string(cgroup), "minato-"+w.Name) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// sysctls reads the network settings of the calling thread's namespace, and the few others that a kubelet may touch.
func sysctls() ([]string, error) {
	var all []string
	read := func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || filepath.Base(path) == "nf_conntrack_count" {
			return ignoreGone(err)
		}
		value, err := os.ReadFile(path)
		if err == nil {
			all = append(all, fmt.Sprintf("%s = %s", strings.TrimPrefix(path, "/proc/sys/"), strings.TrimSpace(string(value))))
		}
		return ignoreGone(err)
	}
	for _, root := range []string{"/proc/sys/net", "/proc/sys/vm/overcommit_memory", "/proc/sys/kernel/panic", "/proc/sys/kernel/panic_on_oops"} {
		if err := filepath.WalkDir(root, read); err != nil {
			return nil, fmt.Errorf("read settings: %w", err)
		}
	}
	return all, nil
}

// ignoreGone forgives settings that vanish with a link, cannot be read, or are only for writing.
func ignoreGone(err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.EIO) || errors.Is(err, syscall.EINVAL) {
		return nil
	}
	return err
}

// scrub removes by force what bears the instance's name: first what runs, then what is mounted, then the rest.
func (w *World) scrub(t testing.TB) {
	for range 50 {
		pids := w.processes()
		if len(pids) == 0 {
			break
		}
		for _, pid := range pids {
			_ = unix.Kill(pid, unix.SIGKILL) // gone is as good
		}
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Log(err)
	}
	lines := strings.Split(string(mounts), "\n")
	slices.Reverse(lines) // the last mounted first
	for _, line := range lines {
		if fields := strings.Fields(line); len(fields) > 4 && w.owns(line) {
			if err := unix.Unmount(fields[4], unix.MNT_DETACH); err != nil {
				t.Logf("unmount %s: %v", fields[4], err)
			}
		}
	}
	for _, pattern := range w.files() {
		found, _ := filepath.Glob(pattern)
		for _, path := range found {
			if strings.HasPrefix(path, "/sys/fs/cgroup") {
				removeCgroups(path)
			} else if err := os.RemoveAll(path); err != nil {
				t.Log(err)
			}
		}
	}
}

// removeCgroups removes a cgroup and those below it; their files vanish with them.
func removeCgroups(root string) {
	var dirs []string
	_ = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			dirs = append(dirs, path)
		}
		return nil
	})
	slices.Reverse(dirs)
	for _, dir := range dirs {
		_ = unix.Rmdir(dir)
	}
}

// sweep removes instances that killed test processes have left.
func sweep(t testing.TB, minato string) {
	left, _ := filepath.Glob("/run/minato/" + namePrefix + "[0-9]*-*")
	for _, dir := range left {
		name := filepath.Base(dir)
		owner, _, _ := strings.Cut(strings.TrimPrefix(name, namePrefix), "-")
		pid, err := strconv.Atoi(owner)
		if err != nil || unix.Kill(pid, 0) != syscall.ESRCH {
			continue
		}
		state, _ := os.ReadFile(filepath.Join(dir, "state-dir"))
		out, err := exec.Command(minato, "delete", "--name", name).CombinedOutput()
		t.Logf("removed instance %s of a test that was killed: %v\n%s", name, err, out)
		(&World{Name: name, StateDir: string(state)}).scrub(t)
		if world := filepath.Dir(string(state)); strings.HasPrefix(filepath.Base(world), dirPrefix) {
			_ = os.RemoveAll(world) // only files are left in it
		}
	}
}
