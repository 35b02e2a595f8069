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
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/yaml"

	"minato/internal/dns"
	"minato/internal/explain"
	"minato/internal/model"
	"minato/internal/source"
	"minato/internal/source/file"
	"minato/internal/source/kube"
)

var update = flag.Bool("update", false, "write what comes out into the scripts")

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
		Snapshot: b.Current(), Names: table.View(), ServiceCIDRs: []netip.Prefix{netip.MustParsePrefix("10.96.0.0/12")},
		Unrouted: []netip.Prefix{netip.MustParsePrefix("10.96.0.0/12"), netip.MustParsePrefix("10.244.0.0/16")},
		Front:    model.ServiceName{Namespace: "kube-system", Name: "minato-ingress"},
		Except:   map[model.ServiceName]bool{{Namespace: "kube-system", Name: "kube-dns"}: true},
		Pods:     podsOf(t, data),
	}
}

// pods are those of a world.yaml, in the place of the API.
type pods []model.Pod

func podsOf(t testing.TB, data []byte) (all pods) {
	t.Helper()
	for doc := range bytes.SplitSeq(data, []byte("\n---\n")) {
		var list struct{ Items []corev1.Pod }
		var one corev1.Pod
		if err := errors.Join(yaml.Unmarshal(doc, &list), yaml.Unmarshal(doc, &one)); err != nil {
			t.Fatal(err)
		}
		for _, p := range append(list.Items, one) {
			if p.Kind == "Pod" {
				if p.Namespace == "" {
					p.Namespace = "default"
				}
				all = append(all, kube.Pod(&p))
			}
		}
	}
	return all
}

func (p pods) find(is func(model.Pod) bool) (model.Pod, bool) {
	if i := slices.IndexFunc(p, is); i >= 0 {
		return p[i], true
	}
	return model.Pod{}, false
}

func (p pods) Pod(namespace, name string) (model.Pod, bool) {
	return p.find(func(o model.Pod) bool { return o.Namespace == namespace && o.Name == name })
}

func (p pods) At(a netip.Addr) (model.Pod, bool) {
	return p.find(func(o model.Pod) bool { return o.Addr == a && !o.HostNetwork })
}

func (p pods) In(namespace string) (in []model.Pod) {
	for _, o := range p {
		if o.Namespace == namespace {
			in = append(in, o)
		}
	}
	return in
}

func (p pods) Match(selector string) (fit []model.Pod) {
	for _, o := range p {
		if labels.SelectorFromSet(labelsOf(selector)).Matches(labels.Set(o.Labels)) {
			fit = append(fit, o)
		}
	}
	return fit
}

func labelsOf(selector string) labels.Set {
	set := labels.Set{}
	for r := range strings.SplitSeq(selector, ",") {
		k, v, _ := strings.Cut(r, "=")
		set[k] = v
	}
	return set
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
