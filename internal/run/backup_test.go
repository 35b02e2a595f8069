package run

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"minato/internal/cluster/apiserver/store"
	"minato/internal/instance"
)

// made is an instance that does not run, with one object, a certificate and a static pod.
func made(t *testing.T, name string) instance.Instance {
	t.Helper()
	dir := t.TempDir()
	inst := instance.Instance{Name: name, StateDir: filepath.Join(dir, "state"), RunDir: filepath.Join(dir, "run")}
	if err := inst.MakeDirs(); err != nil {
		t.Fatal(err)
	}
	cfg, err := instance.Config{}.Complete(2)
	if err != nil {
		t.Fatal(err)
	}
	if err := inst.Save(cfg); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(inst.StateDir, "pki"), 0o700); err != nil {
		t.Fatal(err)
	}
	static := filepath.Join(inst.StateDir, "nodes", "node1", "manifests")
	if err := os.MkdirAll(static, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{filepath.Join(inst.StateDir, "pki", "ca.pem"), filepath.Join(static, "web.yaml")} {
		if err := os.WriteFile(file, []byte("of "+name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	put(t, inst, "/registry/x", "of "+name)
	return inst
}

func put(t *testing.T, inst instance.Instance, key, value string) {
	t.Helper()
	open(t, inst, func(ctx context.Context, s *store.Store) error {
		c := s.NewClient()
		defer c.Close()
		_, err := c.Put(ctx, key, value)
		return err
	})
}

func open(t *testing.T, inst instance.Instance, f func(context.Context, *store.Store) error) {
	t.Helper()
	s, err := openStore(t.Context(), inst)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Stop()
	if err := f(t.Context(), s); err != nil {
		t.Fatal(err)
	}
}

// content is all that an instance has: its objects, its certificate, a static pod and its number of nodes.
func content(t *testing.T, inst instance.Instance) (text string) {
	t.Helper()
	open(t, inst, func(ctx context.Context, s *store.Store) error {
		c := s.NewClient()
		defer c.Close()
		for o, err := range store.Dump(ctx, c) {
			if err != nil {
				return err
			}
			text += fmt.Sprintf("%s=%s ", o.Key, o.Value)
		}
		return nil
	})
	ca, err := os.ReadFile(filepath.Join(inst.StateDir, "pki", "ca.pem"))
	if err != nil {
		t.Fatal(err)
	}
	static, err := os.ReadFile(filepath.Join(inst.StateDir, "nodes", "node1", "manifests", "web.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	cfg, _, err := inst.Load()
	if err != nil {
		t.Fatal(err)
	}
	return text + fmt.Sprintf("ca=%s static=%s nodes=%d", ca, static, len(cfg.Nodes))
}

func backup(t *testing.T, inst instance.Instance) []byte {
	t.Helper()
	var file bytes.Buffer
	if err := WriteBackup(t.Context(), inst, &file); err != nil {
		t.Fatal(err)
	}
	return file.Bytes()
}

func TestABackupIsRestoredUnderItsNameAndUnderAnother(t *testing.T) {
	one := made(t, "one")
	file := backup(t, one)
	want := content(t, one)
	put(t, one, "/registry/later", "x")
	dir := t.TempDir()
	other := instance.Instance{Name: "other", StateDir: filepath.Join(dir, "state"), RunDir: filepath.Join(dir, "run")}
	for _, inst := range []instance.Instance{one, other} {
		if head, err := Restore(t.Context(), inst, bytes.NewReader(file), inst == one); err != nil || head.Name != "one" {
			t.Fatalf("%s: %q, %v", inst.Name, head.Name, err)
		}
		if got := content(t, inst); got != want {
			t.Errorf("%s has %s, want %s", inst.Name, got, want)
		}
	}
}

func TestNothingIsReplacedWithoutForce(t *testing.T) {
	one, two := made(t, "one"), made(t, "two")
	want := content(t, two)
	if _, err := Restore(t.Context(), two, bytes.NewReader(backup(t, one)), false); !errors.Is(err, ErrExists) {
		t.Error(err)
	}
	if got := content(t, two); got != want {
		t.Errorf("it has %s, had %s", got, want)
	}
}

func TestABackupThatIsNotWholeReplacesNothing(t *testing.T) {
	one, two := made(t, "one"), made(t, "two")
	file, want := backup(t, one), content(t, two)
	for _, n := range []int{0, 1, 10, len(file) / 2, len(file) - 9, len(file) - 1} {
		if _, err := Restore(t.Context(), two, bytes.NewReader(file[:n]), true); !errors.Is(err, ErrNoBackup) {
			t.Errorf("%d of %d bytes: %v", n, len(file), err)
		}
	}
	if _, err := Restore(t.Context(), two, bytes.NewReader([]byte("something else")), true); !errors.Is(err, ErrNoBackup) {
		t.Error(err)
	}
	if got := content(t, two); got != want {
		t.Errorf("it has %s, had %s", got, want)
	}
}

func TestARunningInstanceIsNotRestoredOver(t *testing.T) {
	one := made(t, "one")
	file := backup(t, one)
	unlock, err := one.Lock()
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	if _, err := Restore(t.Context(), one, bytes.NewReader(file), true); !errors.Is(err, instance.ErrRunning) {
		t.Error(err)
	}
}
