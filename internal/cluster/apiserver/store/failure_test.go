package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sys/unix"
)

// written is a store with n values in it that has ended.
func written(t *testing.T, dir string, n int) {
	t.Helper()
	s := start(t, dir)
	client := s.NewClient()
	for i := range n {
		if _, err := client.Put(t.Context(), fmt.Sprint("key", i), strings.Repeat("v", 1000)); err != nil {
			t.Fatal(err)
		}
	}
	client.Close()
	s.Stop()
}

func logFile(t *testing.T, dir string) string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "data/member/wal/*.wal"))
	if err != nil || len(files) == 0 {
		t.Fatal("no log of the store: ", err)
	}
	return files[0]
}

func TestDamageIsSaidAndNothingIsChanged(t *testing.T) {
	for name, damage := range map[string]func(t *testing.T, dir string){
		"a byte of the log": func(t *testing.T, dir string) {
			b, err := os.ReadFile(logFile(t, dir))
			if err != nil {
				t.Fatal(err)
			}
			at := bytes.Index(b, []byte("vvvv"))
			b[at] = 'x'
			if err := os.WriteFile(logFile(t, dir), b, 0o600); err != nil {
				t.Fatal(err)
			}
		},
		"a log cut off": func(t *testing.T, dir string) {
			b, err := os.ReadFile(logFile(t, dir))
			if err != nil {
				t.Fatal(err)
			}
			if err := os.Truncate(logFile(t, dir), int64(bytes.Index(b, []byte("vvvv"))+100)); err != nil {
				t.Fatal(err)
			}
		},
		"a log that is empty": func(t *testing.T, dir string) {
			if err := os.Truncate(logFile(t, dir), 0); err != nil {
				t.Fatal(err)
			}
		},
		"a database of zeros": func(t *testing.T, dir string) {
			if err := os.WriteFile(filepath.Join(dir, "data/member/snap/db"), make([]byte, 64<<10), 0o600); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			written(t, dir, 50)
			damage(t, dir)
			before, err := os.ReadFile(logFile(t, dir))
			if err != nil {
				t.Fatal(err)
			}
			s, err := Start(t.Context(), Config{Dir: dir, Log: slog.New(slog.DiscardHandler)})
			if err == nil {
				s.Stop()
				t.Fatal("started")
			}
			if !errors.Is(err, ErrDamaged) || !strings.HasPrefix(err.Error(), "restore a backup") {
				t.Errorf("the error is: %v", err)
			}
			if after, err := os.ReadFile(logFile(t, dir)); err != nil || !bytes.Equal(before, after) {
				t.Errorf("the log was changed: %d bytes, now %d, %v", len(before), len(after), err)
			}
		})
	}
}

// tmpfs is a folder on a file system of its own.
func tmpfs(t *testing.T, size string) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("a file system of its own needs root")
	}
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func TestAFullDiskAtTheStart(t *testing.T) {
	dir := tmpfs(t, "1m") // etcd reserves more than that
	_, err := Start(t.Context(), Config{Dir: dir, Log: slog.New(slog.DiscardHandler)})
	if !errors.Is(err, ErrFull) || !strings.HasPrefix(err.Error(), "make room on the disk of "+dir) {
		t.Error(err)
	}
}

