package cli

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"minato/internal/explain"
)

var update = flag.Bool("update", false, "write the verbs into docs/cli.md anew")

// The part of docs/cli.md between these lines is made of the commands themselves.
const (
	cliPage   = "../../docs/cli.md"
	verbsFrom = "<!-- verbs: go test ./internal/cli -run Page -update -->\n"
	verbsTo   = "<!-- end of verbs -->\n"
)

func TestCLIPageHasExactlyTheVerbsAndFlags(t *testing.T) {
	b, err := os.ReadFile(cliPage)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, found := strings.Cut(string(b), verbsFrom)
	have, after, ended := strings.Cut(rest, verbsTo)
	if !found || !ended {
		t.Fatalf("%s lacks the line %q or %q", cliPage, verbsFrom, verbsTo)
	}
	want := verbsMarkdown(newRoot())
	if *update {
		if err := os.WriteFile(cliPage, []byte(before+verbsFrom+want+verbsTo+after), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(have, want); diff != "" {
		t.Errorf("%s differs from the commands (-page +commands); -update writes it anew:\n%s", cliPage, diff)
	}
}

// verbsMarkdown says every command that does something, with its flags.
func verbsMarkdown(root *cobra.Command) string {
	var b strings.Builder
	var walk func(*cobra.Command)
	walk = func(c *cobra.Command) {
		if c.Runnable() && !c.HasSubCommands() {
			fmt.Fprintf(&b, "\n### %s\n\n%s.\n", c.UseLine(), c.Short)
			if c.Long != "" {
				fmt.Fprintf(&b, "\n%s\n", c.Long)
			}
			b.WriteString(flagsMarkdown(c.LocalNonPersistentFlags()))
		}
		for _, sub := range c.Commands() {
			walk(sub)
		}
	}
	for _, c := range root.Commands() {
		walk(c)
	}
	fmt.Fprintf(&b, "\n### Flags of every verb\n%s\n", flagsMarkdown(root.PersistentFlags()))
	return b.String()
}

func flagsMarkdown(flags *pflag.FlagSet) string {
	var b strings.Builder
	flags.VisitAll(func(f *pflag.Flag) {
		if f.Name == "help" {
			return
		}
		if b.Len() == 0 {
			b.WriteString("\n| Flag | Meaning |\n|---|---|\n")
		}
		name := "--" + f.Name
		if f.Shorthand != "" {
			name = "-" + f.Shorthand + ", " + name
		}
		kind, usage := pflag.UnquoteUsage(f)
		if kind != "" {
			name += " " + kind
		}
		if f.DefValue != "" && f.DefValue != "false" && f.DefValue != "0" && f.DefValue != "[]" {
			usage += fmt.Sprintf(" (default `%s`)", f.DefValue)
		}
		fmt.Fprintf(&b, "| `%s` | %s |\n", name, usage)
	})
	return b.String()
}

func TestCLIPageHasExactlyTheExitCodes(t *testing.T) {
	b, err := os.ReadFile(cliPage)
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(b), "| Exit code | |\n|---|---|\n")
	table, _, _ := strings.Cut(rest, "\n\n")
	said := map[int]string{}
	for row := range strings.Lines(table) {
		var code int
		if _, err := fmt.Sscanf(row, "| %d |", &code); err != nil {
			t.Fatalf("row %q: %v", row, err)
		}
		said[code] = row
	}
	want := map[int]string{0: "done", exitFailed: "failed", exitUsage: "command line"}
	for _, v := range []explain.Verdict{explain.Delivered, explain.Refused, explain.Dropped, explain.NoSuchName} {
		want[v.ExitCode()] = "`explain`: " + string(v)
	}
	if len(said) != len(want) {
		t.Errorf("the table has %d codes, want %d", len(said), len(want))
	}
	for code, words := range want {
		if !strings.Contains(said[code], words) {
			t.Errorf("code %d is %q, want %q in it", code, said[code], words)
		}
	}
}
