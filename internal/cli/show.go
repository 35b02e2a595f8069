package cli

import (
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

func showCommand(o *options) *cobra.Command {
	var node, output string
	c := &cobra.Command{
		Use:   "show services|frontends|addresses|announcements|routes|nftables|connections|dns [NAMESPACE/NAME]",
		Short: "Show what the Services come to on a node",
		Long: "services: what is wanted. frontends: at which addresses the node answers. addresses, announcements: what load\n" +
			"balancers got, and which node answers for it. routes: Ingress. nftables: what the kernel is told, and in what it\n" +
			"differs. connections: how many it has counted, of one Service by endpoint too. dns: every record. With NAMESPACE/NAME,\n" +
			"or svc/NAME, only what is of that Service.",
		Example:   "  minato show frontends\n  minato show dns default/web\n  minato show services -o json",
		ValidArgs: []string{"services", "frontends", "addresses", "announcements", "routes", "nftables", "connections", "dns"},
		Args:      cobra.RangeArgs(1, 2),
		RunE: func(c *cobra.Command, args []string) error {
			if !slices.Contains(c.ValidArgs, args[0]) {
				return wrongWord(c, "table", args[0], alike(args[0], c.ValidArgs))
			}
			q := url.Values{"node": {node}, "output": {output}}
			if len(args) == 2 {
				q.Set("selector", args[1])
			}
			return o.get(c.Context(), "/show/"+url.PathEscape(args[0]), q, c.OutOrStdout())
		},
	}
	nodeFlag(c, &node)
	outputFlag(c, &output)
	return c
}

func diffCommand(o *options) *cobra.Command {
	var node, output string
	c := &cobra.Command{
		Use:     "diff",
		Short:   "Compare what the kernel holds with what it should; nothing printed means equal",
		Long:    "Reads the kernel's maps of every node and compares them with the plan. Exit 0: equal, 1: not.",
		Example: "  minato diff\n  minato diff --node node1 -o json",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return o.get(c.Context(), "/diff", url.Values{"node": {node}, "output": {output}}, c.OutOrStdout())
		},
	}
	nodeFlag(c, &node)
	outputFlag(c, &output)
	return c
}

func explainCommand(o *options) *cobra.Command {
	var from, protocol, namespace, output string
	c := &cobra.Command{
		Use:   "explain DEST",
		Short: "Say where a connection goes, and why",
		Long: "DEST is name:port, address:port, a URL, a bare name, or svc/NAME. A URL whose host an Ingress has is followed to\n" +
			"the backends of its path. What the node's kernel holds is compared with what is wanted.\n" +
			"Exit 0: delivered, 3: refused, 4: dropped, 5: no such name.",
		Example: "  minato explain nginx:80 --from pod/default/debugger\n  minato explain 172.30.0.11:30080 --from lan\n" +
			"  minato explain https://shop.example.com/cart --from lan",
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			q := url.Values{"dest": args, "from": {from}, "protocol": {protocol}, "namespace": {namespace}, "output": {output}}
			return o.get(c.Context(), "/explain", q, c.OutOrStdout())
		},
	}
	c.Flags().StringVar(&from, "from", "", "pod/NAMESPACE/NAME, node/NAME, lan or an address (default: a pod of namespace default)")
	c.Flags().StringVar(&protocol, "protocol", "", "tcp, udp or sctp (default: tcp, or udp where only that is served)")
	c.Flags().StringVarP(&namespace, "namespace", "n", "", "of svc/NAME, and of the pod that no --from stands for (default \"default\")")
	outputFlag(c, &output)
	return c
}

func nodeFlag(c *cobra.Command, node *string) {
	c.Flags().StringVar(node, "node", "", "of which node (default: the first for show, all for diff)")
}

func outputFlag(c *cobra.Command, output *string) {
	formatFlag(c, output, "text", "json", "yaml")
}

// formatFlag is the flag of a verb that prints in one of these formats, the first by itself.
func formatFlag(c *cobra.Command, output *string, formats ...string) {
	*output = formats[0]
	last := len(formats) - 1
	c.Flags().VarP(choice{output, formats}, "output", "o", strings.Join(formats[:last], ", ")+" or "+formats[last])
	_ = c.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(formats, cobra.ShellCompDirectiveNoFileComp))
}

// choice is a flag that takes one of a few words.
type choice struct {
	value *string
	of    []string
}

func (c choice) String() string { return *c.value }
func (c choice) Type() string   { return "string" }
func (c choice) Set(s string) error {
	if !slices.Contains(c.of, s) {
		return fmt.Errorf("one of %s", strings.Join(c.of, ", "))
	}
	*c.value = s
	return nil
}
