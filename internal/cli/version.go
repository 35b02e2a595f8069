package cli

import (
	"fmt"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// Version is the release; the Makefile sets it by the linker.
var Version = "0.1.0-dev"

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version", Example: "  minato version", Args: cobra.NoArgs,
		Run: func(c *cobra.Command, _ []string) {
			kubernetes, goVersion := "unknown", "unknown"
			if info, ok := debug.ReadBuildInfo(); ok {
				goVersion = info.GoVersion
				for _, m := range info.Deps {
					if m.Path == "k8s.io/kubernetes" {
						kubernetes = m.Version
					}
				}
			}
			fmt.Fprintf(c.OutOrStdout(), "minato %s (Kubernetes %s, %s)\n", Version, kubernetes, goVersion)
		},
	}
}
