package cli

import (
	"context"
	"errors"
	"net/url"

	"github.com/spf13/cobra"
)

func flowsCommand(o *options) *cobra.Command {
	var node, namespace, output string
	var watch bool
	c := &cobra.Command{
		Use:   "flows [svc/NAME|NAMESPACE/NAME]",
		Short: "Show live connections to Services: client, Service, backend, and why there",
		Long: "Reads the connection tracking of every node: TCP, UDP and SCTP, those of Services only. LEFT is how long the kernel\n" +
			"remembers the connection if no packet comes. REASON is what explain says of a new connection of that client, or\n" +
			"that this one is kept from before. As JSON it is one object a line.",
		Example: "  minato flows svc/nginx\n  minato flows --watch -o json",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			q := url.Values{"node": {node}, "namespace": {namespace}, "output": {output}}
			if len(args) == 1 {
				q.Set("selector", args[0])
			}
			if watch {
				q.Set("watch", "true")
			}
			err := o.get(c.Context(), "/flows", q, c.OutOrStdout())
			if watch && errors.Is(err, context.Canceled) {
				return nil // Ctrl-C is how it ends
			}
			return err
		},
	}
	c.Flags().StringVar(&node, "node", "", "of which node (default: all)")
	c.Flags().StringVarP(&namespace, "namespace", "n", "", "of svc/NAME (default \"default\")")
	c.Flags().BoolVarP(&watch, "watch", "w", false, "go on: show connections as they begin and end, until interrupted")
	outputFlag(c, &output)
	return c
}
