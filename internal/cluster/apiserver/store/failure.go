package store

import (
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"golang.org/x/sys/unix"
)

// Errors that end a store. Nothing that was answered as written is lost by them unseen.
var (
	ErrFull     = errors.New("the disk is full")
	ErrReadOnly = errors.New("the file system is read-only")
	ErrDamaged  = errors.New("the store is damaged")
)

// failure records what etcd calls fatal. Left alone, etcd would end the whole process by os.Exit or a panic, with
// nothing to go by; instead the goroutine that met it ends and answers nothing any more.
type failure struct {
	once sync.Once
	err  error         // valid after done is closed
	done chan struct{} // closed at the first failure
	dir  string
}

func newFailure(dir string) *failure { return &failure{dir: dir, done: make(chan struct{})} }

// OnWrite implements zapcore.CheckWriteHook: it is called after a message was logged as fatal.
func (f *failure) OnWrite(e *zapcore.CheckedEntry, fields []zapcore.Field) {
	f.fail(e.Message, fields)
	runtime.Goexit()
}

func (f *failure) options() []zap.Option {
	return []zap.Option{zap.WithFatalHook(f), zap.WithPanicHook(f)}
}

func (f *failure) fail(message string, fields []zapcore.Field) {
	f.once.Do(func() {
		cause := errors.New(message)
		for _, field := range fields {
			if err, ok := field.Interface.(error); ok && field.Type == zapcore.ErrorType {
				cause = fmt.Errorf("%s: %w", message, err)
			}
		}
		f.err = classify(f.dir, cause)
		close(f.done)
	})
}

// classify says first what the user can do about an error of the store. etcd keeps the system's errors only as text in
// some places, which is why the text is looked at as well.
func classify(dir string, err error) error {
	switch text := err.Error(); {
	case errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) || strings.Contains(text, unix.ENOSPC.Error()):
		return fmt.Errorf("make room on the disk of %s, then start again; what was saved is kept: %w: %w", dir, ErrFull, err)
	case errors.Is(err, unix.EROFS) || strings.Contains(text, unix.EROFS.Error()):
		return fmt.Errorf("mount %s writable, then start again; what was saved is kept: %w: %w", dir, ErrReadOnly, err)
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		return fmt.Errorf("give %s back to root: %w", dir, err)
	}
	return fmt.Errorf("restore a backup (minato restore FILE --force) or delete the instance; nothing in %s was changed: %w: %w", dir, ErrDamaged, err)
}
