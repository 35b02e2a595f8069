//go:build linux

package doctor

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The least that an instance needs, and what it takes to work well.
const (
	minKernelMajor, minKernelMinor         = 5, 13 // dataplane/nftables/kernel.MinimumKernel
	minContainerdMajor, minContainerdMinor = 1, 6
	leastMemory, goodMemory                = 384 << 20, 768 << 20
	leastDisk, goodDisk                    = 256 << 20, 2 << 30
	goodInotify                            = 128
	goodFiles                              = 16384
)

// twoNumbers reads the first two numbers of a version, such as 6.1 of "6.1.0-18-amd64".
func twoNumbers(text string) (major, minor int, ok bool) {
	text = strings.TrimLeft(text, "v")
	parts := strings.FieldsFunc(text, func(r rune) bool { return r < '0' || r > '9' })
	if len(parts) < 2 {
		return 0, 0, false
	}
	major, err := strconv.Atoi(parts[0])
	if err != nil {
		return 0, 0, false
	}
	minor, err = strconv.Atoi(parts[1])
	return major, minor, err == nil
}

func kernel(_ context.Context, s System, _ Want) (Finding, error) {
	b, err := s.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		return Finding{}, err
	}
	release := strings.TrimSpace(string(b))
	major, minor, known := twoNumbers(release)
	if known && (major < minKernelMajor || major == minKernelMajor && minor < minKernelMinor) {
		return fail(fmt.Sprintf("boot Linux %d.%d or newer", minKernelMajor, minKernelMinor), "Linux %s", release)
	}
	return ok("Linux %s", release)
}

func containerd(ctx context.Context, s System, _ Want) (Finding, error) {
	const install = "install containerd and runc: apt-get install containerd runc"
	for _, program := range []string{"containerd", "containerd-shim-runc-v2", "runc"} {
		if _, err := s.LookPath(program); err != nil {
			return fail(install, "%s is not on the PATH", program)
		}
	}
	text, err := s.Output(ctx, "containerd", "--version")
	if err != nil {
		return fail(install, "containerd --version: %v", err)
	}
	words := strings.Fields(text) // containerd github.com/containerd/containerd 1.6.20~ds1 ...
	if len(words) < 3 {
		return warn(install, "containerd --version prints %q", strings.TrimSpace(text))
	}
	major, minor, known := twoNumbers(words[2])
	if known && (major < minContainerdMajor || major == minContainerdMajor && minor < minContainerdMinor) {
		return fail(fmt.Sprintf("install containerd %d.%d or newer", minContainerdMajor, minContainerdMinor), "containerd %s", words[2])
	}
	runc := "runc"
	if text, err := s.Output(ctx, "runc", "--version"); err == nil {
		runc, _, _ = strings.Cut(text, "\n")
	}
	return ok("containerd %s, %s", words[2], strings.Replace(runc, "version ", "", 1))
}

// cgroups looks into both layouts: version 2 lists its controllers, version 1 all that the kernel knows.
func cgroups(_ context.Context, s System, _ Want) (Finding, error) {
	version := "version 1"
	if b, err := s.ReadFile("/sys/fs/cgroup/cgroup.controllers"); err == nil {
		version = "version 2"
		if slices.Contains(strings.Fields(string(b)), "memory") {
			return ok("%s, with the memory controller", version)
		}
	}
	b, err := s.ReadFile("/proc/cgroups")
	if err != nil {
		return Finding{}, err
	}
	for line := range strings.Lines(string(b)) { // subsys_name hierarchy num_cgroups enabled
		if v := strings.Fields(line); len(v) == 4 && v[0] == "memory" && v[3] == "1" {
			return ok("%s, with the memory controller", version)
		}
	}
	return fail("add cgroup_enable=memory to the kernel's command line and reboot (on a Raspberry Pi: /boot/firmware/cmdline.txt)",
		"%s, without the memory controller: containers need it", version)
}

func memory(_ context.Context, s System, w Want) (Finding, error) {
	b, err := s.ReadFile("/proc/meminfo")
	if err != nil {
		return Finding{}, err
	}
	var available uint64
	for line := range strings.Lines(string(b)) {
		if v := strings.Fields(line); len(v) == 3 && v[0] == "MemAvailable:" {
			kilobytes, err := strconv.ParseUint(v[1], 10, 64)
			if err != nil {
				return Finding{}, err
			}
			available = kilobytes << 10
		}
	}
	switch {
	case w.Running:
		return ok("%s free beside the running instance", size(available))
	case available < leastMemory:
		return fail("end other programs, or use a machine with more memory", "%s free, %s is the least", size(available), size(leastMemory))
	case available < goodMemory:
		return warn("keep to one node (minato up --nodes 1) and few pods", "%s free", size(available))
	}
	return ok("%s free", size(available))
}

func size(bytes uint64) string {
	if bytes >= 10<<30 {
		return fmt.Sprintf("%d GiB", bytes>>30)
	}
	return fmt.Sprintf("%d MiB", bytes>>20)
}

func disk(_ context.Context, s System, w Want) (Finding, error) {
	free, readOnly, err := s.Free(w.StateDir)
	if err != nil {
		return Finding{}, err
	}
	switch {
	case readOnly:
		return fail("mount it writable, or choose another folder with --state-dir", "%s is on a read-only file system", w.StateDir)
	case free < leastDisk:
		return fail("make room, or choose another folder with --state-dir", "%s free for %s, %s is the least", size(free), w.StateDir, size(leastDisk))
	case free < goodDisk:
		return warn("make room for images, or choose another folder with --state-dir", "%s free for %s", size(free), w.StateDir)
	}
	return ok("%s free for %s", size(free), w.StateDir)
}

func limits(_ context.Context, s System, _ Want) (Finding, error) {
	b, err := s.ReadFile("/proc/sys/fs/inotify/max_user_instances")
	if err != nil {
		return Finding{}, err
	}
	instances, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return Finding{}, err
	}
	files, err := s.OpenFiles()
	if err != nil {
		return Finding{}, err
	}
	switch {
	case files < goodFiles:
		return warn(fmt.Sprintf("ulimit -Hn %d before you start it", 1<<20), "%d open files for a process", files)
	case instances < goodInotify:
		return warn("sysctl fs.inotify.max_user_instances=512", "%d inotify instances for a user: log followers and controllers in pods run out of them", instances)
	}
	return ok("%d open files, %d inotify instances", files, instances)
}

// clock compares with what the instance's certificates say, if there are some, because a clock that was wrong when
// they were made, as on a board without a battery, is a failure that nobody understands.
func clock(_ context.Context, s System, w Want) (Finding, error) {
	now := s.Now()
	const set = "set the clock: timedatectl set-ntp true, or date -s"
	if b, err := s.ReadFile(filepath.Join(w.StateDir, "pki", "ca.pem")); err == nil {
		if p, _ := pem.Decode(b); p != nil {
			if ca, err := x509.ParseCertificate(p.Bytes); err == nil && now.Before(ca.NotBefore) {
				return fail(set, "%s is before the instance was made, %s", now.UTC().Format(time.DateTime), ca.NotBefore.UTC().Format(time.DateTime))
			}
		}
	}
	if now.Year() < 2025 {
		return fail(set, "%s", now.UTC().Format(time.DateTime))
	}
	synchronized, err := s.Synchronized()
	if err != nil {
		return Finding{}, err
	}
	if !synchronized {
		return warn("let a time service keep it: timedatectl set-ntp true", "%s UTC, and nobody keeps it right", now.UTC().Format(time.DateTime))
	}
	return ok("%s UTC, kept right", now.UTC().Format(time.DateTime))
}
