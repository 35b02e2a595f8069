package cli

import (
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
)

// The names of links to minato by which kubectl finds it (kubectl plugin --help): as a plugin, and as what completes
// the plugin's command lines.
const (
	pluginName    = "kubectl-minato"
	completesName = "kubectl_complete-minato"
)

// calledAs adapts the command line to the name by which the program was called: what it says of itself, and args.
func calledAs(program string, root *cobra.Command, args []string) []string {
	switch filepath.Base(program) {
	case pluginName:
		root.Annotations = map[string]string{cobra.CommandDisplayNameAnnotation: "kubectl minato"}
		renameExamples(root)
	case completesName:
		return append([]string{cobra.ShellCompRequestCmd}, args...)
	}
	return args
}

func renameExamples(c *cobra.Command) {
	c.Example = strings.NewReplacer(" minato ", " kubectl minato ", "(minato ", "(kubectl minato ").Replace(c.Example)
	for _, sub := range c.Commands() {
		renameExamples(sub)
	}
}
