package run

import (
	"bufio"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"minato/internal/cluster/apiserver/store"
	"minato/internal/instance"
)

// backupFormat is of the file: a line of JSON that says what it is, one for each object, and a last one that says how
// many there were, all compressed by gzip.
const backupFormat = 1

// Backup is what the first line of a backup says.
type Backup struct {
	Format int               `json:"minatoBackup"`
	Name   string            `json:"name"`
	Made   time.Time         `json:"made"`
	Config instance.Config   `json:"config"`
	Files  map[string][]byte `json:"files"` // below the state folder
}

// backupEnd is the last line.
type backupEnd struct {
	End     bool `json:"end"`
	Objects int  `json:"objects"`
}

// Errors of backups.
var (
	ErrNoBackup = errors.New("not a whole backup of minato")
	ErrExists   = errors.New("there is an instance already")
)

// backedUp are the files beside the store without which the cluster would be another one.
var backedUp = []string{"pki/*", "ingress-default.pem", "nodes/*/manifests/*"}

// WriteBackup writes the state of an instance that does not run. Whether it runs is settled by its lock.
func WriteBackup(ctx context.Context, inst instance.Instance, w io.Writer) error {
	cfg, ok, err := inst.Load()
	if err != nil {
		return err
	}
	if !ok {
		return fmt.Errorf("make it first (minato up --name %s): there is no instance in %s", inst.Name, inst.StateDir)
	}
	s, err := openStore(ctx, inst)
	if err != nil {
		return err
	}
	defer s.Stop()
	client := s.NewClient()
	defer client.Close()
	return writeBackup(w, inst, cfg, store.Dump(ctx, client))
}

func openStore(ctx context.Context, inst instance.Instance) (*store.Store, error) {
	return store.Start(ctx, store.Config{Dir: filepath.Join(inst.StateDir, "etcd"), Log: slog.New(slog.DiscardHandler)})
}

func writeBackup(w io.Writer, inst instance.Instance, cfg instance.Config, objects iter.Seq2[store.Object, error]) error {
	head := Backup{Format: backupFormat, Name: inst.Name, Made: time.Now().UTC().Truncate(time.Second), Config: cfg, Files: map[string][]byte{}}
	for _, pattern := range backedUp {
		files, err := filepath.Glob(filepath.Join(inst.StateDir, pattern))
		if err != nil {
			return err
		}
		for _, file := range files {
			if fi, err := os.Stat(file); err != nil || !fi.Mode().IsRegular() {
				continue // removed just now, or none of ours
			}
			name, err := filepath.Rel(inst.StateDir, file)
			if err != nil {
				return err
			}
			if head.Files[name], err = os.ReadFile(file); err != nil {
				return fmt.Errorf("back up %s: %w", name, err)
			}
		}
	}
	z := gzip.NewWriter(w)
	e := json.NewEncoder(z)
	if err := e.Encode(head); err != nil {
		return fmt.Errorf("write the backup: %w", err)
	}
	end := backupEnd{End: true}
	for o, err := range objects {
		if err != nil {
			return err
		}
		if err := e.Encode(o); err != nil {
			return fmt.Errorf("write the backup: %w", err)
		}
		end.Objects++
	}
	if err := errors.Join(e.Encode(end), z.Close()); err != nil {
		return fmt.Errorf("write the backup: %w", err)
	}
	return nil
}

