package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	bolt "go.etcd.io/bbolt"
	"go.etcd.io/etcd/server/v3/storage/wal"
	"go.etcd.io/etcd/server/v3/storage/wal/walpb"
	"go.uber.org/zap"
)

// checkLog compares the log with the database, before etcd repairs what it takes for a write that was cut off. A log
// that ends before what the database has already would be taken for a younger member's: etcd never gets ready then.
func checkLog(data string, log *zap.Logger) error {
	folder := filepath.Join(data, "member", "wal")
	if _, err := os.Stat(folder); errors.Is(err, fs.ErrNotExist) {
		return nil // the first start
	}
	saved, err := savedIndex(filepath.Join(data, "member", "snap", "db"))
	if err != nil {
		return err
	}
	logged, err := loggedIndex(folder, log)
	if err != nil {
		return err
	}
	if logged < saved {
		return fmt.Errorf("the log ends with entry %d, the database has entry %d", logged, saved)
	}
	return nil
}

// savedIndex is the last entry of the log that the database has (schema.MetaConsistentIndexKeyName of etcd).
func savedIndex(file string) (index uint64, err error) {
	if _, err := os.Stat(file); errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	db, err := bolt.Open(file, 0o600, &bolt.Options{ReadOnly: true})
	if err != nil {
		return 0, fmt.Errorf("opening the database: %w", err)
	}
	defer db.Close()
	err = db.View(func(tx *bolt.Tx) error {
		meta := tx.Bucket([]byte("meta"))
		if meta == nil {
			return nil
		}
		if v := meta.Get([]byte("consistent_index")); len(v) == 8 {
			index = binary.BigEndian.Uint64(v)
		}
		return nil
	})
	return index, err
}

func loggedIndex(folder string, log *zap.Logger) (uint64, error) {
	snapshots, err := wal.ValidSnapshotEntries(log, folder)
	if err != nil {
		return 0, fmt.Errorf("reading the log: %w", err)
	}
	var newest walpb.Snapshot
	if len(snapshots) > 0 {
		newest = snapshots[len(snapshots)-1]
	}
	w, err := wal.OpenForRead(log, folder, newest)
	if err != nil {
		return 0, fmt.Errorf("reading the log: %w", err)
	}
	defer w.Close()
	_, _, entries, err := w.ReadAll()
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) { // a write that was cut off, and so never answered
		return 0, fmt.Errorf("reading the log: %w", err)
	}
	if len(entries) == 0 {
		return newest.Index, nil
	}
	return entries[len(entries)-1].Index, nil
}
