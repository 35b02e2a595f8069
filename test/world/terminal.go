//go:build linux

package world

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"minato/internal/netns/netnstest"
)

// Terminal is a command that runs on the host in a pseudo terminal, as under a person's hands. One goroutine may use it.
type Terminal struct {
	master  *os.File
	cmd     *exec.Cmd
	ended   chan struct{} // closed when the command's last output is read
	mu      sync.Mutex
	screen  strings.Builder // all that was printed
	seen    int             // how much of it Expect has passed
	ordinal int             // of the next command of Do
}

// Terminal runs a line of shell in a terminal. It is ended with the test if it still runs then.
func (w *World) Terminal(t testing.TB, dir, line string) *Terminal {
	t.Helper()
	master, slave, err := openPTY()
	if err != nil {
		t.Fatal(err)
	}
	defer slave.Close()
	ctx, cancel := context.WithCancel(context.Background())
	cmd := w.command(ctx, "bash", "-c", "cd "+dir+" && exec "+line)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := netnstest.Start(w.Host, cmd); err != nil {
		cancel()
		master.Close()
		t.Fatal(err)
	}
	term := &Terminal{master: master, cmd: cmd, ended: make(chan struct{})}
	go term.read()
	t.Cleanup(func() {
		cancel()
		_ = cmd.Wait() // killed, or waited for already
		master.Close()
		<-term.ended
	})
	return term
}

func openPTY() (master, slave *os.File, err error) {
	master, err = os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("open terminal: %w", err)
	}
	var number uint32
	// Not by Fd, which would make reading uninterruptible.
	err = control(master, func(fd int) (err error) {
		if err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
			return err
		}
		if err = unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: 50, Col: 250}); err != nil {
			return err
		}
		number, err = unix.IoctlGetUint32(fd, unix.TIOCGPTN)
		return err
	})
	if err == nil {
		slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	}
	if err != nil {
		master.Close()
		return nil, nil, fmt.Errorf("set up terminal: %w", err)
	}
	return master, slave, nil
}

func control(f *os.File, fn func(fd int) error) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var inner error
	if err := raw.Control(func(fd uintptr) { inner = fn(int(fd)) }); err != nil {
		return err
	}
	return inner
}

// read ends with EIO, when the last process has closed the terminal.
func (m *Terminal) read() {
	defer close(m.ended)
	buf := make([]byte, 4096)
	for {
		n, err := m.master.Read(buf)
		m.mu.Lock()
		m.screen.Write(buf[:n])
		m.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// Type sends keystrokes.
func (m *Terminal) Type(t testing.TB, keys string) {
	t.Helper()
	if _, err := m.master.WriteString(keys); err != nil {
		t.Fatalf("type %q: %v", keys, err)
	}
}

// Expect waits until something new matches the pattern, and returns what was printed before the match.
func (m *Terminal) Expect(t testing.TB, within time.Duration, pattern string) string {
	t.Helper()
	re := regexp.MustCompile(pattern)
	var before string
	Eventually(t, within, func() error {
		m.mu.Lock()
		defer m.mu.Unlock()
		fresh := m.screen.String()[m.seen:]
		at := re.FindStringIndex(fresh)
		if at == nil {
			return fmt.Errorf("no %q on the screen:\n%s", pattern, fresh)
		}
		before = fresh[:at[0]]
		m.seen += at[1]
		return nil
	})
	return before
}

// controlSequence matches what a shell sends to move the cursor and to set modes.
var controlSequence = regexp.MustCompile(`\x1b\[[?0-9;]*[a-zA-Z]|\r`)

// Do types a command to the shell in the terminal and returns its echo and what it prints, as plain text.
func (m *Terminal) Do(t testing.TB, command string) string {
	t.Helper()
	m.ordinal++
	// The quotes keep the echo of the command from being taken for its end.
	m.Type(t, fmt.Sprintf("%s; echo done''-%d\n", command, m.ordinal))
	return controlSequence.ReplaceAllString(m.Expect(t, commandTime, fmt.Sprintf("done-%d\r?\n", m.ordinal)), "")
}

// Wait waits until the command has ended, and returns all that it printed and how it ended.
func (m *Terminal) Wait(t testing.TB, within time.Duration) (string, error) {
	t.Helper()
	select {
	case <-m.ended:
	case <-time.After(within):
		t.Fatalf("still running after %v:\n%s", within, m.all())
	}
	err := m.cmd.Wait()
	return m.all(), err
}

func (m *Terminal) all() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.screen.String()
}
