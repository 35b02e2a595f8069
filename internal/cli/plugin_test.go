package cli

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

func TestAsAPluginOfKubectlItSaysSo(t *testing.T) {
	root := newRoot()
	args := calledAs("/usr/local/bin/kubectl-minato", root, []string{"flows", "--help"})
	var out bytes.Buffer
	root.SetOut(&out)
	root.SetArgs(args)
	if err := root.ExecuteContext(context.Background()); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"\n  kubectl minato flows [svc/NAME", "\n  kubectl minato flows svc/nginx\n"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
}

func TestAFileNamedMinatoIsNotRenamed(t *testing.T) {
	root := newRoot()
	calledAs("kubectl-minato", root, nil)
	c, _, err := root.Find([]string{"restore"})
	if want := "sudo kubectl minato restore before.minato --name copy"; err != nil || !strings.HasSuffix(c.Example, want) {
		t.Errorf("%v, %q does not end with %q", err, c.Example, want)
	}
}

func TestKubectlIsToldHowToComplete(t *testing.T) {
	if got := calledAs("kubectl_complete-minato", newRoot(), []string{"node", ""}); !slices.Equal(got, []string{cobra.ShellCompRequestCmd, "node", ""}) {
		t.Errorf("got %q", got)
	}
}

func TestEveryVerbHasAnExample(t *testing.T) {
	var walk func(*cobra.Command)
	walk = func(c *cobra.Command) {
		if !c.HasSubCommands() && !strings.Contains(c.Example, c.CommandPath()) {
			t.Errorf("%s has no example of itself: %q", c.CommandPath(), c.Example)
		}
		for _, sub := range c.Commands() {
			walk(sub)
		}
	}
	walk(newRoot())
}

func TestAPluginOfKubectlGetsTheContextWithoutAFlag(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("PATH", dir)
	t.Setenv("XDG_CACHE_HOME", filepath.Join(dir, "cache"))
	if err := os.WriteFile(filepath.Join(dir, "kubectl-who_asks"), []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	for args, want := range map[string]bool{"who-asks": true, "who-asks -v": true, "get pods": false, "--v=1 who-asks": false, "": false} {
		if got := isPlugin(strings.Fields(args)); got != want {
			t.Errorf("%q is a plugin: %t", args, got)
		}
	}
	list, err := withContext("a:b", "minato-lab")
	first, rest, _ := strings.Cut(list, ":")
	content, readErr := os.ReadFile(first)
	if err := errors.Join(err, readErr); err != nil || rest != "a:b" || !strings.Contains(string(content), "current-context: minato-lab\n") {
		t.Errorf("%v, %s with\n%s", err, list, content)
	}
}
