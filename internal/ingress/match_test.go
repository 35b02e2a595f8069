package ingress

import (
	"strings"
	"testing"

	"minato/internal/model"
)

// TestPathsOfTheDocumentation is the table of kubernetes.io/docs/concepts/services-networking/ingress, "Examples".
func TestPathsOfTheDocumentation(t *testing.T) {
	for _, c := range []struct {
		paths   string // TYPE PATH, ...
		request string
		want    string // the path that matches, or default
	}{
		{"Prefix /", "/any/path", "Prefix /"},
		{"Prefix /", "/", "Prefix /"},
		{"Exact /foo", "/foo", "Exact /foo"},
		{"Exact /foo", "/bar", "default"},
		{"Exact /foo", "/foo/", "default"},
		{"Exact /foo/", "/foo", "default"},
		{"Prefix /foo", "/foo", "Prefix /foo"},
		{"Prefix /foo", "/foo/", "Prefix /foo"},
		{"Prefix /foo/", "/foo", "Prefix /foo/"},
		{"Prefix /foo/", "/foo/", "Prefix /foo/"},
		{"Prefix /aaa/bb", "/aaa/bbb", "default"},
		{"Prefix /aaa/bbb", "/aaa/bbb", "Prefix /aaa/bbb"},
		{"Prefix /aaa/bbb/", "/aaa/bbb", "Prefix /aaa/bbb/"},
		{"Prefix /aaa/bbb", "/aaa/bbb/", "Prefix /aaa/bbb"},
		{"Prefix /aaa/bbb", "/aaa/bbb/ccc", "Prefix /aaa/bbb"},
		{"Prefix /aaa/bbb", "/aaa/bbbxyz", "default"},
		{"Prefix /, Prefix /aaa", "/aaa/ccc", "Prefix /aaa"},
		{"Prefix /, Prefix /aaa, Prefix /aaa/bbb", "/aaa/bbb", "Prefix /aaa/bbb"},
		{"Prefix /, Prefix /aaa, Prefix /aaa/bbb", "/ccc", "Prefix /"},
		{"Prefix /aaa", "/ccc", "default"},
		{"Prefix /foo, Exact /foo", "/foo", "Exact /foo"},
		// Beyond the table: case, and requests that are written otherwise.
		{"Exact /foo", "/FOO", "default"},
		{"Prefix /foo", "/Foo/x", "default"},
		{"Exact /foo/", "/foo/", "Exact /foo/"},
		{"Exact /", "/", "Exact /"},
		{"Prefix /foo, Exact /foo", "/foo/", "Prefix /foo"},
		{"Prefix /foo", "/x/../foo/./y", "Prefix /foo"},
		{"Prefix /foo", "/foo/../bar", "default"},
		{"Prefix /foo/bar", "//foo///bar", "Prefix /foo/bar"},
		{"Exact /a b", "/a%20b", "Exact /a b"},
		{"Exact /%E6%B8%AF", "/港", "Exact /%E6%B8%AF"},
		{"Exact /100%", "/100%25", "Exact /100%"},
	} {
		i := newIngress(t, "a", "default default")
		i.Rules = []model.IngressRule{{Host: "example.com"}}
		for _, p := range strings.Split(c.paths, ", ") {
			kind, path, _ := strings.Cut(p, " ")
			typ := map[string]model.PathType{"Prefix": model.PathPrefix, "Exact": model.PathExact}[kind]
			i.Rules[0].Paths = append(i.Rules[0].Paths, model.IngressPath{Path: path, Type: typ, Backend: port80(p)})
		}
		if got := service(New(snapshot(i)), "example.com", c.request); got != c.want {
			t.Errorf("%s: request %s goes to %s, want %s", c.paths, c.request, got, c.want)
		}
	}
}

// TestHosts has the rows of "Hostname wildcards" of the same page, and what its conformance suite asks.
func TestHosts(t *testing.T) {
	p := New(snapshot(
		newIngress(t, "a", "www.foo.com Prefix / exact", "*.foo.com Prefix / wildcard", "only.foo.com Prefix /path path"),
		newIngress(t, "b", "(any) Prefix / any"),
	))
	for _, c := range []struct{ host, want string }{
		{"bar.foo.com", "wildcard"},
		{"baz.bar.foo.com", "any"},
		{"foo.com", "any"},
		{"www.foo.com", "exact"},
		{"WWW.Foo.Com", "exact"},
		{"www.foo.com:8080", "exact"},
		{"www.foo.com.", "exact"},
		{"only.foo.com", "404"}, // never falls through to the wildcard or to rules without a host
		{".foo.com", "any"},
		{"*.foo.com", "wildcard"}, // one label like any other
		{"192.0.2.1", "any"},
		{"[2001:db8::1]:80", "any"},
		{"", "any"},
	} {
		if got := service(p, c.host, "/"); got != c.want {
			t.Errorf("host %q goes to %s, want %s", c.host, got, c.want)
		}
	}
}

