//go:build linux

package proxy

import (
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// path is a client and a server in one thread, which so pays for all that the kernel does on the way.
type path struct {
	w        *world
	listener int
}

// onPath runs f on a thread of its own, with a server that listens.
func (w *world) onPath(t *testing.T, f func(p *path) error) {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		p := &path{w: w}
		err := w.server.Do(func() (err error) {
			p.listener, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			if err == nil {
				err = errors.Join(unix.Bind(p.listener, &unix.SockaddrInet4{Port: connectionPort, Addr: serverAddr.As4()}), unix.Listen(p.listener, 128))
			}
			return err
		})
		if err == nil {
			err = w.client.Do(func() error { return f(p) })
		}
		unix.Close(p.listener)
		done <- err
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// open makes a connection and gives both ends.
func (p *path) open(to netip.AddrPort) (client, server int, err error) {
	client, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, 0, err
	}
	reset := unix.Linger{Onoff: 1} // no TIME_WAIT
	err = errors.Join(unix.SetsockoptLinger(client, unix.SOL_SOCKET, unix.SO_LINGER, &reset),
		unix.Connect(client, &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()}))
	if err != nil {
		unix.Close(client)
		return 0, 0, fmt.Errorf("connect to %s: %w", to, err)
	}
	server, _, err = unix.Accept(p.listener)
	return client, server, err
}

// connections makes n connections one after the other and returns the processor time of each.
func (p *path) connections(to netip.AddrPort, n int) (time.Duration, error) {
	start := threadTime()
	for range n {
		c, s, err := p.open(to)
		if err != nil {
			return 0, err
		}
		unix.Close(c)
		unix.Close(s)
	}
	return (threadTime() - start) / time.Duration(n), nil
}

// stream sends that many bytes over one connection and returns the processor time and the wall time.
func (p *path) stream(to netip.AddrPort, bytes int) (cpu, wall time.Duration, err error) {
	c, s, err := p.open(to)
	if err != nil {
		return 0, 0, err
	}
	defer unix.Close(c)
	defer unix.Close(s)
	buf := make([]byte, 64<<10)
	start, begin := threadTime(), time.Now()
	for done := 0; done < bytes; {
		n, err := unix.Write(c, buf) // fits into the socket's buffer
		if err != nil {
			return 0, 0, err
		}
		for left := n; left > 0; {
			m, err := unix.Read(s, buf[:min(left, len(buf))])
			if err != nil {
				return 0, 0, err
			}
			left -= m
		}
		done += n
	}
	return threadTime() - start, time.Since(begin), nil
}

func threadTime() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &ts); err != nil {
		panic(err)
	}
	return time.Duration(ts.Nano())
}
