package cli

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
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
			} else if isPlugin(args) {
				list, err := withContext(os.Getenv("KUBECONFIG"), inst.KubeContext())
				if err != nil {
					return err
				}
				os.Setenv("KUBECONFIG", list)
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

// isPlugin reports whether kubectl looks for a plugin: it takes no flag before a plugin's name, and a plugin need not
// know --context.
func isPlugin(args []string) bool {
	if len(args) == 0 || strings.HasPrefix(args[0], "-") {
		return false
	}
	_, err := exec.LookPath("kubectl-" + strings.ReplaceAll(args[0], "-", "_"))
	return err == nil
}

// withContext puts before the files of a KUBECONFIG one that has only the current context: of several files the first
// to name one counts.
func withContext(list, context string) (string, error) {
	home, err := os.UserHomeDir()
	if list == "" && err == nil {
		list = filepath.Join(home, ".kube", "config")
	}
	cache, cacheErr := os.UserCacheDir()
	if err := errors.Join(err, cacheErr); err != nil {
		return "", fmt.Errorf("set HOME, where kubectl's settings are: %w", err)
	}
	file := filepath.Join(cache, "minato", "context-"+context)
	content := fmt.Sprintf("apiVersion: v1\nkind: Config\ncurrent-context: %s\n", context)
	if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, []byte(content), 0o644)); err != nil {
		return "", fmt.Errorf("write the context for a plugin: %w", err)
	}
	return file + string(filepath.ListSeparator) + list, nil
}

func readable(file string) bool {
	f, err := os.Open(file)
	if err != nil {
		return false
	}
	f.Close()
	return true
}
