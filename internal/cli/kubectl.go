package cli

import (
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"minato/internal/cli/kubectl"
	"minato/internal/instance"
)

// kubectlCommand hands everything after the verb to kubectl. Only a leading --name NAME is ours.
func kubectlCommand(o *options) *cobra.Command {
	return &cobra.Command{
		Use:                "kubectl [--name NAME] ARG...",
		Short:              "The real kubectl, for this cluster",
		Example:            "  minato kubectl get nodes\n  minato kubectl --name lab get pods -A",
		DisableFlagParsing: true,
		RunE: func(c *cobra.Command, args []string) error {
			name, stateDir := o.name, o.stateDir
			for len(args) >= 2 && (args[0] == "--name" || args[0] == "--state-dir") {
				if args[0] == "--name" {
					name = args[1]
				} else {
					stateDir = args[1]
				}
				args = args[2:]
			}
			inst, err := instance.New(name, stateDir)
			if err != nil {
				return &exitError{exitUsage, err}
			}
			if readable(inst.Kubeconfig()) {
				os.Setenv("KUBECONFIG", inst.Kubeconfig())
			} else if !slices.ContainsFunc(args, func(a string) bool { return strings.HasPrefix(a, "--context") || strings.HasPrefix(a, "--kubeconfig") }) {
				args = append([]string{"--context=" + inst.KubeContext()}, args...) // the user's own kubeconfig has it
			}
			if code := kubectl.Main(args); code != 0 {
				return &exitError{code: code}
			}
			return nil
		},
	}
}

func readable(file string) bool {
	f, err := os.Open(file)
	if err != nil {
		return false
	}
	f.Close()
	return true
}
