//go:build linux

package nodes

import (
	"context"
	"fmt"
	"io"
	"os/exec"

	"minato/internal/netns"
)

// Stdio are the standard streams of a command. A file is handed on as it is, so a terminal stays one.
type Stdio struct {
	In       io.Reader
	Out, Err io.Writer
}

// Exec runs a command in a node's namespace and waits for it. The mount namespace, and so /etc/resolv.conf, stays
// the caller's. A command that ran and failed is an *exec.ExitError.
func (n *Network) Exec(ctx context.Context, node string, argv []string, stdio Stdio) error {
	ns, err := n.Netns(node)
	if err != nil {
		return err
	}
	return Exec(ctx, ns, argv, stdio)
}

// Exec is Network.Exec for a process that has only the namespace, see NetnsPath.
func Exec(ctx context.Context, ns netns.NS, argv []string, stdio Stdio) error {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdio.In, stdio.Out, stdio.Err
	if err := ns.Do(cmd.Start); err != nil { // the child is forked from the thread that is in the namespace
		return fmt.Errorf("run %s on %s: %w", argv[0], ns, err)
	}
	return cmd.Wait()
}
