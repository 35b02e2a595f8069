//go:build linux

package netns

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/vishvananda/netlink"
)

func create(t *testing.T) NS {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("making a network namespace needs root")
	}
	path := filepath.Join(Dir, fmt.Sprintf("netns-test-%d", os.Getpid()))
	if err := Create(path); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := Delete(path); err != nil {
			t.Error(err)
		}
	})
	return At(path)
}

func TestANewNamespaceHasOnlyLoopback(t *testing.T) {
	ns := create(t)
	err := ns.Do(func() error {
		links, err := net.Interfaces()
		if err == nil && (len(links) == 0 || links[0].Name != "lo") {
			err = fmt.Errorf("links %v", links)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

func TestDoComesBack(t *testing.T) {
	ns := create(t)
	before, err := os.Readlink("/proc/thread-self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	want := errors.New("from inside")
	if err := ns.Do(func() error { return want }); !errors.Is(err, want) {
		t.Errorf("Do returned %v", err)
	}
	if after, err := os.Readlink("/proc/thread-self/ns/net"); err != nil || after != before {
		t.Errorf("in namespace %s after Do, want %s (%v)", after, before, err)
	}
}

func TestSocketsStayInTheirNamespace(t *testing.T) {
	ns := create(t)
	if err := ns.Do(func() error { return upLoopback() }); err != nil {
		t.Fatal(err)
	}
	l, err := ns.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	served := make(chan error, 1)
	go func() {
		c, err := l.Accept()
		if err == nil {
			_, err = io.WriteString(c, "inside")
			err = errors.Join(err, c.Close())
		}
		served <- err
	}()
	if c, err := net.Dial("tcp", l.Addr().String()); err == nil {
		c.Close()
		t.Error("reached from outside of the namespace")
	}
	c, err := ns.DialContext(t.Context(), "tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if b, err := io.ReadAll(c); err != nil || string(b) != "inside" {
		t.Errorf("read %q, %v", b, err)
	}
	if err := <-served; err != nil {
		t.Error(err)
	}
}

func TestCreateRefusesWhatIsThere(t *testing.T) {
	ns := create(t)
	if err := Create(ns.Path()); !errors.Is(err, fs.ErrExist) {
		t.Errorf("second Create: %v, want fs.ErrExist", err)
	}
}

func TestDeleteOfNothingIsNoError(t *testing.T) {
	if err := Delete(filepath.Join(t.TempDir(), "none", "there")); err != nil {
		t.Error(err)
	}
}

func TestAMissingNamespaceIsNamed(t *testing.T) {
	err := At("/run/netns/is-not-there").Do(func() error { return nil })
	var path *fs.PathError
	if !errors.As(err, &path) || path.Path != "/run/netns/is-not-there" {
		t.Errorf("got %v", err)
	}
}

func upLoopback() error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	return netlink.LinkSetUp(lo)
}
