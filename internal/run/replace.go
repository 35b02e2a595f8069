package run

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"minato/internal/handover"
	"minato/internal/instance"
)

// acquire takes the instance's lock, and its sockets where a process runs that is to be replaced.
func (u *instanceRun) acquire(ctx context.Context) (unlock func(), err error) {
	u.sockets = handover.New()
	unlock, err = u.inst.Lock()
	switch {
	case !errors.Is(err, instance.ErrRunning):
		return unlock, err
	case !u.opt.Replace:
		return nil, fmt.Errorf("choose another --name, stop it first (minato down --name %s), or put this program in its place (minato up --replace): %w",
			u.inst.Name, err)
	}
	err = u.p.step("running process to let go", func() (err error) {
		u.sockets, err = handover.Take(ctx, u.inst.HandoverSocket())
		return err
	})
	if errors.Is(err, handover.ErrNoPredecessor) { // it has just begun, just ended, or does not know how
		u.sockets = handover.New()
		return stopProcess(ctx, u.inst, u.p)
	}
	if err != nil {
		return nil, err
	}
	if unlock, err = u.inst.Lock(); err != nil {
		u.sockets.Close()
	}
	return unlock, err
}

// awaitSuccessor returns true when another process has taken over all that this one did. Until that process is ready,
// this one goes on to serve clients, from what it knew last.
func (u *instanceRun) awaitSuccessor() (replaced bool) {
	replaced, err := u.sockets.Serve(u.ctx, u.inst.HandoverSocket(), func() {
		u.cancel(context.Canceled)
		u.finish()
	}, func() {
		u.endServing()
		for _, a := range u.agents {
			<-a.loopback.Closed()
		}
	})
	if err != nil {
		u.opt.Log.Warn("handing over to another process", "err", err)
	}
	if replaced {
		u.endServing()
		u.serving.Wait()
	}
	return replaced
}

// goServe is goRun for what serves clients: it ends only when a successor serves them, if there is one. Ports that it
// listens on must be from u.sockets, because its successor has them at the same time.
func (u *instanceRun) goServe(name string, f func(context.Context) error) {
	u.serving.Go(func() { u.component(u.servingCtx, name, f) })
}

// servesInstead lets the predecessor end, when all that it served is served here.
func (u *instanceRun) servesInstead() error {
	const look = 10 * time.Millisecond
	for _, a := range u.agents {
		for !a.ingress.Settled() {
			select {
			case <-u.ctx.Done():
				return context.Cause(u.ctx)
			case <-time.After(look):
			}
		}
	}
	if err := u.sockets.Ready(); err != nil {
		u.opt.Log.Warn("telling the replaced process to end", "err", err)
	}
	return nil
}

// listenOn opens TCP ports of a node, or takes them over.
func (u *instanceRun) listenOn(a *agent) func(ctx context.Context, address string) (net.Listener, error) {
	return func(ctx context.Context, address string) (net.Listener, error) {
		return u.sockets.Listener("tcp/"+a.node.Name+"/"+address, func() (net.Listener, error) {
			return a.netns.Listen(ctx, "tcp", address)
		})
	}
}
