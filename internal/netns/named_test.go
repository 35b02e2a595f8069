//go:build linux

package netns

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// alone runs the test once more in a process of its own with an empty /run, and is true there.
func alone(t *testing.T) bool {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("making a network namespace needs root")
	}
	const inside = "MINATO_TEST_ALONE"
	if os.Getenv(inside) != "" {
		if err := unix.Mount("tmpfs", "/run", "tmpfs", 0, ""); err != nil {
			t.Fatal(err)
		}
		return true
	}
	c := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
	c.Env = append(os.Environ(), inside+"=1")
	c.SysProcAttr = &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNS}
	if out, err := c.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	return false
}

func TestTheFirstNamespaceOfIproute2CoversNoneOfOurs(t *testing.T) {
	ip, err := exec.LookPath("ip")
	if err != nil {
		t.Skip("this machine has no iproute2")
	}
	if !alone(t) {
		return
	}
	before, ours := mounts(t), filepath.Join(Dir, "ours")
	if err := Create(ours); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"netns", "add", "theirs"}, {"netns", "del", "theirs"}} {
		if out, err := exec.Command(ip, args...).CombinedOutput(); err != nil {
			t.Fatalf("ip %v: %v: %s", args, err, out)
		}
	}
	if err := Delete(ours); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(Dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the folder is left: %v", err)
	}
	if after := mounts(t); after != before {
		t.Errorf("the mounts were\n%sand are\n%s", before, after)
	}
}

func mounts(t *testing.T) string {
	t.Helper()
	all, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	return string(all)
}

func TestWhatIsCoveredSaysHowToUncoverIt(t *testing.T) {
	if !alone(t) {
		return
	}
	older, ours := filepath.Join(Dir, "older"), filepath.Join(Dir, "ours")
	if err := errors.Join(os.MkdirAll(Dir, 0o755), os.WriteFile(older, nil, 0o444)); err != nil { // the folder is used, and no mount
		t.Fatal(err)
	}
	if err := Create(ours); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount(Dir, Dir, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		t.Fatal(err)
	}
	if err := Delete(ours); !errors.Is(err, unix.EBUSY) || !strings.Contains(err.Error(), "`umount /run/netns`") {
		t.Fatal(err)
	}
	if err := unix.Unmount(Dir, 0); err != nil {
		t.Fatal(err)
	}
	if err := Delete(ours); err != nil {
		t.Error(err)
	}
}

func TestNamespacesComeAndGoAtOnce(t *testing.T) {
	if !alone(t) {
		return
	}
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			path := filepath.Join(Dir, fmt.Sprint("n", i))
			for range 20 {
				if err := Create(path); err != nil {
					t.Error(err)
				} else if err := Delete(path); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	if _, err := os.Stat(Dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the folder is left: %v", err)
	}
}
