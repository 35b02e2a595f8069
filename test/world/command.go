//go:build linux

package world

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"minato/internal/netns/netnstest"
)

// commandTime is how long a command may take that waits for nothing.
const commandTime = time.Minute

// Result is how a command ended.
type Result struct {
	Stdout, Stderr string
	Err            error // nil for exit code 0
}

// Output is both streams, the errors last.
func (r Result) Output() string { return r.Stdout + r.Stderr }

// Code is the exit code, or -1 for a command that did not end by itself.
func (r Result) Code() int {
	var exit *exec.ExitError
	switch {
	case r.Err == nil:
		return 0
	case errors.As(r.Err, &exit):
		return exit.ExitCode()
	}
	return -1
}

// OnLAN runs a command on the host, which is the network around the nodes.
func (w *World) OnLAN(argv ...string) Result { return w.run(commandTime, argv...) }

// OnNode runs a command on a node, by `minato node exec`.
func (w *World) OnNode(node string, argv ...string) Result {
	return w.run(commandTime, w.minato(append([]string{"node", "exec", node, "--"}, argv...)...)...)
}

// Verb runs a verb of minato for this instance.
func (w *World) Verb(args ...string) Result { return w.run(commandTime, w.minato(args...)...) }

// Kubectl runs the kubectl of the shell (see Shell) and returns what it prints. A failure ends the test.
func (w *World) Kubectl(t testing.TB, args ...string) string {
	t.Helper()
	return w.must(t, commandTime, append([]string{filepath.Join(w.programs(), "kubectl")}, args...)...)
}

// Shell runs a line of shell on the host. Its kubectl, and k for short, are the machine's own where it has one, else
// minato's; minato is the one under test, for this instance. Its current folder is dir.
func (w *World) Shell(dir, line string) Result {
	return w.run(upTime, "bash", "-c", "cd "+dir+" && "+line)
}

// Kubectls are the command lines of every kubectl there is: minato's and, where the machine has one, its own.
func (w *World) Kubectls() map[string][]string {
	all := map[string][]string{"minato kubectl": w.minato("kubectl")}
	if own, err := exec.LookPath("kubectl"); err == nil {
		all["kubectl"] = []string{own}
	}
	return all
}

// Must runs a command on the host and returns what it prints. A failure ends the test.
func (w *World) Must(t testing.TB, argv ...string) string {
	t.Helper()
	return w.must(t, commandTime, argv...)
}

func (w *World) must(t testing.TB, within time.Duration, argv ...string) string {
	t.Helper()
	r := w.run(within, argv...)
	if r.Err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(argv, " "), r.Err, r.Output())
	}
	return r.Stdout
}

// run runs a command on the host, and ends it with all that it started when the time is up.
func (w *World) run(within time.Duration, argv ...string) Result {
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	var stdout, stderr strings.Builder
	cmd := w.command(ctx, argv...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	if err := netnstest.Start(w.Host, cmd); err != nil {
		return Result{Err: err}
	}
	err := cmd.Wait()
	if ctx.Err() != nil {
		err = fmt.Errorf("not done after %v: %w", within, err)
	}
	return Result{stdout.String(), stderr.String(), err}
}

func (w *World) command(ctx context.Context, argv ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Dir = w.dir
	cmd.Env = append(os.Environ(), "KUBECONFIG="+w.Kubeconfig(), "PATH="+w.programs()+":"+os.Getenv("PATH"), "TERM=xterm")
	// A detached instance keeps its own files, but a program that kept ours must not hold up the test.
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

func (w *World) programs() string { return filepath.Join(w.dir, "bin") }

// writePrograms makes kubectl, k and minato of the shell.
func (w *World) writePrograms() error {
	kubectl := strings.Join(w.minato("kubectl"), " ")
	if own, err := exec.LookPath("kubectl"); err == nil {
		kubectl = own
	}
	if err := os.Mkdir(w.programs(), 0o755); err != nil {
		return fmt.Errorf("make folder of programs: %w", err)
	}
	minato := strings.Join([]string{w.Minato, "--name", w.Name, "--state-dir", w.StateDir}, " ")
	for name, line := range map[string]string{"kubectl": kubectl, "k": kubectl, "minato": minato} {
		script := "#!/bin/sh\nexec " + line + " \"$@\"\n"
		if err := os.WriteFile(filepath.Join(w.programs(), name), []byte(script), 0o755); err != nil {
			return fmt.Errorf("write program: %w", err)
		}
	}
	return nil
}

// Eventually asks again and again until check returns nil. It ends the test with the last error when the time is up.
func Eventually(t testing.TB, within time.Duration, check func() error) {
	t.Helper()
	deadline := time.Now().Add(within)
	for {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("still after %v: %v", within, err)
		}
		time.Sleep(100 * time.Millisecond)
	}
}
