package explain_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"

	"minato/internal/dns"
	"minato/internal/explain"
	"minato/internal/model"
	"minato/internal/source"
	"minato/internal/source/file"
)

var update = flag.Bool("update", false, "write what comes out into the scripts")

// names asks the DNS plan, as `minato explain` does.
type names struct{ view dns.View }

func (n names) Resolve(name string) explain.Resolved { return explain.Resolved(n.view.Resolve(name)) }

// world reads objects. Pod default/client is on node1 and behind no Service.
func world(t testing.TB, data []byte) explain.World {
	t.Helper()
	var objects file.Objects
	if err := objects.Parse("world.yaml", data); err != nil {
		t.Fatal(err)
	}
	b := source.NewBuilder()
	objects.Fill(b)
	table, err := dns.NewTable(dns.Zone{Domain: "cluster.local"})
	if err != nil {
		t.Fatal(err)
	}
	if err := table.Publish(t.Context(), b.Current(), nil); err != nil {
		t.Fatal(err)
	}
	return explain.World{
		Snapshot: b.Current(), Names: names{table.View()}, ServiceCIDRs: []netip.Prefix{netip.MustParsePrefix("10.96.0.0/12")},
		Except: map[model.ServiceName]bool{{Namespace: "kube-system", Name: "kube-dns"}: true},
		Pods: func(namespace, name string) (explain.Pod, bool) {
			switch namespace + "/" + name {
			case "default/client":
				return explain.Pod{Addr: netip.MustParseAddr("10.244.1.99"), Node: "node1"}, true
			case "default/web-a":
				return explain.Pod{Addr: netip.MustParseAddr("10.244.1.5"), Node: "node1"}, true
			case "shop/client":
				return explain.Pod{Addr: netip.MustParseAddr("10.244.2.99"), Node: "node2"}, true
			case "default/pending":
				return explain.Pod{}, true
			case "kube-system/agent":
				return explain.Pod{Addr: netip.MustParseAddr("172.30.0.12"), Node: "node2", HostNetwork: true}, true
			}
			return explain.Pod{}, false
		},
	}
}

// TestScripts runs testdata/*.txtar, one behaviour each: every file whose name starts with "minato explain" holds
// what that command prints, and its exit code. The objects are those of testdata/world.yaml and of world.yaml in
// the script.
func TestScripts(t *testing.T) {
	scripts, err := filepath.Glob("testdata/*.txtar")
	if err != nil {
		t.Fatal(err)
	}
	if len(scripts) < 20 {
		t.Fatalf("found only %d scripts", len(scripts))
	}
	common, err := os.ReadFile("testdata/world.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, script := range scripts {
		t.Run(strings.TrimSuffix(filepath.Base(script), ".txtar"), func(t *testing.T) { runScript(t, script, common) })
	}
}

func runScript(t *testing.T, script string, objects []byte) {
	a, err := txtar.ParseFile(script)
	if err != nil {
		t.Fatal(err)
	}
	commands := 0
	for i, f := range a.Files {
		if f.Name == "world.yaml" {
			objects = bytes.Join([][]byte{objects, f.Data}, []byte("---\n"))
			continue
		}
		args, ok := strings.CutPrefix(f.Name, "minato explain ")
		if !ok {
			t.Fatalf("file %q is no command", f.Name)
		}
		commands++
		got := command(t, world(t, objects), strings.Fields(args))
		if d := cmp.Diff(string(f.Data), got); d != "" && !*update {
			t.Errorf("%s differs (-want +got; go test -update writes it anew):\n%s", f.Name, d)
		}
		a.Files[i].Data = []byte(got)
	}
	if commands == 0 {
		t.Fatal("the script has no command")
	}
	if *update {
		if err := os.WriteFile(script, txtar.Format(a), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func command(t *testing.T, w explain.World, args []string) string {
	q := explain.Query{To: args[0]}
	for i := 1; i+1 < len(args); i += 2 {
		switch args[i] {
		case "--from":
			q.From = args[i+1]
		case "--protocol":
			q.Protocol = args[i+1]
		case "-n":
			q.Namespace = args[i+1]
		default:
			t.Fatalf("no flag %s", args[i])
		}
	}
	r, err := explain.Explain(w, q)
	if err != nil {
		if !errors.Is(err, explain.ErrQuestion) {
			t.Errorf("%v is no ErrQuestion", err)
		}
		return "error: " + err.Error() + "\n"
	}
	var b bytes.Buffer
	if err := r.WriteText(&b); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(&b, "exit %d\n", r.Verdict.ExitCode())
	return b.String()
}

func TestResultAsJSON(t *testing.T) {
	objects, err := os.ReadFile("testdata/world.yaml")
	if err != nil {
		t.Fatal(err)
	}
	r, err := explain.Explain(world(t, objects), explain.Query{To: "web:80", From: "pod/default/client"})
	if err != nil {
		t.Fatal(err)
	}
	got, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	got = append(got, '\n')
	if *update {
		if err := os.WriteFile("testdata/web.json", got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile("testdata/web.json")
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), string(got)); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}
