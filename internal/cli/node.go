package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"minato/internal/cluster/nodes"
	"minato/internal/netns"
	"minato/internal/web"
)

func nodeCommand(o *options) *cobra.Command {
	c := &cobra.Command{Use: "node", Short: "List the nodes, run a command on one, or have one fail"}
	c.AddCommand(
		o.stopCommand(),
		o.changeCommand("kill", "Take the link of a node down, at once", killText),
		o.changeCommand("pause-agent", "Freeze the Service layer of a node", pauseText),
		o.changeCommand("start", "Undo stop, kill or pause-agent", startText),
		o.listCommand(),
		&cobra.Command{
			Use: "exec NODE -- COMMAND [ARG...]", Short: "Run a command in a node's network",
			Example: "  sudo minato node exec node1 -- ip address",
			Args:    cobra.MinimumNArgs(2),
			RunE:    func(c *cobra.Command, args []string) error { return o.execOnNode(c.Context(), args[0], args[1:]) },
		},
		&cobra.Command{
			Use: "shell NODE", Short: "Open a shell in a node's network", Example: "  sudo minato node shell node1", Args: cobra.ExactArgs(1),
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

const (
	stopText = "The planned way: the node and its pods become not ready, so that they leave endpoints and names, and other nodes\n" +
		"take over load balancer addresses. When every node has applied that, connections under way get the grace to end,\n" +
		"and the node's link goes down. Its pods run on, unseen, as on a node without network."
	killText = "As if the cable was pulled: the cluster is told nothing. Load balancer addresses move to other nodes within a\n" +
		"second, by heartbeats. The Node is NotReady and its pods leave the endpoints within 10 seconds. The pods run on, unseen."
	pauseText = "As if the agent hung: packets flow on as programmed and its DNS answers what it knew, but no change is applied,\n" +
		"and it sends no heartbeats and answers for no load balancer address. Pods and the Node object are not concerned."
	startText = "The node catches up with the cluster; it announces load balancer addresses again a few seconds later."
)

// changeCommand is a verb that changes a node.
func (o *options) changeCommand(verb, short, long string) *cobra.Command {
	return &cobra.Command{
		Use: verb + " NODE", Short: short, Long: long, Args: cobra.ExactArgs(1), Example: "  minato node " + verb + " node2",
		RunE: func(c *cobra.Command, args []string) error { return o.changeNode(c, verb, args[0], 0) },
	}
}

func (o *options) stopCommand() *cobra.Command {
	var grace time.Duration
	c := o.changeCommand("stop", "Withdraw everything from a node, then take its link down", stopText)
	c.Flags().DurationVar(&grace, "grace", time.Second, "how long connections under way may take to end")
	c.RunE = func(c *cobra.Command, args []string) error { return o.changeNode(c, "stop", args[0], grace) }
	return c
}

func (o *options) changeNode(c *cobra.Command, verb, node string, grace time.Duration) error {
	client, err := o.client()
	if err != nil {
		return err
	}
	said, err := client.Change(c.Context(), verb, node, grace)
	if err != nil {
		return o.hint(err)
	}
	_, err = io.WriteString(c.OutOrStdout(), said)
	return err
}

func (o *options) listCommand() *cobra.Command {
	var output string
	c := &cobra.Command{
		Use: "list", Short: "List the nodes", Example: "  minato node list\n  minato node list -o json", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return o.listNodes(c, output) },
	}
	formatFlag(c, &output, web.Text, web.JSON)
	return c
}

func (o *options) listNodes(c *cobra.Command, output string) error {
	all, err := o.nodes(c.Context())
	if err != nil {
		return err
	}
	if output == web.JSON {
		return json.NewEncoder(c.OutOrStdout()).Encode(all)
	}
	w := tabwriter.NewWriter(c.OutOrStdout(), 0, 0, 3, ' ', 0)
	fmt.Fprintln(w, "NAME\tADDRESS\tSTATUS\tNAMESPACE")
	for _, n := range all {
		status, ns := "NotReady", n.Netns
		if n.Ready {
			status = "Ready"
		}
		if n.Condition != "" {
			status += " (" + n.Condition + ")"
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
	if err := needRoot("node exec" + o.nameFlag()); err != nil {
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
