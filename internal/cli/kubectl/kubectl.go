// Package kubectl links the real kubectl into minato.
//
// It adds nothing to it and takes nothing away: arguments and environment are kubectl's own.
package kubectl

import (
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"k8s.io/component-base/cli"
	"k8s.io/component-base/logs"
	"k8s.io/kubectl/pkg/cmd"
	"k8s.io/kubectl/pkg/cmd/plugin"
	"k8s.io/kubectl/pkg/cmd/util"

	"minato/internal/cluster/apiserver/kubeversion"
)

// Main runs kubectl with the arguments after its name and returns its exit code. Plugins named kubectl-* on the PATH
// work as they do for kubectl.
func Main(args []string) int {
	os.Args = append([]string{"kubectl"}, args...)
	if err := kubeversion.Set(); err != nil {
		fmt.Fprintln(os.Stderr, "minato kubectl:", err)
		return 1
	}
	logs.GlogSetter(cmd.GetLogVerbosity(os.Args)) //nolint:errcheck // as upstream's main does
	code := 0
	if err := cli.RunNoErrOutput(command(args)); err != nil {
		util.BehaviorOnFatal(func(msg string, c int) {
			if msg != "" {
				fmt.Fprintln(os.Stderr, strings.TrimSuffix(msg, "\n"))
			}
			code = c
		})
		util.CheckErr(err)
	}
	return code
}

func command(args []string) *cobra.Command {
	flags := genericclioptions.NewConfigFlags(true).WithDeprecatedPasswordFlag().WithDiscoveryBurst(300).WithDiscoveryQPS(50)
	return cmd.NewDefaultKubectlCommandWithArgs(cmd.KubectlOptions{
		PluginHandler: cmd.NewDefaultPluginHandler(plugin.ValidPluginFilenamePrefixes),
		Arguments:     append([]string{"kubectl"}, args...),
		ConfigFlags:   flags,
		IOStreams:     genericiooptions.IOStreams{In: os.Stdin, Out: os.Stdout, ErrOut: os.Stderr},
	})
}
