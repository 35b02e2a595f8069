// Package cli is the command line of minato: one file per verb. A verb parses, asks the running instance or package
// run, and prints.
//
// The first line of every error says what the user can do. It decides nothing about Services.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"minato/internal/instance"
	"minato/internal/web"
)

// Exit codes besides 0: what went wrong, for scripts. explain has more, those of its verdicts.
const (
	exitFailed = 1
	exitUsage  = 2
)

// exitError ends the program with a code; a nil err prints nothing.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit %d", e.code)
	}
	return e.err.Error()
}
func (e *exitError) Unwrap() error { return e.err }

// Main runs the command line of the program that was called by this name, and returns the exit code.
func Main(program string, args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	root := newRoot()
	root.SetArgs(calledAs(program, root, args))
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	var exit *exitError
	if errors.As(err, &exit) {
		if exit.err != nil {
			fmt.Fprintln(os.Stderr, "minato:", exit.err)
		}
		return exit.code
	}
	fmt.Fprintln(os.Stderr, "minato:", err)
	return exitFailed
}

// options are the flags that every verb has.
type options struct{ name, stateDir string }

func newRoot() *cobra.Command {
	o := &options{}
	root := &cobra.Command{
		Use:   "minato",
		Short: "The Kubernetes Service layer as one program",
		Long: "minato (港) is the Kubernetes Service layer as one program: ClusterIP, NodePort, LoadBalancer, DNS and Ingress\n" +
			"from one model of the Services, with an embedded Kubernetes API and real containers on one machine.",
		SilenceUsage: true, SilenceErrors: true,
	}
	root.PersistentFlags().StringVar(&o.name, "name", instance.DefaultName, "name of the instance")
	root.PersistentFlags().StringVar(&o.stateDir, "state-dir", "", "folder of its state (default /var/lib/minato/NAME)")
	root.SetFlagErrorFunc(flagError)
	root.AddCommand(upCommand(o), downCommand(o), deleteCommand(o), statusCommand(o), doctorCommand(o), backupCommand(o), restoreCommand(o), nodeCommand(o), imageCommand(o),
		kubectlCommand(o), serviceCommand(o), showCommand(o), diffCommand(o), explainCommand(o), flowsCommand(o), dashboardCommand(o), tutorialCommand(o), completionCommand(), versionCommand())
	root.SetHelpCommand(helpCommand())
	usageErrors(root)
	o.completeNames(root)
	return root
}

// instance locates the instance of the flags.
func (o *options) instance() (instance.Instance, error) {
	i, err := instance.New(o.name, o.stateDir)
	if err != nil {
		return i, &exitError{exitUsage, err}
	}
	return i, nil
}

// client asks the running instance.
func (o *options) client() (*web.Client, error) {
	i, err := o.instance()
	if err != nil {
		return nil, err
	}
	return web.NewClient(i.ControlSocket()), nil
}

// hint adds to an error what the user can do about it.
func (o *options) hint(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, web.ErrNotRunning):
		return fmt.Errorf("start it first (sudo minato up%s): %w", o.nameFlag(), err)
	case errors.Is(err, os.ErrPermission):
		return fmt.Errorf("run it as root, or as the user who started the instance: %w", err)
	}
	return err
}

// nameFlag is how the instance is named on a command line, empty for the default one.
func (o *options) nameFlag() string {
	if o.name == instance.DefaultName {
		return ""
	}
	return " --name " + o.name
}

// get prints the answer of the running instance and ends with the exit code that it asks for.
func (o *options) get(ctx context.Context, path string, q url.Values, out io.Writer) error {
	c, err := o.client()
	if err != nil {
		return err
	}
	exit, err := c.Get(ctx, path, q, out)
	if err != nil {
		return o.hint(err)
	}
	if exit != 0 {
		return &exitError{code: exit}
	}
	return nil
}

// needRoot refuses early, before anything is half done.
func needRoot(verb string) error {
	if os.Geteuid() != 0 {
		return fmt.Errorf("run it as root: sudo minato %s (network namespaces and containers need it)", verb)
	}
	return nil
}
