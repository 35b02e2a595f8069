package run

import (
	"context"
	"net"
	"sync"
)

// uplink is a node's connections to the API, over the node's own link. While the node is cut off, those there were end,
// and new ones wait, as they would for a network that is gone, but go on at once when it is back.
type uplink struct {
	connect func(context.Context) (net.Conn, error)

	mu    sync.Mutex
	up    context.Context // ends when the node is cut off
	down  context.CancelFunc
	back  chan struct{} // closed when the node is joined again; nil while it is not cut off
	conns map[*uplinkConn]bool
}

func newUplink(connect func(context.Context) (net.Conn, error)) *uplink {
	u := &uplink{connect: connect, conns: map[*uplinkConn]bool{}}
	u.up, u.down = context.WithCancel(context.Background())
	return u
}

func (u *uplink) dial(ctx context.Context) (net.Conn, error) {
	for {
		u.mu.Lock()
		up, back := u.up, u.back
		u.mu.Unlock()
		if back == nil {
			c, err := u.connectWhile(ctx, up)
			if up.Err() == nil || ctx.Err() != nil {
				return c, err
			}
			continue
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-back:
		}
	}
}

// connectWhile connects, unless the node is cut off before.
func (u *uplink) connectWhile(ctx, up context.Context) (net.Conn, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(up, cancel)()
	c, err := u.connect(ctx)
	if err != nil {
		return nil, err
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if up.Err() != nil {
		c.Close()
		return nil, up.Err()
	}
	conn := &uplinkConn{Conn: c, of: u}
	u.conns[conn] = true
	return conn, nil
}

// cut cuts the node off, or joins it again.
func (u *uplink) cut(cut bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	switch {
	case cut && u.back == nil:
		u.down()
		u.back = make(chan struct{})
		for c := range u.conns {
			c.Conn.Close()
		}
		clear(u.conns)
	case !cut && u.back != nil:
		u.up, u.down = context.WithCancel(context.Background())
		close(u.back)
		u.back = nil
	}
}

type uplinkConn struct {
	net.Conn
	of *uplink
}

func (c *uplinkConn) Close() error {
	c.of.mu.Lock()
	delete(c.of.conns, c)
	c.of.mu.Unlock()
	return c.Conn.Close()
}