// ReadBackup reads what a backup says of itself; objects then yields what it holds, and an error that is an
// ErrNoBackup unless all of it is there.
func ReadBackup(r io.Reader) (head Backup, objects iter.Seq2[store.Object, error], err error) {
	z, err := gzip.NewReader(bufio.NewReader(r))
	if err != nil {
		return head, nil, fmt.Errorf("%w: %w", ErrNoBackup, err)
	}
	d := json.NewDecoder(z)
	if err := d.Decode(&head); err != nil || head.Format == 0 {
		return head, nil, fmt.Errorf("%w: its first line is none (%w)", ErrNoBackup, err)
	}
	if head.Format > backupFormat || head.Config.Version > instance.StateVersion {
		return head, nil, fmt.Errorf("use a newer minato: %w", instance.ErrNewer)
	}
	return head, func(yield func(store.Object, error) bool) {
		for n := 0; ; n++ {
			var line struct {
				store.Object
				backupEnd
			}
			err := d.Decode(&line)
			switch {
			case err != nil:
				yield(store.Object{}, fmt.Errorf("%w: it ends after %d objects: %w", ErrNoBackup, n, err))
				return
			case line.End && line.Objects != n:
				yield(store.Object{}, fmt.Errorf("%w: it has %d objects of %d", ErrNoBackup, n, line.Objects))
				return
			case line.End:
				if _, err := d.Token(); !errors.Is(err, io.EOF) { // the sum of all comes last
					yield(store.Object{}, fmt.Errorf("%w: its end is damaged: %w", ErrNoBackup, err))
				}
				return
			case !yield(line.Object, nil):
				return
			}
		}
	}, nil
}

// Restore makes an instance that does not run from a backup, under its own name. What is there is only replaced with
// force, and not before the whole backup has been written beside it.
func Restore(ctx context.Context, inst instance.Instance, r io.Reader, force bool) (Backup, error) {
	head, objects, err := ReadBackup(r)
	if err != nil {
		return head, err
	}
	if _, err := os.Stat(filepath.Join(inst.StateDir, "etcd")); err == nil && !force {
		return head, fmt.Errorf("choose another --name, or --force to replace what is in %s: %w", inst.StateDir, ErrExists)
	}
	if err := inst.MakeDirs(); err != nil {
		return head, err
	}
	unlock, err := inst.Lock()
	if errors.Is(err, instance.ErrRunning) {
		return head, fmt.Errorf("stop it first (minato down --name %s): %w", inst.Name, err)
	}
	if err != nil {
		return head, err
	}
	defer unlock()
	beside := instance.Instance{Name: inst.Name, StateDir: filepath.Join(inst.StateDir, "restoring"), RunDir: inst.RunDir}
	if err := os.RemoveAll(beside.StateDir); err != nil {
		return head, fmt.Errorf("clear what an earlier restore left: %w", err)
	}
	defer os.RemoveAll(beside.StateDir)
	if err := fill(ctx, beside, head, objects); err != nil {
		return head, err
	}
	names := []string{"etcd", "pki", "ingress-default.pem"}
	for _, n := range head.Config.Nodes {
		names = append(names, filepath.Join("nodes", n.Name, "manifests"))
	}
	for _, name := range names {
		if err := exchange(filepath.Join(beside.StateDir, name), filepath.Join(inst.StateDir, name)); err != nil {
			return head, fmt.Errorf("put %s in its place: %w", name, err)
		}
	}
	return head, inst.Save(head.Config)
}

// fill writes a backup into a folder of its own.
func fill(ctx context.Context, inst instance.Instance, head Backup, objects iter.Seq2[store.Object, error]) error {
	for name, content := range head.Files {
		if !filepath.IsLocal(name) {
			return fmt.Errorf("%w: it has a file %q", ErrNoBackup, name)
		}
		file := filepath.Join(inst.StateDir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			return fmt.Errorf("restore %s: %w", name, err)
		}
		if err := os.WriteFile(file, content, 0o600); err != nil {
			return fmt.Errorf("restore %s: %w", name, err)
		}
	}
	s, err := openStore(ctx, inst)
	if err != nil {
		return err
	}
	defer s.Stop()
	client := s.NewClient()
	defer client.Close()
	return store.Fill(ctx, client, objects)
}

// exchange puts a file or folder in the place of another, which is removed.
func exchange(from, to string) error {
	if _, err := os.Stat(from); errors.Is(err, os.ErrNotExist) {
		return os.RemoveAll(to)
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
		return err
	}
	old := to + ".old"
	if err := os.RemoveAll(old); err != nil {
		return err
	}
	if err := os.Rename(to, old); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return errors.Join(os.Rename(from, to), os.RemoveAll(old))
}

// backup writes the state of this running instance.
func (u *instanceRun) backup(ctx context.Context, w io.Writer) error {
	return writeBackup(w, u.inst, u.cfg, u.api.Objects(ctx))
}
