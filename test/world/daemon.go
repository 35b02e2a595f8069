//go:build linux

package world

import (
	"context"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"minato/internal/netns/netnstest"
	"minato/test/images/recipe"
)

// Daemon is a program that runs on the host beside minato, until its test ends.
type Daemon struct {
	mu     sync.Mutex
	output strings.Builder
}

// Output is what it has printed so far.
func (d *Daemon) Output() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.output.String()
}

// Write takes what the program prints.
func (d *Daemon) Write(p []byte) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.output.Write(p)
}

// Daemon starts a program on the host, with the folder root as its whole file system (see ImageRoot).
func (w *World) Daemon(t testing.TB, root string, argv ...string) *Daemon {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	d := &Daemon{}
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	if !strings.Contains(argv[0], "/") {
		t.Fatalf("%s: give the path of a program below the root", argv[0])
	}
	cmd.Dir, cmd.Env = "/", []string{"PATH=/usr/sbin:/usr/bin"}
	cmd.Stdout, cmd.Stderr = d, d
	cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: root, Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = 5 * time.Second
	if err := netnstest.Start(w.Host, cmd); err != nil {
		cancel()
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		_ = cmd.Wait() // ended by us, or its output says why
		if t.Failed() {
			t.Logf("%s:\n%s", strings.Join(argv, " "), d.Output())
		}
	})
	return d
}

// ImageRoot unpacks one of the images into a folder that the test may change.
func (w *World) ImageRoot(t testing.TB, name string) string {
	t.Helper()
	cache, err := recipe.Cache()
	if err != nil {
		t.Fatal(err)
	}
	files, err := recipe.Tars(t.Context(), cache, name)
	if err != nil {
		t.Fatal(err)
	}
	image, err := tarball.ImageFromPath(files[name], nil)
	if err != nil {
		t.Fatalf("read image %s: %v", name, err)
	}
	content := mutate.Extract(image)
	defer content.Close()
	dir, err := os.MkdirTemp(w.dir, "root-")
	if err != nil {
		t.Fatal(err)
	}
	unpack := exec.Command("tar", "--extract", "--numeric-owner", "--directory", dir)
	unpack.Stdin = content
	if out, err := unpack.CombinedOutput(); err != nil {
		t.Fatalf("unpack image %s: %v\n%s", name, err, out)
	}
	return dir
}
