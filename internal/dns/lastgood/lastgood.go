// Package lastgood keeps the last good table of one node's DNS on disk, with the Corefile that was in force, so that
// the next process answers before the API is up. After a crash pods go on and the kernel goes on to translate; their
// names go on too.
//
// The file is a base and a journal: what changed is appended after changes have come to rest, at most a hundredth of
// the time, and when that has outgrown the base a new file takes the place of the old one by rename. It is not synced: it
// has to outlive the process, not the machine, whose pods and rules are gone after a power cut. Checksums find what is
// torn or damaged; it and what follows count as absent.
//
// It decides nothing about answers (dns.Table does), and not when a table may be restored (package run does).
package lastgood

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
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

	file    journal // this and what follows are Run's own
	written content // what file holds; empty: it is written anew
	told    string  // the last error
}

// content is what one process knows at one moment.
type content struct {
	table  *dns.State
	config *model.DNSConfig
}

// New makes a Keeper.
func New(cfg Config) *Keeper {
	if cfg.Rest == 0 {
		cfg.Rest = 50 * time.Millisecond
	}
	if cfg.Least == 0 {
		cfg.Least = time.Second
	}
	return &Keeper{cfg: cfg, changed: make(chan struct{}, 1), file: journal{path: cfg.File, floor: 256 << 10}}
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
	defer k.file.close()
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

// write brings the file up to date and reports whether it had to. What cannot be written is told of once; the next
// change then makes a new file.
func (k *Keeper) write() bool {
	now := content{k.cfg.Table.State(), k.cfg.Corefile.InForce()}
	if now.table == nil {
		return false
	}
	b := now.since(k.written)
	if len(b) == 0 {
		k.written = now // or what makes no other records would be compared each time
		return false
	}
	if k.written.table != nil && !k.file.takes(b) {
		k.written = content{}
		b = now.since(k.written)
	}
	put := k.file.append
	if k.written.table == nil {
		put = k.file.replace
	}
	if err := put(b); err != nil {
		if err.Error() != k.told {
			k.cfg.Log.Warn("dns: the last good names are not kept on disk: after a crash names are unknown until the API is up", "error", err)
		}
		k.told, k.written = err.Error(), content{}
		return true
	}
	k.told, k.written = "", now
	return true
}

// since is the frame of what is new, none when nothing is.
func (c content) since(old content) []byte {
	b := c.table.Append(make([]byte, header), old.table)
	table := len(b) - header
	if old.table == nil || !c.config.Equal(old.config) {
		text, err := json.Marshal(c.config)
		if err != nil {
			panic(err) // two strings and a map of them
		}
		b = append(b, text...)
	}
	if len(b) == header {
		return nil
	}
	seal(b, table)
	return b
}

// Restore gives the table and the Corefile what the file holds, before either has anything else. It reports whether
// there is a table. A file that is not there is nothing to tell of, one that is of no use is told of and ignored.
func (k *Keeper) Restore() bool {
	info, err := os.Stat(k.cfg.File)
	if errors.Is(err, fs.ErrNotExist) {
		return false
	}
	lost := 0
	if err == nil {
		lost, err = k.restore()
	}
	if err != nil {
		k.cfg.Log.Warn("dns: the last good names are not served: names are unknown until the API is up", "file", k.cfg.File, "error", err)
		return false
	}
	k.cfg.Log.Info("dns: serving the names of the last run until the API is up", "file", k.cfg.File, "written", info.ModTime())
	if lost > 0 {
		k.cfg.Log.Warn("dns: the end of the last good names is damaged: what changed last is unknown until the API is up", "file", k.cfg.File, "bytes", lost)
	}
	return true
}

// restore reports how many bytes at the end of the file are of no use.
func (k *Keeper) restore() (lost int, err error) {
	b, err := os.ReadFile(k.cfg.File)
	if err != nil {
		return 0, err
	}
	lost = len(b) - len(magic)
	var tables [][]byte
	var last []byte
	for table, config := range frames(b) {
		lost -= header + len(table) + len(config)
		if len(table) > 0 {
			tables = append(tables, table)
		}
		if len(config) > 0 {
			last = config
		}
	}
	if len(tables) == 0 {
		return 0, errDamaged
	}
	var config *model.DNSConfig
	if err := json.Unmarshal(last, &config); err != nil {
		return 0, fmt.Errorf("%w: %w", errDamaged, err)
	}
	if err := k.cfg.Table.Restore(tables...); err != nil {
		return 0, err
	}
	if config != nil {
		k.cfg.Corefile.Restore(config)
	}
	return lost, nil
}
