package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"minato/internal/cluster/nodes"
	"minato/internal/netns"
	"minato/internal/web"
)

func nodeCommand(o *options) *cobra.Command {
	c := &cobra.Command{Use: "node", Short: "List the nodes, or run a command on one"}
	c.AddCommand(
		&cobra.Command{
			Use: "list", Short: "List the nodes", Args: cobra.NoArgs,
			RunE: func(c *cobra.Command, _ []string) error { return o.listNodes(c) },
		},
		&cobra.Command{
			Use: "exec NODE -- COMMAND [ARG...]", Short: "Run a command in a node's network",
			Args: cobra.MinimumNArgs(2),
			RunE: func(c *cobra.Command, args []string) error { return o.execOnNode(c.Context(), args[0], args[1:]) },
		},
		&cobra.Command{
			Use: "shell NODE", Short: "Open a shell in a node's network", Args: cobra.ExactArgs(1),
			RunE: func(c *cobra.Command, args []string) error {
				shell := os.Getenv("SHELL")
				if shell == "" {
					shell = "/bin/sh"
				}
				return o.execOnNode(c.Context(), args[0], []string{shell})
			},
		},
	)
	return c
}

func (o *options) listNodes(c *cobra.Command) error {
	all, err := o.nodes(c.Context())
	if err != nil {
		return err
	}
	w := tabwriter.NewWriter(c.OutOrStdout(), 0, 0, 3, ' ', 0)
	fmt.Fprintln(w, "NAME\tADDRESS\tSTATUS\tNAMESPACE")
	for _, n := range all {
		status, ns := "NotReady", n.Netns
		if n.Ready {
			status = "Ready"
		}
		if ns == "" {
			ns = "(host)"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", n.Name, n.Addr, status, ns)
	}
	return w.Flush()
}

func (o *options) nodes(ctx context.Context) ([]web.Node, error) {
	client, err := o.client()
	if err != nil {
		return nil, err
	}
	all, err := client.Nodes(ctx)
	return all, o.hint(err)
}

// execOnNode ends with the command's own exit code.
func (o *options) execOnNode(ctx context.Context, name string, argv []string) error {
	if err := needRoot("node exec"); err != nil {
		return err
	}
	all, err := o.nodes(ctx)
	if err != nil {
		return err
	}
	var names []string
	for _, n := range all {
		names = append(names, n.Name)
		if n.Name != name {
			continue
		}
		err := nodes.Exec(ctx, netns.At(n.Netns), argv, nodes.Stdio{In: os.Stdin, Out: os.Stdout, Err: os.Stderr})
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			return &exitError{code: exit.ExitCode()}
		}
		return err
	}
	return fmt.Errorf("name one of the nodes (%s): there is no node %s", strings.Join(names, ", "), name)
}
