//go:build linux

package handover

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// ErrNoPredecessor says that nobody serves at the path: no process runs, or one that cannot hand over.
var ErrNoPredecessor = errors.New("no process hands over")

// The messages between the two, one packet each. A change of their meaning needs another version.
const (
	msgTake   = "take 1"  // successor: give me your sockets
	msgSocket = "socket " // predecessor: one of them, by its name; later ones come at any time until it ends
	msgEnd    = "end"     // predecessor: those were all that there are
	msgHave   = "have"    // successor: I have them; from here on there is no way back
	msgYours  = "yours"   // predecessor: lock and state are free
	msgReady  = "ready"   // successor: I serve

	maxMessage = 4096
	// talk is how long either waits for the other's next word, where the other has nothing to do but say it.
	talk = 30 * time.Second
	// farewell is how long the successor that is ready waits for the predecessor's last word.
	farewell = 5 * time.Second
)

// Take gets the sockets of the process that serves at path and waits until that process has let go of lock and state.
// The predecessor goes on to serve its clients until Ready. An error before it let go leaves it as it was.
func Take(ctx context.Context, path string) (*Set, error) {
	c, err := new(net.Dialer).DialContext(ctx, "unixpacket", path)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
		return nil, fmt.Errorf("%w: %w", ErrNoPredecessor, err)
	}
	if err != nil {
		return nil, fmt.Errorf("reach the running process: %w", err)
	}
	s := &Set{inherited: map[string]*os.File{}, adopters: map[string]func(string, net.Conn){}, conn: c.(*net.UnixConn), alone: make(chan struct{})}
	defer context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })()
	if err := s.receiveAll(); err != nil {
		s.drop()
		c.Close()
		return nil, fmt.Errorf("take over from the running process: %w", err)
	}
	go s.receiveLater() // Ready and Close wait for it
	return s, nil
}

func (s *Set) receiveAll() error {
	if err := say(s.conn, msgTake); err != nil {
		return err
	}
	_ = s.conn.SetReadDeadline(time.Now().Add(talk))
	for {
		text, file, err := read(s.conn)
		if err != nil {
			return err
		}
		name, isSocket := strings.CutPrefix(text, msgSocket)
		switch {
		case isSocket && file != nil:
			s.receive(name, file)
		case text == msgEnd:
			if err := say(s.conn, msgHave); err != nil {
				return err
			}
			_ = s.conn.SetReadDeadline(time.Time{}) // stopping takes as long as it takes
		case text == msgYours:
			return nil
		default:
			return fmt.Errorf("unexpected message %q", text)
		}
	}
}

// receiveLater takes the sockets that the predecessor opens while this process starts, until it ends or is left.
func (s *Set) receiveLater() {
	defer close(s.alone)
	for {
		text, file, err := read(s.conn)
		if err != nil {
			return
		}
		if name, ok := strings.CutPrefix(text, msgSocket); ok && file != nil {
			s.receive(name, file)
		}
	}
}

// Ready tells the predecessor that this process serves, waits for its last word, and closes what was inherited and not
// asked for.
func (s *Set) Ready() error {
	if s == nil || s.conn == nil {
		return nil
	}
	err := say(s.conn, msgReady)
	s.leave(time.Now().Add(farewell))
	return err
}

// Close gives up what was inherited and not asked for. Without Ready before, the predecessor takes it as failure.
func (s *Set) Close() {
	if s != nil && s.conn != nil {
		s.leave(time.Unix(1, 0))
	}
}

// leave ends the talk with the predecessor, which has until a time to say what it has to.
func (s *Set) leave(until time.Time) {
	_ = s.conn.SetReadDeadline(until)
	<-s.alone
	s.drop()
	s.conn.Close()
}

func (s *Set) drop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range s.inherited {
		f.Close()
	}
	s.inherited, s.adopters = nil, nil
}

// Serve waits at path for a successor until ctx ends, and then gives it all sockets that are open. When the successor
// has them, it calls release, which lets go of lock and state, and when the successor is ready or gone end, which ends
// what only one process can do at a time. It returns true then. Only root can be a successor.
func (s *Set) Serve(ctx context.Context, path string, release, end func()) (handed bool, err error) {
	l, err := listen(path)
	if err != nil {
		return false, err
	}
	defer l.Close()
	defer context.AfterFunc(ctx, func() { l.Close() })()
	for {
		c, err := l.AcceptUnix()
		switch {
		case ctx.Err() != nil:
			return false, nil
		case err != nil:
			return false, fmt.Errorf("wait for a successor: %w", err)
		}
		if err = s.pass(ctx, c); err == nil {
			l.Close() // its path is the successor's from here on
			release()
			if err = say(c, msgYours); err == nil {
				err = expect(c, msgReady)
			}
			end()
			c.Close() // the last word: the successor is alone
			return true, err
		}
		c.Close() // it went away before it had everything: as if it never came
	}
}