func TestADiskThatFillsUpEndsTheStoreAndKeepsWhatItAnswered(t *testing.T) {
	dir := tmpfs(t, "200m")
	s := start(t, dir)
	client := s.NewClient()
	var answered int
	for { // until the disk is full
		ctx, cancel := context.WithCancel(t.Context())
		go func() { // a store that failed answers nobody any more
			select {
			case <-s.Stopped():
				cancel()
			case <-ctx.Done():
			}
		}()
		_, err := client.Put(ctx, fmt.Sprintf("key%04d", answered), strings.Repeat("v", 1<<20))
		cancel()
		if err != nil {
			break
		}
		if answered++; answered > 200 {
			t.Fatal("the disk is never full")
		}
	}
	select {
	case <-s.Stopped():
	case <-time.After(time.Minute):
		t.Fatal("the store does not end")
	}
	if err := s.Err(); !errors.Is(err, ErrFull) || !strings.HasPrefix(err.Error(), "make room") {
		t.Error(err)
	}
	s.Stop()
	t.Logf("full after %d values", answered)
	if answered == 0 {
		t.Error("nothing could be written at all")
	}
	roomy := t.TempDir() // in this process the failed store has the files locked, as no other would
	if err := os.CopyFS(filepath.Join(roomy, "store"), os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	s = start(t, filepath.Join(roomy, "store"))
	defer s.Stop()
	client = s.NewClient()
	defer client.Close()
	n := 0
	for o, err := range Dump(t.Context(), client) {
		if err != nil || len(o.Value) != 1<<20 {
			t.Fatal(err, len(o.Value))
		}
		n++
	}
	if n < answered {
		t.Errorf("%d values are left of %d", n, answered)
	}
}

func TestAReadOnlyFileSystem(t *testing.T) {
	dir := tmpfs(t, "200m")
	written(t, filepath.Join(dir, "store"), 1)
	if err := unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	_, err := Start(t.Context(), Config{Dir: filepath.Join(dir, "store"), Log: slog.New(slog.DiscardHandler)})
	if !errors.Is(err, ErrReadOnly) || !strings.HasPrefix(err.Error(), "mount "+dir) {
		t.Error(err)
	}
}

func TestADumpFillsAnotherStore(t *testing.T) {
	from := start(t, t.TempDir())
	defer from.Stop()
	client := from.NewClient()
	defer client.Close()
	lease, err := client.Grant(t.Context(), 60)
	if err != nil {
		t.Fatal(err)
	}
	var want []Object
	for i := range 1200 { // more than two pages
		o := Object{Key: fmt.Appendf(nil, "key%05d", i), Value: fmt.Append(nil, i)}
		want = append(want, o)
	}
	want = append(want, Object{Key: []byte("large"), Value: make([]byte, 1<<20)}, Object{Key: []byte("zlease"), Value: []byte("x"), Lease: true})
	given := func(yield func(Object, error) bool) {
		for _, o := range want[:len(want)-1] {
			if !yield(o, nil) {
				return
			}
		}
	}
	if err := Fill(t.Context(), client, given); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Put(t.Context(), "zlease", "x", clientv3.WithLease(lease.ID)); err != nil {
		t.Fatal(err)
	}
	to := start(t, t.TempDir())
	defer to.Stop()
	copied := to.NewClient()
	defer copied.Close()
	if err := Fill(t.Context(), copied, writeMeanwhile(t, from, Dump(t.Context(), client))); err != nil {
		t.Fatal(err)
	}
	var got []Object
	for o, err := range Dump(t.Context(), copied) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, o)
	}
	if len(got) != len(want) {
		t.Fatalf("%d objects, want %d", len(got), len(want))
	}
	for i := range want {
		if !bytes.Equal(got[i].Key, want[i].Key) || !bytes.Equal(got[i].Value, want[i].Value) || got[i].Lease != want[i].Lease {
			t.Fatalf("object %s, lease %t, want %s, lease %t", got[i].Key, got[i].Lease, want[i].Key, want[i].Lease)
		}
	}
}

// writeMeanwhile changes the store while it is read: the dump is of one moment.
func writeMeanwhile(t *testing.T, s *Store, dump iter.Seq2[Object, error]) iter.Seq2[Object, error] {
	return func(yield func(Object, error) bool) {
		client := s.NewClient()
		defer client.Close()
		first := true
		for o, err := range dump {
			if first {
				if _, err := client.Put(t.Context(), "zz-later", "x"); err != nil {
					t.Error(err)
				}
				if _, err := client.Delete(t.Context(), "key01100"); err != nil {
					t.Error(err)
				}
				first = false
			}
			if !yield(o, err) {
				return
			}
		}
	}
}
