package lastgood

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io/fs"
	"iter"
	"os"
)

// The file: these eight bytes, then frames. The first has everything, each other one what was new. A frame: a CRC-32C
// of all that follows in it, the length of the table, the length of the configuration, both.
const (
	magic  = "minatoD2"
	header = 3 * 4
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// seal completes a frame, of which the table has so many bytes.
func seal(b []byte, table int) {
	binary.BigEndian.PutUint32(b[4:], uint32(table))
	binary.BigEndian.PutUint32(b[8:], uint32(len(b)-header-table))
	binary.BigEndian.PutUint32(b, crc32.Checksum(b[4:], castagnoli))
}

// frames goes over what a file holds, up to the first frame that is torn or damaged.
func frames(b []byte) iter.Seq2[[]byte, []byte] {
	return func(yield func(table, config []byte) bool) {
		if len(b) < len(magic) || string(b[:len(magic)]) != magic {
			return
		}
		for b = b[len(magic):]; len(b) >= header; {
			table := header + uint64(binary.BigEndian.Uint32(b[4:]))
			end := table + uint64(binary.BigEndian.Uint32(b[8:]))
			if end > uint64(len(b)) || binary.BigEndian.Uint32(b) != crc32.Checksum(b[4:end], castagnoli) {
				return
			}
			if !yield(b[header:table], b[table:end]) {
				return
			}
			b = b[end:]
		}
	}
}

// journal is a file that frames are appended to, and that is written anew when they have outgrown the first one.
type journal struct {
	path        string
	floor       int64    // bytes of changes that are not worth a new file
	file        *os.File // nil: none of ours
	info        fs.FileInfo
	base, grown int64 // bytes
}

// takes reports whether the frame is worth to be appended, to a file that still has its place.
func (j *journal) takes(frame []byte) bool {
	if j.grown+int64(len(frame)) > max(j.base, j.floor) {
		return false
	}
	info, err := os.Stat(j.path)
	return err == nil && os.SameFile(info, j.info)
}

// append adds a frame. After an error the end of the file may be torn.
func (j *journal) append(frame []byte) error {
	n, err := j.file.Write(frame)
	j.grown += int64(n)
	return err
}

// replace puts a new file, with one frame, in the place of what is there.
func (j *journal) replace(frame []byte) (err error) {
	j.close()
	next := j.path + ".new" // a process that gives way may write one too: each writes its own, and the last rename counts
	if err := ignore(os.Remove(next)); err != nil {
		return err
	}
	if j.file, err = os.OpenFile(next, os.O_CREATE|os.O_EXCL|os.O_WRONLY|os.O_APPEND, 0o600); err != nil {
		return err
	}
	if _, err = j.file.WriteString(magic); err == nil {
		_, err = j.file.Write(frame)
	}
	if err == nil {
		j.info, err = j.file.Stat()
	}
	if err == nil {
		err = os.Rename(next, j.path)
	}
	if err != nil {
		j.close()
		return errors.Join(err, ignore(os.Remove(next)))
	}
	j.base, j.grown = int64(len(frame)), 0
	return nil
}

func (j *journal) close() {
	if j.file != nil {
		_ = j.file.Close() // nothing is synced either
		j.file = nil
	}
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