// listen opens the socket for successors. It takes its name last: what is there can be reached, and by root alone.
func listen(path string) (*successors, error) {
	early := path + ".new"
	for _, p := range []string{early, path} {
		if err := os.Remove(p); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("clear the socket for successors: %w", err)
		}
	}
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: early, Net: "unixpacket"})
	if err != nil {
		return nil, fmt.Errorf("open the socket for successors: %w", err)
	}
	if err := os.Chmod(early, 0o600); err != nil {
		l.Close()
		return nil, fmt.Errorf("close the socket for successors to others: %w", err)
	}
	if err := os.Rename(early, path); err != nil {
		l.Close()
		return nil, fmt.Errorf("name the socket for successors: %w", err)
	}
	l.SetUnlinkOnClose(false)
	return &successors{UnixListener: l, path: path}, nil
}

// successors is the listener for them. Its path goes with its first Close: later the path may be a successor's own.
type successors struct {
	*net.UnixListener
	path string
	once sync.Once
}

func (s *successors) Close() (err error) {
	s.once.Do(func() {
		_ = os.Remove(s.path)
		err = s.UnixListener.Close()
	})
	return err
}

// pass sends every open socket and returns nil when the successor has them all.
func (s *Set) pass(ctx context.Context, c *net.UnixConn) (err error) {
	defer context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })()
	_ = c.SetReadDeadline(time.Now().Add(talk))
	if err := expect(c, msgTake); err != nil {
		return err
	}
	s.mu.Lock()
	offered := maps.Clone(s.offered)
	s.successor = c // who opens one from here on sends it
	s.mu.Unlock()
	defer func() {
		if err != nil {
			s.mu.Lock()
			s.successor = nil
			s.mu.Unlock()
		}
	}()
	for _, name := range slices.Sorted(maps.Keys(offered)) {
		if err := send(c, name, offered[name]); err != nil {
			return err
		}
	}
	if err := say(c, msgEnd); err != nil {
		return err
	}
	if err := expect(c, msgHave); err != nil {
		return err
	}
	_ = c.SetReadDeadline(time.Time{}) // starting takes as long as it takes
	s.mu.Lock()
	s.handed = true
	s.mu.Unlock()
	for _, sock := range offered {
		if u, ok := sock.(*net.UnixListener); ok {
			u.SetUnlinkOnClose(false)
		}
	}
	return nil
}

// send passes one socket. One that was closed meanwhile is left out: nobody serves there.
func send(c *net.UnixConn, name string, sock syscall.Conn) error {
	raw, err := sock.SyscallConn()
	if err != nil {
		return nil
	}
	var sent error
	_ = c.SetWriteDeadline(time.Now().Add(talk))
	_ = raw.Control(func(fd uintptr) { // not File(), which makes the socket of both block
		_, _, sent = c.WriteMsgUnix([]byte(msgSocket+name), unix.UnixRights(int(fd)), nil)
	})
	return sent
}

func say(c *net.UnixConn, text string) error {
	_ = c.SetWriteDeadline(time.Now().Add(talk))
	_, err := c.Write([]byte(text))
	return err
}

func expect(c *net.UnixConn, want string) error {
	text, file, err := read(c)
	if file != nil {
		file.Close()
	}
	if err == nil && text != want {
		err = fmt.Errorf("unexpected message %q instead of %q", text, want)
	}
	return err
}

// read reads one message and the socket that came with it, if any.
func read(c *net.UnixConn) (text string, file *os.File, err error) {
	buf, oob := make([]byte, maxMessage), make([]byte, unix.CmsgSpace(4))
	n, oobn, _, _, err := c.ReadMsgUnix(buf, oob)
	if err != nil {
		return "", nil, err
	}
	if n == 0 {
		return "", nil, errors.New("the other process is gone")
	}
	text = string(buf[:n])
	messages, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil || len(messages) == 0 {
		return text, nil, err
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) == 0 {
		return text, nil, err
	}
	return text, os.NewFile(uintptr(fds[0]), text), nil
}
