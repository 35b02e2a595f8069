//go:build linux

package world

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"minato/internal/netns"
	"minato/internal/netns/netnstest"
	"minato/test/images/recipe"
)

// Config says what differs from one world to another.
type Config struct {
	Up      []string            // flags of `minato up`, beside those that keep it in its world
	Images  []string            // to load; nil means all that there are, an empty list none
	Prepare func(host netns.NS) // is called before `minato up`, for example to set a firewall
	IPv4    string              // why the test is nothing for an instance without IPv4, if so
}

// World is one instance of minato, its host, and the internet behind it. Its methods may be used by several goroutines.
type World struct {
	*netnstest.World
	Internet *Internet
	Name     string // of the instance
	Minato   string // path of the program
	StateDir string
	dir      string // everything else: kubeconfig, programs for the shell
}

// upTime is how long an instance may take to come up on a busy machine.
const upTime = 2 * time.Minute

var serial atomic.Uint32

// namePrefix begins the names of the instances of tests; the process id follows.
const namePrefix = "wt"

// dirPrefix begins the names of their folders.
const dirPrefix = "minato-world-"

// Start brings up an instance with its images loaded. The world ends with the test, which fails if anything is left of it.
func Start(t testing.TB, c Config) *World {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("nodes are network namespaces, and pods are containers: both need root")
	}
	if c.IPv4 != "" && OverIPv6() {
		t.Skip("not over IPv6 alone: " + c.IPv4)
	}
	minato, err := program()
	if err != nil {
		t.Fatal(err)
	}
	sweep(t, minato)
	// Not t.TempDir: a path with the test's name in it is too long for a socket.
	dir, err := os.MkdirTemp("", dirPrefix)
	if err != nil {
		t.Fatal(err)
	}
	outside := netnstest.New(t)
	if OverIPv6() {
		joinOverIPv6(t, outside)
	}
	w := &World{
		World:    outside,
		Internet: newInternet(t, outside.Internet),
		Name:     fmt.Sprintf("%s%d-%02d", namePrefix, os.Getpid(), serial.Add(1)),
		Minato:   minato,
		StateDir: filepath.Join(dir, "state"),
		dir:      dir,
	}
	if err := w.writePrograms(); err != nil {
		t.Fatal(err)
	}
	if c.Prepare != nil {
		c.Prepare(w.Host)
	}
	before, err := w.traces()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.end(t, before) })
	if family := os.Getenv(familyVariable); family != "" && !slices.Contains(c.Up, "--ip-family") {
		c.Up = append(c.Up, "--ip-family", family)
	}
	up := append([]string{"up", "--detach", "--kubeconfig", w.UserKubeconfig(), "--upstream-dns", netnstest.InternetAddr}, c.Up...)
	started := time.Now()
	w.must(t, upTime, w.minato(up...)...)
	t.Logf("instance %s is up after %v", w.Name, time.Since(started).Round(10*time.Millisecond))
	w.loadImages(t, c.Images)
	return w
}

func (w *World) loadImages(t testing.TB, names []string) {
	t.Helper()
	if names == nil {
		names = recipe.Names()
	}
	if len(names) == 0 {
		return
	}
	cache, err := recipe.Cache()
	if err != nil {
		t.Fatal(err)
	}
	files, err := recipe.Tars(t.Context(), cache, names...)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		w.must(t, upTime, w.minato("image", "load", files[name])...)
	}
}

// minato is the command line of a verb for this instance. The flags follow the verb, where `kubectl` wants them too.
func (w *World) minato(args ...string) []string {
	flags := []string{"--name", w.Name, "--state-dir", w.StateDir}
	if args[0] == "node" || args[0] == "image" {
		return append(append([]string{w.Minato, args[0], args[1]}, flags...), args[2:]...)
	}
	return append(append([]string{w.Minato, args[0]}, flags...), args[1:]...)
}

// Kubeconfig is the instance's own.
func (w *World) Kubeconfig() string { return filepath.Join(w.StateDir, "kubeconfig") }

// UserKubeconfig is the other one, in which the instance is one context of perhaps many.
func (w *World) UserKubeconfig() string { return filepath.Join(w.dir, "kubeconfig") }

// end removes the instance and checks that nothing of it is left. What is left all the same is removed by force, so
// that one failure does not become the next test's.
func (w *World) end(t testing.TB, before traces) {
	if t.Failed() {
		w.report(t)
	}
	if r := w.run(upTime, w.minato("delete")...); r.Err != nil {
		t.Errorf("minato delete: %v\n%s", r.Err, r.Output())
	}
	after, err := w.traces()
	if err != nil {
		t.Error(err)
	}
	if left := after.since(before); left != "" {
		t.Errorf("minato delete has left traces:\n%s", left)
		w.scrub(t)
	}
	if err := os.RemoveAll(w.dir); err != nil {
		t.Error(err)
	}
}

// report logs what one wants to see of a failure.
func (w *World) report(t testing.TB) {
	for _, file := range []string{filepath.Join(w.StateDir, "minato.log"), filepath.Join(w.StateDir, "containerd", "containerd.log")} {
		content, err := os.ReadFile(file)
		if err != nil {
			t.Log(err)
			continue
		}
		lines := strings.Split(strings.TrimSpace(string(content)), "\n")
		t.Logf("end of %s:\n%s", file, strings.Join(lines[max(0, len(lines)-60):], "\n"))
	}
	for _, argv := range [][]string{
		w.minato("status"),
		w.minato("kubectl", "get", "node,pod,svc,endpointslice", "-A", "-o", "wide"),
		w.minato("kubectl", "get", "events", "-A", "--sort-by=.lastTimestamp"),
	} {
		r := w.run(30*time.Second, argv...)
		t.Logf("%s: %v\n%s", strings.Join(argv[1:], " "), r.Err, r.Output())
	}
}

// program is $MINATO_BIN, or minato built from this checkout, once for all tests of a process.
var program = sync.OnceValues(func() (string, error) {
	if bin := os.Getenv("MINATO_BIN"); bin != "" {
		return filepath.Abs(bin)
	}
	mod, err := exec.Command("go", "env", "GOMOD").Output()
	if err != nil {
		return "", fmt.Errorf("find the module: %w", err)
	}
	root := filepath.Dir(strings.TrimSpace(string(mod)))
	if out, err := exec.Command("make", "-C", root, "build").CombinedOutput(); err != nil {
		return "", fmt.Errorf("make build: %w\n%s", err, out)
	}
	return filepath.Join(root, "bin", "minato"), nil
})
