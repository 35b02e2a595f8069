// Package upstream runs the unit tests of kube-proxy with probes in them and returns what they did: the objects they
// made, the packets they sent and what they expected.
//
// The tests are those of the module k8s.io/kubernetes that go.mod names. They are compiled as they stand, by way of a
// build overlay in which a call of a probe is written into the head of a few functions; nothing of them is kept here.
// A record counts only if upstream's own test passed with it.
//
// It judges nothing: package oracle compares.
package upstream

import (
	"embed"
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

//go:embed probes/*.go.txt
var probes embed.FS

// Suite is a package of upstream with what is written into it.
type Suite struct {
	Path   string            // below k8s.io/kubernetes
	Probes []string          // files of probes that become part of the package
	Calls  map[string]string // function or Type.method -> statement at its head
	Tests  string            // regular expression of the tests to run
}

// Run runs the tests of s and gives each record that a probe wrote to yield, as JSON. dir is for files that are not
// needed afterwards.
func Run(s Suite, dir string, yield func([]byte) error) error {
	source, err := moduleDir("k8s.io/kubernetes")
	if err != nil {
		return err
	}
	here, err := moduleDir("minato/test/oracle")
	if err != nil {
		return err
	}
	overlay, err := s.overlay(filepath.Join(source, s.Path), filepath.Join(here, "overlaid", s.Path), dir)
	if err != nil {
		return err
	}
	records := filepath.Join(dir, "records")
	binary := filepath.Join(dir, "upstream.test")
	build := exec.Command("go", "test", "-c", "-mod=mod", "-vet=off", "-overlay", overlay, "-o", binary, "minato/test/oracle/overlaid/"+s.Path)
	build.Dir = here
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("compile the tests of %s: %w\n%s", s.Path, err, out)
	}
	run := exec.Command(binary, "-test.run", s.Tests)
	run.Dir = dir
	run.Env = append(os.Environ(), "ORACLE_RECORDS="+records)
	if out, err := run.CombinedOutput(); err != nil {
		return fmt.Errorf("run the tests of %s: %w\n%s", s.Path, err, out)
	}
	data, err := os.ReadFile(records)
	if err != nil {
		return fmt.Errorf("no probe of %s was reached: %w", s.Path, err)
	}
	for line := range strings.Lines(string(data)) {
		if err := yield([]byte(line)); err != nil {
			return err
		}
	}
	return nil
}

func moduleDir(module string) (string, error) {
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", module).Output()
	if err != nil {
		return "", fmt.Errorf("find module %s: %w", module, err)
	}
	return strings.TrimSpace(string(out)), nil
}

// overlay makes the package at source appear at target, with the probes, and returns the overlay's file.
func (s Suite) overlay(source, target, dir string) (string, error) {
	replace := map[string]string{}
	files, err := filepath.Glob(filepath.Join(source, "*.go"))
	if err != nil {
		return "", err
	}
	left := map[string]bool{}
	for f := range s.Calls {
		left[f] = true
	}
	write := func(name string, content []byte) error {
		at := filepath.Join(dir, name)
		replace[filepath.Join(target, name)] = at
		return os.WriteFile(at, content, 0o644)
	}
	pkg := ""
	for _, f := range files {
		text, p, err := s.rewrite(f, left)
		if err != nil {
			return "", err
		}
		if !strings.HasSuffix(f, "_test.go") {
			pkg = p
		}
		if err := write(filepath.Base(f), text); err != nil {
			return "", err
		}
	}
	if len(left) > 0 {
		return "", fmt.Errorf("package %s has no functions %v any more", s.Path, left)
	}
	for _, p := range append([]string{"record.go.txt"}, s.Probes...) {
		text, err := probes.ReadFile("probes/" + p)
		if err != nil {
			return "", err
		}
		// A probe is no test file, because functions that are none call it.
		if err := write("oracle_"+strings.TrimSuffix(p, ".txt"), withPackage(text, pkg)); err != nil {
			return "", err
		}
	}
	b, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return "", err
	}
	at := filepath.Join(dir, "overlay.json")
	return at, os.WriteFile(at, b, 0o644)
}

func withPackage(text []byte, pkg string) []byte {
	return []byte(strings.Replace(string(text), "package probes", "package "+pkg, 1))
}

// rewrite writes the calls into a file's functions and takes them off left.
func (s Suite) rewrite(file string, left map[string]bool) (text []byte, pkg string, err error) {
	text, err = os.ReadFile(file)
	if err != nil {
		return nil, "", err
	}
	fset := token.NewFileSet()
	parsed, err := parser.ParseFile(fset, file, text, parser.SkipObjectResolution)
	if err != nil {
		return nil, "", err
	}
	decls := slices.Clone(parsed.Decls)
	slices.Reverse(decls) // from the end, so that offsets stay right
	for _, d := range decls {
		f, ok := d.(*ast.FuncDecl)
		if !ok || !left[funcName(f)] {
			continue
		}
		call := s.Calls[funcName(f)]
		delete(left, funcName(f))
		at := fset.Position(f.Body.Lbrace).Offset + 1
		text = slices.Insert(text, at, []byte(" "+call+";")...)
	}
	return text, parsed.Name.Name, nil
}

func funcName(f *ast.FuncDecl) string {
	if f.Recv == nil {
		return f.Name.Name
	}
	typ := f.Recv.List[0].Type
	if star, ok := typ.(*ast.StarExpr); ok {
		typ = star.X
	}
	if id, ok := typ.(*ast.Ident); ok {
		return id.Name + "." + f.Name.Name
	}
	return f.Name.Name
}
