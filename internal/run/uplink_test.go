package run

import (
	"context"
	"errors"
	"net"
	"testing"
	"testing/synctest"
)

// wires makes an uplink to an API in memory, and returns its far ends.
func wires() (*uplink, chan net.Conn) {
	far := make(chan net.Conn, 10)
	return newUplink(func(ctx context.Context) (net.Conn, error) {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		near, other := net.Pipe()
		far <- other
		return near, nil
	}), far
}

func TestACutEndsConnections(t *testing.T) {
	u, far := wires()
	c, err := u.dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	u.cut(true)
	if _, err := (<-far).Read(make([]byte, 1)); err == nil {
		t.Error("the connection goes on")
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}

func TestWhileCutOffADialWaitsAndThenGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u, far := wires()
		u.cut(true)
		done := make(chan error, 1)
		go func() {
			c, err := u.dial(t.Context())
			if err == nil {
				err = c.Close()
			}
			done <- err
		}()
		synctest.Wait()
		if len(done) > 0 || len(far) > 0 {
			t.Fatal("did not wait")
		}
		u.cut(false)
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestACutEndsADialThatIsUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tries := 0
		u := newUplink(func(ctx context.Context) (net.Conn, error) {
			if tries++; tries > 1 {
				return nil, errors.New("the second try")
			}
			<-ctx.Done() // as packets into the void
			return nil, ctx.Err()
		})
		done := make(chan error, 1)
		go func() {
			_, err := u.dial(t.Context())
			done <- err
		}()
		synctest.Wait()
		u.cut(true)
		synctest.Wait()
		u.cut(false)
		if err := <-done; err == nil || err.Error() != "the second try" {
			t.Errorf("got %v", err)
		}
	})
}

func TestADialThatWaitsEndsWithItsContext(t *testing.T) {
	u, _ := wires()
	u.cut(true)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := u.dial(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}
