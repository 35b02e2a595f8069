//go:build linux

package instance

import (
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"minato/test/world"
)

var (
	starts = flag.Int("starts", 2, "how often an instance is stopped and started")
	many   = flag.Int("pods", 15, "how many pods come and go")
)

// slack is how many descriptors more a process may hold: connections that are kept for a while.
const slack = 10

// inventory is what an instance holds of the machine, by kind.
type inventory map[string]int

func count(t *testing.T, w *world.World) inventory {
	t.Helper()
	now := inventory{"mounts": 0, "cgroups": 0}
	for name, what := range map[string]string{"minato": w.Minato + "\x00up", "containerd": "containerd\x00--config", "shim": "containerd-shim"} {
		pids := processes(t, w, what)
		now[name+" processes"] = len(pids)
		if name == "shim" {
			continue
		}
		for _, pid := range pids {
			dir := filepath.Join("/proc", strconv.Itoa(pid))
			descriptors, _ := os.ReadDir(filepath.Join(dir, "fd")) // none of one that has ended
			now[name+" descriptors"] += len(descriptors)
			status, _ := os.ReadFile(filepath.Join(dir, "status"))
			if m := regexp.MustCompile(`VmRSS:\s+(\d+) kB`).FindSubmatch(status); m != nil {
				kb, _ := strconv.Atoi(string(m[1]))
				now[name+" MB"] += kb >> 10
			}
		}
	}
	namespaces, err := filepath.Glob("/run/netns/" + w.Name + "-*")
	if err != nil {
		t.Fatal(err)
	}
	now["namespaces"] = len(namespaces)
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range strings.Split(string(mounts), "\n") {
		if strings.Contains(line, w.Name) || strings.Contains(line, w.StateDir) {
			now["mounts"]++
		}
	}
	for _, pattern := range []string{"/sys/fs/cgroup/minato-", "/sys/fs/cgroup/*/minato-"} {
		roots, err := filepath.Glob(pattern + w.Name)
		if err != nil {
			t.Fatal(err)
		}
		for _, root := range roots {
			now["cgroups"] += folders(root)
		}
	}
	now["links"] = strings.Count(w.OnNode("node1", "ip", "-o", "link").Stdout, "\n")
	return now
}

// folders counts a folder and those below it, as long as they are there.
func folders(root string) (n int) {
	_ = filepath.WalkDir(root, func(_ string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			n++
		}
		return nil
	})
	return n
}

// collected is more than a round of Go's garbage collector, to which containerd 1.6 seems to leave sockets of pods that
// are gone: up to 30 were seen after 20 pods, no more after another 20, and none 20 s later.
const collected = 150 * time.Second

// more says what now has that before had not. Memory is only told: it is given back when somebody asks for it.
func (now inventory) more(before inventory) error {
	var left []string
	for kind, n := range now {
		allowed := before[kind]
		switch {
		case strings.HasSuffix(kind, " MB"):
			continue
		case strings.HasSuffix(kind, " descriptors"):
			allowed += slack
		}
		if n > allowed {
			left = append(left, fmt.Sprintf("%s %d, were %d", kind, n, before[kind]))
		}
	}
	if len(left) > 0 {
		return fmt.Errorf("left: %s", strings.Join(left, "; "))
	}
	return nil
}

// TestPodsComeAndGo starts many pods and deletes them, and compares what the instance holds before and after.
func TestPodsComeAndGo(t *testing.T) {
	w := world.Start(t, world.Config{Images: []string{"nginx"}})
	scale := func(replicas int) {
		w.Kubectl(t, "scale", "deployment", "many", fmt.Sprint("--replicas=", replicas))
		world.Eventually(t, 10*time.Minute, func() error {
			got := w.Kubectl(t, "get", "deployment", "many", "-o", "jsonpath={.status.readyReplicas}/{.status.replicas}")
			if want := fmt.Sprintf("%d/%d", replicas, replicas); got != want && !(replicas == 0 && strings.Trim(got, "0/") == "") {
				return fmt.Errorf("%s pods ready, want %s", got, want)
			}
			return nil
		})
		world.Eventually(t, 5*time.Minute, func() error {
			if running := len(w.Sandboxes(t)); running != replicas {
				return fmt.Errorf("%d pods run, want %d", running, replicas)
			}
			return nil
		})
	}
	w.Kubectl(t, "create", "deployment", "many", "--image=nginx", "--replicas=0")
	scale(3) // the image is unpacked, and what is made once is made
	scale(0)
	before := count(t, w)
	began := time.Now()
	scale(*many)
	t.Logf("%d pods run after %v: %v", *many, time.Since(began).Round(100*time.Millisecond), count(t, w))
	began = time.Now()
	scale(0)
	t.Logf("gone after %v", time.Since(began).Round(100*time.Millisecond))
	world.Eventually(t, collected, func() error { return count(t, w).more(before) })
	t.Logf("before %v", before)
	t.Logf("after  %v", count(t, w))
}

// TestUpAndDownAgainAndAgain stops and starts an instance with pods, and compares what it holds each time.
func TestUpAndDownAgainAndAgain(t *testing.T) {
	w := world.Start(t, world.Config{Images: []string{"nginx"}})
	w.Kubectl(t, "create", "deployment", "web", "--image=nginx", "--replicas=3")
	var up, down inventory
	for i := range *starts + 1 {
		w.Kubectl(t, "rollout", "status", "deployment/web", "--timeout=50s")
		nowUp := count(t, w)
		if r := w.Verb("down"); r.Err != nil {
			t.Fatalf("down: %v\n%s", r.Err, r.Output())
		}
		nowDown := count(t, w)
		if i == 0 {
			up, down = nowUp, nowDown
			t.Logf("up %v\ndown %v", up, down)
		}
		if err := nowDown.more(down); err != nil {
			t.Errorf("down for the %d. time: %v", i+1, err)
		}
		if i == *starts {
			t.Logf("after %d times: up %v\ndown %v", i+1, nowUp, nowDown)
			if err := nowUp.more(up); err != nil {
				t.Errorf("up for the %d. time: %v", i+1, err)
			}
		}
		if r := w.Verb("up", "--detach"); r.Err != nil {
			t.Fatalf("up: %v\n%s", r.Err, r.Output())
		}
	}
	if left := held(down); left != "" {
		t.Errorf("a stopped instance holds %s", left)
	}
}

// held is what an inventory holds, empty for nothing.
func held(i inventory) string {
	var all []string
	for kind := range i {
		if i[kind] > 0 {
			all = append(all, fmt.Sprintf("%d %s", i[kind], kind))
		}
	}
	return strings.Join(all, ", ")
}
