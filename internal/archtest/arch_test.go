package archtest

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "minato/"

// source is one Go file of the module that is not a test.
type source struct {
	pkg     string // folder below the module's root
	file    string
	ast     *ast.File
	imports []string
}

func sources(t *testing.T) []source {
	t.Helper()
	root := "../.."
	var all []source
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(root, p)
		if d.IsDir() {
			if _, err := os.Stat(filepath.Join(p, "go.mod")); (err == nil && rel != ".") || d.Name() == "testdata" || (strings.HasPrefix(d.Name(), ".") && rel != ".") {
				return fs.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(p, ".go") || strings.HasSuffix(p, "_test.go") {
			return nil
		}
		f, err := parser.ParseFile(token.NewFileSet(), p, nil, parser.ParseComments)
		if err != nil {
			return err
		}
		s := source{pkg: filepath.ToSlash(filepath.Dir(rel)), file: rel, ast: f}
		for _, im := range f.Imports {
			v, err := strconv.Unquote(im.Path.Value)
			if err != nil {
				return err
			}
			s.imports = append(s.imports, v)
		}
		all = append(all, s)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(all) < 20 {
		t.Fatalf("found only %d files: the walk is broken", len(all))
	}
	return all
}

// within reports whether pkg is one of the folders or lies below one.
func within(pkg string, folders ...string) bool {
	return slices.ContainsFunc(folders, func(f string) bool { return pkg == f || strings.HasPrefix(pkg, f+"/") })
}

func std(imp string) bool {
	first, _, _ := strings.Cut(imp, "/")
	return !strings.Contains(first, ".") && first != "minato"
}

// plans are the packages that compute what is wanted. They must be pure.
var plans = []string{
	"internal/dataplane/nftables", "internal/dns", "internal/announce", "internal/ingress", "internal/health",
	"internal/ipam", "internal/explain", "internal/flows",
}

func isPlan(pkg string) bool { return slices.Contains(plans, pkg) }

// rules forbid imports. Each one says why.
var rules = []struct {
	name   string
	why    string
	breaks func(s source, imp string) bool
}{
	{
		"model imports the standard library only",
		"everything depends on the model; what it imports, everything imports",
		func(s source, imp string) bool { return within(s.pkg, "internal/model") && !std(imp) },
	},
	{
		"model and plans do no I/O",
		"a plan is a function of a snapshot: that is what makes it testable, explainable and repeatable",
		func(s source, imp string) bool {
			return (within(s.pkg, "internal/model") || isPlan(s.pkg)) &&
				slices.Contains([]string{"net", "os", "os/exec", "syscall", "net/http", "log/slog", "golang.org/x/sys/unix", "github.com/vishvananda/netlink"}, imp)
		},
	},
	{
		"a plan imports no other plan",
		"consumers are independent: one can be taken out or put in without the others (explain reads them all)",
		func(s source, imp string) bool {
			return isPlan(s.pkg) && s.pkg != "internal/explain" && isPlan(strings.TrimPrefix(imp, module))
		},
	},
	{
		"k8s.io only in source, statuswriter, cluster and the kubectl verb",
		"Kubernetes types end where the model begins",
		func(s source, imp string) bool {
			return strings.HasPrefix(imp, "k8s.io/") &&
				!within(s.pkg, "internal/source", "internal/statuswriter", "internal/cluster", "internal/cli/kubectl", "test", "bench")
		},
	},
	{
		"k8s.io/kubernetes only in cluster and the kubectl verb",
		"it is not a supported library: it is pinned, and fenced in",
		func(s source, imp string) bool {
			return strings.HasPrefix(imp, "k8s.io/kubernetes/") && !within(s.pkg, "internal/cluster", "internal/cli/kubectl")
		},
	},
	{
		"only run and cmd wire things together",
		"one file shows what is connected to what",
		func(s source, imp string) bool {
			return imp == module+"internal/run" && !within(s.pkg, "cmd", "internal/cli")
		},
	},
	{
		"cluster knows nothing of the data path",
		"minato-agent runs the same data path without the embedded cluster",
		func(s source, imp string) bool {
			return within(s.pkg, "internal/cluster") && within(strings.TrimPrefix(imp, module),
				"internal/dataplane", "internal/dns", "internal/announce", "internal/ingress", "internal/apply", "internal/explain", "internal/source")
		},
	},
	{
		"the data path knows nothing of the embedded cluster",
		"minato-agent runs the same data path without the embedded cluster",
		func(s source, imp string) bool {
			return within(s.pkg, "internal/model", "internal/source", "internal/apply", "internal/dataplane", "internal/dns",
				"internal/announce", "internal/ingress", "internal/health", "internal/explain", "internal/status") &&
				within(strings.TrimPrefix(imp, module), "internal/cluster", "internal/instance", "internal/run", "internal/cli")
		},
	},
}

func TestImportRules(t *testing.T) {
	all := sources(t)
	for _, r := range rules {
		t.Run(r.name, func(t *testing.T) {
			for _, s := range all {
				for _, imp := range s.imports {
					if r.breaks(s, imp) {
						t.Errorf("%s imports %s: %s", s.file, imp, r.why)
					}
				}
			}
		})
	}
}

func TestAgentLinksNoKubernetesAndNoStore(t *testing.T) {
	imports := map[string][]string{}
	for _, s := range sources(t) {
		imports[s.pkg] = append(imports[s.pkg], s.imports...)
	}
	seen := map[string]bool{}
	var visit func(pkg string)
	visit = func(pkg string) {
		if seen[pkg] {
			return
		}
		seen[pkg] = true
		for _, imp := range imports[pkg] {
			if strings.HasPrefix(imp, "k8s.io/kubernetes/") || strings.HasPrefix(imp, "go.etcd.io/etcd/server/") {
				t.Errorf("minato-agent links %s by way of %s: it is for every node of a cluster, and small", imp, pkg)
			}
			if own, ok := strings.CutPrefix(imp, module); ok {
				visit(own)
			}
		}
	}
	visit("cmd/minato-agent")
	if !seen["internal/dataplane/nftables/kernel"] || !seen["internal/source/kube"] {
		t.Error("minato-agent has no data path: the walk is broken")
	}
}

func TestPlansReadNoClock(t *testing.T) {
	for _, s := range sources(t) {
		if !within(s.pkg, "internal/model") && !isPlan(s.pkg) {
			continue
		}
		ast.Inspect(s.ast, func(n ast.Node) bool {
			sel, ok := n.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			if x, ok := sel.X.(*ast.Ident); ok && x.Name == "time" && (sel.Sel.Name == "Now" || sel.Sel.Name == "Since") {
				t.Errorf("%s calls time.%s: a plan must give the same answer at any time", s.file, sel.Sel.Name)
			}
			return true
		})
	}
}

func TestNoInitFunctions(t *testing.T) {
	for _, s := range sources(t) {
		for _, d := range s.ast.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && f.Recv == nil && f.Name.Name == "init" {
				t.Errorf("%s has an init function: what runs is what internal/run calls", s.file)
			}
		}
	}
}

func TestEveryPackageSaysWhatItIs(t *testing.T) {
	documented := map[string]bool{}
	for _, s := range sources(t) {
		doc := s.ast.Doc.Text()
		documented[s.pkg] = documented[s.pkg] || strings.HasPrefix(doc, "Package "+path.Base(s.pkg)) || strings.HasPrefix(doc, "Command ") ||
			(s.ast.Name.Name != path.Base(s.pkg) && strings.HasPrefix(doc, "Package "+s.ast.Name.Name))
	}
	for pkg, ok := range documented {
		if !ok {
			t.Errorf("package %s has no doc comment: say what it is, and what it does not do", pkg)
		}
	}
}

func TestMainIsShort(t *testing.T) {
	b, err := os.ReadFile("../../cmd/minato/main.go")
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(b), "\n"); n > 40 {
		t.Errorf("cmd/minato/main.go has %d lines, at most 40: a verb belongs in internal/cli", n)
	}
}

func TestFilesAreReadable(t *testing.T) {
	for _, s := range sources(t) {
		b, err := os.ReadFile(filepath.Join("../..", s.file))
		if err != nil {
			t.Fatal(err)
		}
		if n := strings.Count(string(b), "\n"); n > 500 {
			t.Errorf("%s has %d lines: the design wants another noun", s.file, n)
		}
	}
}
