//go:build linux

// Package netnstest gives a test a small world of network namespaces of its own: a "host", an "internet" behind
// it, and as many others as it asks for. Nothing in it has a way out of the machine.
//
// It needs root and skips the test otherwise. It configures the world around the thing under test, never that
// thing itself.
package netnstest

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"minato/internal/netns"
)

// Addresses of the world that New makes.
const (
	HostAddr     = "198.51.100.1" // of the host's link to the internet
	InternetAddr = "198.51.100.2" // of the internet's end of it: the host's default gateway
	FarAddr      = "203.0.113.10" // an address further away, behind the gateway
)

// HostUplink is the name of the host's link to the internet, InternetLink that of its other end.
const (
	HostUplink   = "wan0"
	InternetLink = "lan0"
)

// World is a host and an internet, linked. The internet has no route to anything behind the host.
type World struct {
	Host, Internet netns.NS
}

// prefix begins the names of all namespaces of tests; the process id follows.
const prefix = "minato-test-"

var serial atomic.Uint32

// New makes a world, which is removed when the test ends.
func New(t testing.TB) *World {
	t.Helper()
	w := &World{Host: Namespace(t, "host"), Internet: Namespace(t, "internet")}
	Link(t, w.Host, HostUplink, HostAddr+"/24", w.Internet, InternetLink, InternetAddr+"/24")
	Run(t, w.Internet, "ip", "address", "add", FarAddr+"/32", "dev", "lo")
	Run(t, w.Host, "ip", "route", "add", "default", "via", InternetAddr)
	return w
}

// Name is unique on the machine, for instances and namespaces. What is named by it in netns.Dir is removed by a later
// test, if this one is killed.
func Name(role string) string {
	return fmt.Sprintf("%s%d-%d-%s", prefix, os.Getpid(), serial.Add(1), role)
}

// Namespace makes a namespace with lo up. It vanishes when the test ends, unless a process or
// socket lives on in it.
func Namespace(t testing.TB, role string) netns.NS {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("making network namespaces needs root")
	}
	sweep()
	path := filepath.Join(netns.Dir, Name(role))
	if err := netns.Create(path); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := netns.Delete(path); err != nil {
			t.Error(err)
		}
	})
	ns := netns.At(path)
	Run(t, ns, "sysctl", "net.ipv6.conf.default.accept_dad=0") // addresses settle at once
	Run(t, ns, "ip", "link", "set", "lo", "up")
	return ns
}

// Link joins two namespaces by a pair of links and brings them up. An address is a prefix, or empty for none.
func Link(t testing.TB, a netns.NS, aName, aAddr string, b netns.NS, bName, bAddr string) {
	t.Helper()
	// Ends with the same index would be activated up to a second later (net/core/link_watch.c).
	index := strconv.Itoa(1000 + int(serial.Add(1)))
	Run(t, a, "ip", "link", "add", aName, "type", "veth", "peer", "name", bName, "index", index, "netns", filepath.Base(b.Path()))
	for _, end := range []struct {
		ns         netns.NS
		name, addr string
	}{{a, aName, aAddr}, {b, bName, bAddr}} {
		if end.addr != "" {
			Run(t, end.ns, "ip", "address", "add", end.addr, "dev", end.name)
		}
		Run(t, end.ns, "ip", "link", "set", end.name, "up")
	}
	for deadline := time.Now().Add(Wait); !strings.Contains(Run(t, a, "ip", "link", "show", aName), "state UP"); {
		if time.Now().After(deadline) {
			t.Fatalf("link %s of %s does not come up", aName, a)
		}
		time.Sleep(time.Millisecond)
	}
}

// Run runs a command in a namespace and returns its standard output. A command that fails ends the test.
func Run(t testing.TB, ns netns.NS, argv ...string) string {
	t.Helper()
	out, err := Try(ns, argv...)
	if err != nil {
		t.Fatalf("in %s: %s: %v\n%s", ns, strings.Join(argv, " "), err, out)
	}
	return out
}

// Settle waits until every global IPv6 address of a namespace can be used: the kernel adds its routes some time after the
// address, even without duplicate address detection.
func Settle(t testing.TB, ns netns.NS) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		local := strings.Fields(Run(t, ns, "ip", "-6", "route", "show", "table", "local"))
		waiting := slices.DeleteFunc(strings.Fields(Run(t, ns, "ip", "-6", "-br", "address", "show", "up", "scope", "global")), func(f string) bool {
			p, err := netip.ParsePrefix(f)
			return err != nil || slices.Contains(local, p.Addr().String())
		})
		if len(waiting) == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("addresses that cannot be used yet: %v", waiting)
		}
	}
}

// Try runs a command in a namespace and returns its standard output. The error of one that failed says what it
// wrote to its other output; it is an *exec.ExitError.
func Try(ns netns.NS, argv ...string) (string, error) {
	cmd := exec.Command(argv[0], argv[1:]...)
	var out, problems strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &problems
	if err := Start(ns, cmd); err != nil {
		return "", err
	}
	if err := cmd.Wait(); err != nil {
		return out.String(), fmt.Errorf("%w: %s", err, strings.TrimSpace(problems.String()))
	}
	return out.String(), nil
}

// Start starts a command in a namespace. Whoever started it waits for it.
func Start(ns netns.NS, cmd *exec.Cmd) error {
	return ns.Do(cmd.Start)
}

// restless is what changes by itself: a bridge's timers, and link-local addresses with their routes.
var restless = regexp.MustCompile(` \w+_timer +[0-9.]+|(?m:^.*fe80::.*\n)`)

// Dump describes all there is in a namespace: links, addresses, routes of all tables, rules, nftables and the
// parameters of IPv4 and IPv6. Two dumps are equal if nothing has changed but counters, timers and link-local
// addresses.
func Dump(t testing.TB, ns netns.NS) string {
	t.Helper()
	var dump strings.Builder
	for _, argv := range [][]string{
		{"ip", "-details", "-oneline", "link"},
		{"ip", "-oneline", "address"},
		{"ip", "-4", "route", "show", "table", "all"},
		{"ip", "-6", "route", "show", "table", "all"},
		{"ip", "rule"},
		{"nft", "--stateless", "list", "ruleset"},
		{"sysctl", "--all", "--pattern", `^net\.(ipv4|ipv6)\.(conf|ip_forward|neigh)`},
	} {
		fmt.Fprintf(&dump, "# %s\n%s", strings.Join(argv, " "), restless.ReplaceAllString(Run(t, ns, argv...), ""))
	}
	return dump.String()
}

// Diff lists the lines that only one of two dumps has, with - or + before them.
func Diff(before, after string) string {
	count := map[string]int{}
	for _, l := range strings.Split(after, "\n") {
		count[l]++
	}
	var diff strings.Builder
	for _, l := range strings.Split(before, "\n") {
		if count[l]--; count[l] < 0 {
			fmt.Fprintf(&diff, "-%s\n", l)
		}
	}
	for _, l := range strings.Split(after, "\n") {
		if count[l] > 0 {
			count[l]--
			fmt.Fprintf(&diff, "+%s\n", l)
		}
	}
	return diff.String()
}

// sweep removes namespaces that killed test processes have left.
func sweep() {
	paths, _ := filepath.Glob(filepath.Join(netns.Dir, prefix+"*"))
	for _, path := range paths {
		owner, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(path), prefix), "-")
		pid, err := strconv.Atoi(owner)
		if err == nil && unix.Kill(pid, 0) == syscall.ESRCH {
			netns.Delete(path) // another test's sweep may be quicker
		}
	}
}
