// Package lastgood keeps the last good table of one node's DNS on disk, with the Corefile that was in force, so that
// the next process answers before the API is up. After a crash pods go on and the kernel goes on to translate; their
// names go on too.
//
// The file is written anew beside the old one and takes its place by rename, after changes have come to rest and at
// most a hundredth of the time. It is not synced: it has to outlive the process, not the machine, whose pods and rules
// are gone after a power cut. A checksum finds what is damaged, and then the file counts as absent.
//
// It decides nothing about answers (dns.Table does), and not when a table may be restored (package run does).
package lastgood

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"log/slog"
	"os"
	"time"

	"minato/internal/dns"
	"minato/internal/model"
)

// Config is what a Keeper works with. All but the times must be set.
type Config struct {
	File     string // its folder exists
	Table    *dns.Table
	Corefile interface {
		InForce() *model.DNSConfig
		Restore(*model.DNSConfig)
	}
	Log *slog.Logger

	Rest  time.Duration // how long changes are gathered: 50 ms
	Least time.Duration // between two writings, also 100 times as long as the last one took: 1 s
}

// Keeper is an apply.Publisher that stands behind the table and the Corefile. New makes one.
type Keeper struct {
	cfg     Config
	changed chan struct{}
	told    string // the last error; Run's own

	edition uint64 // of the table that was written; this and what follows are Run's own
	config  *model.DNSConfig
	written bool
}

// New makes a Keeper.
func New(cfg Config) *Keeper {
	if cfg.Rest == 0 {
		cfg.Rest = 50 * time.Millisecond
	}
	if cfg.Least == 0 {
		cfg.Least = time.Second
	}
	return &Keeper{cfg: cfg, changed: make(chan struct{}, 1)}
}

// Name is the component's name in reports.
func (*Keeper) Name() string { return "dns on disk" }

// Withdraw does nothing: what is gone is gone from the file a moment after it is published.
func (*Keeper) Withdraw(context.Context, *model.Snapshot) error { return nil }

// Publish has the file written soon, by Run.
func (k *Keeper) Publish(context.Context, *model.Snapshot, func(model.ServiceName) bool) error {
	select {
	case k.changed <- struct{}{}:
	default:
	}
	return nil
}

// Run writes the file until ctx ends, and then once more if there is something new. It returns nil.
func (k *Keeper) Run(ctx context.Context) error {
	const share = 100
	var next time.Time // not before
	for {
		select {
		case <-ctx.Done():
			k.write()
			return nil
		case <-k.changed:
		}
		select {
		case <-ctx.Done():
			continue
		case <-time.After(max(k.cfg.Rest, time.Until(next))):
		}
		if began := time.Now(); k.write() {
			next = time.Now().Add(max(k.cfg.Least, share*time.Since(began)))
		}
	}
}

// write replaces the file if what it holds is no longer so, and reports whether it did. A file that cannot be written
// is told of once, and tried again with the next change.
func (k *Keeper) write() bool {
	edition, config := k.cfg.Table.Edition(), k.cfg.Corefile.InForce()
	if k.written && edition == k.edition && config.Equal(k.config) {
		return false
	}
	b, ok := k.encode(config)
	if !ok {
		return false
	}
	if err := replace(k.cfg.File, b); err != nil {
		if err.Error() != k.told {
			k.cfg.Log.Warn("dns: the last good names are not kept on disk: after a crash names are unknown until the API is up", "error", err)
		}
		k.told = err.Error()
		return true
	}
	k.told, k.written, k.edition, k.config = "", true, edition, config
	return true
}

// The file: these eight bytes, a CRC-32C of all that follows, the length of the table, the table, the configuration.
const (
	magic  = "minatoD1"
	header = len(magic) + 4
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func (k *Keeper) encode(config *model.DNSConfig) (b []byte, ok bool) {
	const length = 8
	b = make([]byte, header+length)
	if b, ok = k.cfg.Table.AppendSaved(b); !ok {
		return nil, false
	}
	binary.BigEndian.PutUint64(b[header:], uint64(len(b)-header-length))
	text, err := json.Marshal(config)
	if err != nil {
		panic(err) // two strings and a map of them
	}
	b = append(b, text...)
	copy(b, magic)
	binary.BigEndian.PutUint32(b[len(magic):], crc32.Checksum(b[header:], castagnoli))
	return b, true
}

func replace(file string, b []byte) error {
	next := file + ".new"
	err := os.WriteFile(next, b, 0o600)
	if err == nil {
		err = os.Rename(next, file)
	}
	if err != nil {
		return errors.Join(err, ignore(os.Remove(next)))
	}
	return nil
}

// ignore leaves out that a file is not there.
func ignore(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// errDamaged says that a file is not what a Keeper wrote.
var errDamaged = errors.New("the file is damaged, or of another version")

// Restore gives the table and the Corefile what the file holds, before either has anything else. It reports whether
// there is a table. A file that is not there is nothing to tell of, one that is of no use is told of and ignored.
func (k *Keeper) Restore() bool {
	info, err := os.Stat(k.cfg.File)
	if errors.Is(err, fs.ErrNotExist) {
		return false
	}
	if err == nil {
		err = k.restore()
	}
	if err != nil {
		k.cfg.Log.Warn("dns: the last good names are not served: names are unknown until the API is up", "file", k.cfg.File, "error", err)
		return false
	}
	k.cfg.Log.Info("dns: serving the names of the last run until the API is up", "file", k.cfg.File, "written", info.ModTime())
	return true
}

func (k *Keeper) restore() error {
	b, err := os.ReadFile(k.cfg.File)
	if err != nil {
		return err
	}
	if len(b) < header+8 || string(b[:len(magic)]) != magic || binary.BigEndian.Uint32(b[len(magic):]) != crc32.Checksum(b[header:], castagnoli) {
		return errDamaged
	}
	length, b := binary.BigEndian.Uint64(b[header:]), b[header+8:]
	if length > uint64(len(b)) {
		return errDamaged
	}
	var config *model.DNSConfig
	if err := json.Unmarshal(b[length:], &config); err != nil {
		return fmt.Errorf("%w: %w", errDamaged, err)
	}
	if err := k.cfg.Table.Restore(b[:length]); err != nil {
		return err
	}
	if config != nil {
		k.cfg.Corefile.Restore(config)
	}
	return nil
}
