package file_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"minato/internal/model"
	"minato/internal/source"
	"minato/internal/source/file"
)

const service = `apiVersion: v1
kind: Service
metadata: {name: web}
spec: {clusterIP: 10.96.0.20, ports: [{port: 80}]}
`

func TestErrorsNameFileDocumentAndField(t *testing.T) {
	for _, c := range []struct{ name, data, want string }{
		{"unknown field", service + "---\napiVersion: v1\nkind: Service\nmetadata: {name: db, namespace: shop}\nspec: {clusterIp: None}\n",
			`web.yaml, document 2 (Service shop/db): unknown field "spec.clusterIp"`},
		{"unknown field deep inside", "apiVersion: v1\nkind: Service\nmetadata: {name: db}\nspec: {ports: [{port: 80, node: 1}]}\n",
			`web.yaml, document 1 (Service db): unknown field "spec.ports[0].node"`},
		{"wrong type", "apiVersion: v1\nkind: Service\nmetadata: {name: db}\nspec: {ports: [{port: eighty}]}\n",
			`web.yaml, document 1 (Service db): json: cannot unmarshal string into Go struct field ServicePort.spec.ports.port of type int32`},
		{"no kind", "apiVersion: v1\nmetadata: {name: db}\n",
			`web.yaml, document 1 (db): apiVersion and kind must be given`},
		{"inside a List", "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: Service, metadata: {name: db}, spec: {nothing: 1}}\n",
			`web.yaml, document 1 (Service db): unknown field "spec.nothing"`},
		{"the same key twice", "apiVersion: v1\nkind: Service\nkind: Node\n",
			"web.yaml, document 1: yaml: unmarshal errors:\n  line 3: key \"kind\" already set in map"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var o file.Objects
			err := o.Parse("web.yaml", []byte(c.data))
			var where *file.Error
			if !errors.As(err, &where) || err.Error() != c.want {
				t.Errorf("got  %v\nwant %s", err, c.want)
			}
		})
	}
}

func TestOtherKindsAreSkippedAndReported(t *testing.T) {
	var o file.Objects
	data := service + "---\napiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec: {anything: goes}\n---\n# only a comment\n---\n"
	if err := o.Parse("web.yaml", []byte(data)); err != nil {
		t.Fatal(err)
	}
	if want := []string{"Deployment web"}; !slices.Equal(o.Skipped, want) {
		t.Errorf("skipped %v, want %v", o.Skipped, want)
	}
}

func TestLoadReplacesWhatWasThere(t *testing.T) {
	dir := t.TempDir()
	write := func(name, data string) string {
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
		return p
	}
	b := source.NewBuilder()
	first := write("a.json", `{"apiVersion":"v1","kind":"Service","metadata":{"name":"old","namespace":"shop"},"spec":{"clusterIP":"10.96.0.1","ports":[{"port":80}]}}`)
	if _, err := file.Load(b, first); err != nil {
		t.Fatal(err)
	}
	if s := b.Current(); !s.Complete || s.Len() != 1 || !s.HasNamespace("shop") {
		t.Fatalf("complete %t, %d Services", s.Complete, s.Len())
	}
	if _, err := file.Load(b, write("b.yaml", service)); err != nil {
		t.Fatal(err)
	}
	s := b.Current()
	if s.Len() != 1 || s.Service(model.ServiceName{Namespace: "default", Name: "web"}) == nil || s.HasNamespace("shop") {
		t.Errorf("%d Services after the second file", s.Len())
	}
	if _, err := file.Load(b, filepath.Join(dir, "none.yaml")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing file gave %v", err)
	}
	if b.Current() != s {
		t.Error("an error changed the snapshot")
	}
}
