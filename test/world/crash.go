//go:build linux

package world

import (
	"bytes"
	"fmt"
	"os"
	"syscall"
	"testing"
	"time"

	"minato/internal/instance"
)

// Kill ends the instance's process as the kernel ends one without memory, and returns when it is gone. Pods go on.
func (w *World) Kill(t testing.TB) {
	t.Helper()
	pid, err := w.instance(t).Holder()
	if err == nil {
		err = syscall.Kill(pid, syscall.SIGKILL)
	}
	if err != nil {
		t.Fatalf("kill the instance: %v", err)
	}
	Eventually(t, 20*time.Second, func() error {
		if err := syscall.Kill(pid, 0); err != syscall.ESRCH {
			return fmt.Errorf("process %d: %v", pid, err)
		}
		return nil
	})
}

// AwaitNamesOnDisk waits until a Service is in what the nodes keep for the time after a crash.
func (w *World) AwaitNamesOnDisk(t testing.TB, service string, nodes ...string) {
	t.Helper()
	entry := append([]byte{byte(len(service))}, service...)
	for _, node := range nodes {
		file := w.instance(t).NamesFile(node)
		Eventually(t, 20*time.Second, func() error {
			if b, err := os.ReadFile(file); err != nil || !bytes.Contains(b, entry) {
				return fmt.Errorf("the Service %s is not in %s (%v)", service, file, err)
			}
			return nil
		})
	}
}

func (w *World) instance(t testing.TB) instance.Instance {
	t.Helper()
	inst, err := instance.New(w.Name, w.StateDir)
	if err != nil {
		t.Fatal(err)
	}
	return inst
}