func TestDefaultBackends(t *testing.T) {
	own := newIngress(t, "a", "own.example.com Prefix /x x", "default own")
	rest := newIngress(t, "b", "default rest")
	bare := newIngress(t, "c", "bare.example.com", "default bare")
	for _, c := range []struct {
		name       string
		all        []*model.Ingress
		host, want string
	}{
		{"of the Ingress whose host it is", []*model.Ingress{own, rest}, "own.example.com", "own"},
		{"not for other hosts", []*model.Ingress{own}, "other.example.com", "404"},
		{"of an Ingress without rules, for hosts of no other", []*model.Ingress{own, rest}, "other.example.com", "rest"},
		{"a rule without paths is all of its host", []*model.Ingress{bare}, "bare.example.com", "bare"},
		{"none at all", []*model.Ingress{newIngress(t, "a", "own.example.com Prefix /x x"), rest}, "own.example.com", "404"},
	} {
		if got := service(New(snapshot(c.all...)), c.host, "/"); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}

func TestTheOlderIngressHasAHostAndPath(t *testing.T) {
	older := newIngress(t, "a", "x.example.com Prefix /p older")
	newer := newIngress(t, "b", "x.example.com Prefix /p/ newer", "x.example.com Exact /p exact", "x.example.com Prefix /q newer")
	for _, all := range [][]*model.Ingress{{older, newer}, {newer, older}} {
		p := New(snapshot(all[0]))
		p = p.Next(snapshot(all...))
		if got := service(p, "x.example.com", "/p/x") + service(p, "x.example.com", "/p") + service(p, "x.example.com", "/q"); got != "olderexactnewer" {
			t.Errorf("paths go to %s", got)
		}
		want := `choose another host or path: prefix path "/p/" of host x.example.com belongs to the older Ingress default/a`
		if got := problems(p, "b"); got != want {
			t.Errorf("the newer one is told %q", got)
		}
		if got := problems(p, "a"); got != "" {
			t.Errorf("the older one is told %q", got)
		}
		if got := service(p.Next(snapshot(newer)), "x.example.com", "/p/x"); got != "newer" {
			t.Errorf("when the older one is gone: %s", got)
		}
	}
}

func TestOtherClassesAreLeftAlone(t *testing.T) {
	i := newIngress(t, "a", "x.example.com Prefix / theirs")
	i.Served, i.Class = false, "nginx"
	p := New(snapshot(i))
	if got := service(p, "x.example.com", "/"); got != "404" || !p.Empty() {
		t.Errorf("%s, empty %t", got, p.Empty())
	}
	e := p.Explain("x.example.com", "/", false)
	if len(e.Advice) != 1 || !strings.Contains(e.Advice[0], `class is "nginx"`) {
		t.Errorf("advice %q", e.Advice)
	}
}

func TestAmbiguousPathsAreRefused(t *testing.T) {
	for _, path := range []string{
		"/a%2fb", "/a%2Fb", "/a%5cb", "/a%00b", "/..", "/a/../../b", "/%2e%2e", "/a/%2e%2e/%2E./b", "/a/..;/b", "/a/.;x=1/b", "/a/%2e%2e;/b",
		"a", "*", "/%zz", "/%", "/a\\b", "/a\x00b",
	} {
		if p, err := ParsePath(path); err == nil {
			t.Errorf("%q is taken for %+v", path, p)
		}
	}
}

func TestMatchedAndForwardedPathsAreOne(t *testing.T) {
	for _, c := range []struct{ in, decoded, escaped string }{
		{"/", "/", "/"},
		{"/a/b", "/a/b", "/a/b"},
		{"/a/", "/a/", "/a/"},
		{"/a//b", "/a/b", "/a/b"},
		{"//", "/", "/"},
		{"/a/./b/.", "/a/b/", "/a/b/"},
		{"/a/b/..", "/a/", "/a/"},
		{"/a/b/../", "/a/", "/a/"},
		{"/a/%2e%2E/b", "/b", "/b"},
		{"/a%20b/%41", "/a b/A", "/a%20b/%41"},
		{"/a;v=1/b", "/a;v=1/b", "/a;v=1/b"},
		{"/.well-known/x", "/.well-known/x", "/.well-known/x"},
		{"/...", "/...", "/..."},
		{"/%3F%23", "/?#", "/%3F%23"},
	} {
		p, err := ParsePath(c.in)
		if err != nil || p.Decoded != c.decoded || p.Escaped != c.escaped {
			t.Errorf("%s: %+v %v, want %s and %s", c.in, p, err, c.decoded, c.escaped)
		}
	}
}

func FuzzParsePath(f *testing.F) {
	for _, s := range []string{"/", "/a/../b", "/a%2eb//c/.", "/%2e%2e", "/a/..;x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p, err := ParsePath(s)
		if err != nil {
			return
		}
		again, err := ParsePath(p.Escaped)
		if err != nil || again != p {
			t.Errorf("%q is %+v, which is %+v %v", s, p, again, err)
		}
		if !strings.HasPrefix(p.Decoded, "/") || strings.Contains(p.Decoded, "//") || strings.Contains(p.Decoded+"/", "/../") || strings.Contains(p.Decoded+"/", "/./") {
			t.Errorf("%q is %q", s, p.Decoded)
		}
		if strings.Count(p.Decoded, "/") != strings.Count(p.Escaped, "/") {
			t.Errorf("%q has other elements in %q than in %q", s, p.Decoded, p.Escaped)
		}
	})
}
