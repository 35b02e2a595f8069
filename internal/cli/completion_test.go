package cli

import (
	"context"
	"os"
	"strings"
	"testing"

	"minato/internal/instance"
	"minato/internal/web"
)

func TestEveryShellGetsACompletion(t *testing.T) {
	for shell, word := range map[string]string{"bash": "complete -o", "zsh": "#compdef minato", "fish": "complete -c minato"} {
		if out, err := execute("completion", shell); err != nil || !strings.Contains(out, word) {
			t.Errorf("%s: %v, without %q", shell, err, word)
		}
	}
}

// servedInstance serves a control socket with two nodes and some Services until the test ends, and returns the instance's name.
func servedInstance(t *testing.T) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("the folder of control sockets is root's")
	}
	inst, err := instance.New("cli-completion-test", t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if err := inst.MakeDirs(); err != nil {
		t.Fatal(err)
	}
	l, err := web.Listen(inst.ControlSocket(), os.Getuid())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- web.Serve(ctx, l, web.Backend{
			Nodes: func(context.Context) ([]web.Node, error) { return []web.Node{{Name: "node1"}, {Name: "node2"}}, nil },
			Services: func(_ context.Context, namespace string) []string {
				return map[string][]string{"default": {"web"}, "shop": {"cart", "till"}}[namespace]
			},
		})
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		os.RemoveAll(inst.RunDir)
	})
	return inst.Name
}

func TestNamesOfTheRunningInstanceAreCompleted(t *testing.T) {
	name := servedInstance(t)
	for line, want := range map[string]string{
		"node kill":                "node1 node2",
		"node kill node1":          "",
		"node exec":                "node1 node2",
		"diff --node":              "node1 node2",
		"flows --node":             "node1 node2",
		"flows":                    "svc/web",
		"explain --namespace=shop": "svc/cart svc/till",
		"service -n shop":          "cart till",
	} {
		words := append([]string{"__complete"}, strings.Fields(line)...)
		// --name directly after the verbs, so that it does not come between a flag and its value.
		verbs := 2
		if words[1] == "node" {
			verbs = 3
		}
		words = append(words[:verbs:verbs], append([]string{"--name", name}, words[verbs:]...)...)
		out, err := execute(append(words, "")...)
		got, _, _ := strings.Cut(out, ":4\n") // no files
		if got = strings.Join(strings.Fields(got), " "); err != nil || got != want {
			t.Errorf("minato %s: %v, completes %q, want %q", line, err, got, want)
		}
	}
}

func TestCompletionIsSilentWhereNobodyAnswers(t *testing.T) {
	out, err := execute("__complete", "node", "kill", "--name", "not-there", "")
	if err != nil || !strings.HasPrefix(out, ":4\n") {
		t.Errorf("%v, %q", err, out)
	}
}

func TestViewsOfShowAreCompleted(t *testing.T) {
	if out, err := execute("__complete", "show", "front"); err != nil || !strings.HasPrefix(out, "frontends\n") {
		t.Errorf("%v, %q", err, out)
	}
}
