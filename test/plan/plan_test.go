// Package plan_test runs scripts from YAML to plans: what one node programs and what names resolve to, for the
// objects of a manifest. It needs no kernel and no API server, and checks nothing but text.
package plan_test

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"

	"minato/internal/dataplane/nftables"
	"minato/internal/dns"
	"minato/internal/model"
	"minato/internal/source"
	"minato/internal/source/file"
)

var update = flag.Bool("update", false, "write what comes out into the scripts")

// TestScripts runs testdata/*.txtar, one behaviour each. in.yaml holds the objects, beside three nodes; a file named
// "nftables NODE" holds the plan of that node, and "dns" the records.
func TestScripts(t *testing.T) {
	scripts, err := filepath.Glob("testdata/*.txtar")
	if err != nil {
		t.Fatal(err)
	}
	if len(scripts) < 12 {
		t.Fatalf("found only %d scripts", len(scripts))
	}
	for _, script := range scripts {
		t.Run(strings.TrimSuffix(filepath.Base(script), ".txtar"), func(t *testing.T) { runScript(t, script) })
	}
}

func runScript(t *testing.T, script string) {
	a, err := txtar.ParseFile(script)
	if err != nil {
		t.Fatal(err)
	}
	nodes, err := os.ReadFile("testdata/nodes.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var objects file.Objects
	if err := objects.Parse("nodes.yaml", nodes); err != nil {
		t.Fatal(err)
	}
	b := source.NewBuilder()
	plans := 0
	for i, f := range a.Files {
		if f.Name == "in.yaml" {
			if err := objects.Parse(f.Name, f.Data); err != nil {
				t.Fatal(err)
			}
			objects.Fill(b)
			continue
		}
		plans++
		got := plan(t, b.Current(), f.Name)
		if d := cmp.Diff(string(f.Data), got); d != "" && !*update {
			t.Errorf("%s differs (-want +got; go test -update writes it anew):\n%s", f.Name, d)
		}
		a.Files[i].Data = []byte(got)
	}
	if plans == 0 || !b.Current().Complete {
		t.Fatal("the script has no plan, or no in.yaml before it")
	}
	if *update {
		if err := os.WriteFile(script, txtar.Format(a), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// plan prints one plan of a snapshot. The Service kube-dns is answered on the node itself, as it is in a cluster.
func plan(t *testing.T, s *model.Snapshot, what string) string {
	var got bytes.Buffer
	var err error
	if name, ok := strings.CutPrefix(what, "nftables "); ok {
		n := s.NodeNamed(name)
		if n == nil {
			t.Fatalf("there is no node %s", name)
		}
		err = nftables.New(s.On(n), map[model.ServiceName]bool{{Namespace: "kube-system", Name: "kube-dns"}: true}).WriteText(&got)
	} else if what == "dns" {
		err = records(t, s, &got)
	} else {
		err = fmt.Errorf("%q is no plan", what)
	}
	if err != nil {
		t.Fatal(err)
	}
	return got.String()
}

func records(t *testing.T, s *model.Snapshot, w *bytes.Buffer) error {
	table, err := dns.NewTable(dns.Zone{Domain: "cluster.local"})
	if err != nil {
		return err
	}
	if err := table.Publish(t.Context(), s, nil); err != nil {
		return err
	}
	return table.WriteText(w)
}
