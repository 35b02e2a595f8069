package apiserver

import (
	"context"
	"errors"
	"net"
)

// errEnded is what components of this process get that still ask when its API has ended.
var errEnded = errors.New("the API of this process has ended")

// ownDialer connects components of this process to its API, until the API has ended. A process that takes over has the
// same ports: without an end, whoever still asks would wait for it to accept, and it waits for this process.
type ownDialer struct {
	ctx context.Context // until the API has ended
	end context.CancelFunc
}

func newOwnDialer() *ownDialer {
	d := &ownDialer{}
	d.ctx, d.end = context.WithCancel(context.Background())
	return d
}

func (d *ownDialer) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(d.ctx, cancel)()
	c, err := new(net.Dialer).DialContext(ctx, network, addr)
	if d.ctx.Err() != nil {
		if err == nil {
			c.Close()
		}
		return nil, errEnded
	} else if err != nil {
		return nil, err
	}
	return &ownConn{Conn: c, forget: context.AfterFunc(d.ctx, func() { c.Close() })}, nil
}

// ownConn is closed when the API ends.
type ownConn struct {
	net.Conn
	forget func() bool
}

func (c *ownConn) Close() error {
	c.forget()
	return c.Conn.Close()
}
