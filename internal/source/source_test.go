package source_test

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"

	"minato/internal/source"
	"minato/internal/source/file"
)

var update = flag.Bool("update", false, "write what comes out into the scripts")

// TestScripts runs testdata/*.txtar, one behaviour each. Files ending in .yaml are applied one after the other, in
// the order of the script: each is the whole world from then on. The file NAME.txt behind NAME.yaml is the
// snapshot that comes of it.
func TestScripts(t *testing.T) {
	scripts, err := filepath.Glob("testdata/*.txtar")
	if err != nil {
		t.Fatal(err)
	}
	if len(scripts) < 20 {
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
	want := map[string]string{}
	for _, f := range a.Files {
		want[f.Name] = string(f.Data)
	}
	b := source.NewBuilder()
	out := txtar.Archive{Comment: a.Comment}
	steps := 0
	for _, f := range a.Files {
		name, ok := strings.CutSuffix(f.Name, ".yaml")
		if !ok {
			continue
		}
		steps++
		var objects file.Objects
		if err := objects.Parse(f.Name, f.Data); err != nil {
			t.Fatal(err)
		}
		objects.Fill(b)
		var got bytes.Buffer
		if err := b.Current().WriteText(&got); err != nil {
			t.Fatal(err)
		}
		out.Files = append(out.Files, f, txtar.File{Name: name + ".txt", Data: got.Bytes()})
		if d := cmp.Diff(want[name+".txt"], got.String()); d != "" && !*update {
			t.Errorf("%s.txt differs (-want +got; go test -update writes it anew):\n%s", name, d)
		}
	}
	if steps == 0 {
		t.Fatal("the script has no .yaml")
	}
	if *update {
		if err := os.WriteFile(script, txtar.Format(&out), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}
