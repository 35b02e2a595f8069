package cli

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// completionPatience is how long a shell waits for names of the running instance.
const completionPatience = time.Second

func completionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "completion bash|zsh|fish", Short: "Print what makes a shell complete minato's command lines",
		Long: "Verbs and flags are completed always; names of nodes and Services while the instance runs.\n" +
			"For `kubectl minato`, link kubectl_complete-minato beside kubectl-minato on the PATH; kubectl's own completion asks it.",
		Example: "  source <(minato completion bash)\n  minato completion zsh >\"${fpath[1]}/_minato\"\n" +
			"  minato completion fish >~/.config/fish/completions/minato.fish",
		ValidArgs: []string{"bash", "zsh", "fish"},
		Args:      cobra.MatchAll(cobra.ExactArgs(1), cobra.OnlyValidArgs),
		RunE: func(c *cobra.Command, args []string) error {
			switch root, out := c.Root(), c.OutOrStdout(); args[0] {
			case "bash":
				return root.GenBashCompletionV2(out, true)
			case "zsh":
				return root.GenZshCompletion(out)
			case "fish":
				return root.GenFishCompletion(out, true)
			}
			return fmt.Errorf("no completion for %s", args[0])
		},
	}
}

// completeNames has the verbs below c complete names of the running instance: nodes after --node and where NODE is
// written, Services where a verb takes one.
func (o *options) completeNames(c *cobra.Command) {
	if f := c.Flags().Lookup("node"); f != nil && f.Value.Type() == "string" { // that of up names nodes to make
		_ = c.RegisterFlagCompletionFunc("node", o.nodeNames)
	}
	switch first, _, _ := strings.Cut(strings.TrimPrefix(c.Use, c.Name()+" "), " "); {
	case first == "NODE":
		c.ValidArgsFunction = onlyFirst(o.nodeNames)
	case c.Name() == "service":
		c.ValidArgsFunction = onlyFirst(o.serviceNames(""))
	case c.Name() == "flows", c.Name() == "explain":
		c.ValidArgsFunction = onlyFirst(o.serviceNames("svc/"))
	}
	for _, sub := range c.Commands() {
		o.completeNames(sub)
	}
}

// onlyFirst completes the first argument and no other.
func onlyFirst(complete cobra.CompletionFunc) cobra.CompletionFunc {
	return func(c *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return complete(c, args, word)
	}
}

// nodeNames are none where nobody answers: a completion does not complain.
func (o *options) nodeNames(c *cobra.Command, _ []string, _ string) (names []string, _ cobra.ShellCompDirective) {
	ctx, cancel := context.WithTimeout(c.Context(), completionPatience)
	defer cancel()
	if client, err := o.client(); err == nil {
		nodes, _ := client.Nodes(ctx)
		for _, n := range nodes {
			names = append(names, n.Name)
		}
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

// serviceNames are the Services of the namespace that the command line names, with a prefix.
func (o *options) serviceNames(prefix string) cobra.CompletionFunc {
	return func(c *cobra.Command, _ []string, _ string) (names []string, _ cobra.ShellCompDirective) {
		ctx, cancel := context.WithTimeout(c.Context(), completionPatience)
		defer cancel()
		namespace := "default"
		if f := c.Flags().Lookup("namespace"); f != nil && f.Value.String() != "" {
			namespace = f.Value.String()
		}
		if client, err := o.client(); err == nil {
			all, _ := client.Services(ctx, namespace)
			for _, name := range all {
				names = append(names, prefix+name)
			}
		}
		return names, cobra.ShellCompDirectiveNoFileComp
	}
}
