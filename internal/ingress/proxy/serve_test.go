package proxy

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"minato/internal/model"
)

func TestRequestsGoByHostAndPath(t *testing.T) {
	w := start(t, nil)
	i := w.serve("x.example.com", saying(t, "root"))
	w.serve("y.example.com", saying(t, "other"))
	w.edit(func(e *model.Edit) { e.SetService(newService("api", saying(t, "api"))) })
	w.change(i, func(i *model.Ingress) {
		i.Rules = append(i.Rules, model.IngressRule{Host: "x.example.com", Paths: []model.IngressPath{
			{Path: "/api", Backend: model.IngressBackend{Service: "api", Port: 80}},
		}})
	})
	for url, want := range map[string]string{
		"http://x.example.com/":                "200 root",
		"http://x.example.com/api/v1":          "200 api",
		"http://x.example.com/apis":            "200 root",
		"http://x.example.com/z/../api":        "200 api",
		"http://Y.example.com./":               "200 other",
		"http://z.example.com/":                "404 404 Not Found\nNo Ingress has a rule for this host and path.\n",
		"http://x.example.com/a%2fb":           "400 400 Bad Request\nThe path is ambiguous: escaped slashes, backslashes and steps above the root are not served.\n",
		"https://x.example.com/api/?q=1;2&%zz": "200 api",
	} {
		if got := w.get(url); got != want {
			t.Errorf("%s: %q, want %q", url, got, want)
		}
	}
}

func TestTheBackendGetsTheSamePathThatWasMatched(t *testing.T) {
	w := start(t, nil)
	w.serve("x", backend(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.RequestURI) }))
	for sent, want := range map[string]string{
		"/a/../b//c/./d?x=/../y": "/b/c/d?x=/../y",
		"/a%20b/%E6%B8%AF":       "/a%20b/%E6%B8%AF",
		"/a?b=1;c=%zz&d=%2f":     "/a?b=1;c=%zz&d=%2f",
		"/a(b)'c'~!$&*+,=:@":     "/a(b)'c'~!$&*+,=:@",
		"http://x/abs":           "/abs",
		"http://x":               "/",
		"/?":                     "/?",
	} {
		got := w.raw("GET " + sent + " HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
		if !strings.HasSuffix(got, "\r\n\r\n"+want) {
			t.Errorf("%s arrives in\n%s\nwant %s", sent, got, want)
		}
	}
}

func TestErrorsOfBackends(t *testing.T) {
	w := start(t, func(c *Config) { c.Timeouts.Backend = 150 * time.Millisecond })
	release := make(chan struct{})
	w.serve("slow", backend(t, func(http.ResponseWriter, *http.Request) { <-release }))
	defer close(release)
	w.serve("none")
	w.serve("dead", nobody(t))
	w.serve("rubbish", rubbish(t, "SSH-2.0-OpenSSH\r\n\r\n"))
	for host, want := range map[string]string{
		"slow":    "504 504 Gateway Timeout\nThe backend did not answer in time.\n",
		"none":    "503 503 Service Unavailable\nThe Service behind this address has no backend that is ready.\n",
		"dead":    "502 502 Bad Gateway\nThe backend could not be reached, or its answer was not HTTP.\n",
		"rubbish": "502 502 Bad Gateway\nThe backend could not be reached, or its answer was not HTTP.\n",
	} {
		if got := w.get("http://" + host + "/"); got != want {
			t.Errorf("%s: %q", host, got)
		}
	}
}

// rubbish is a backend that answers everything with the same bytes and closes.
func rubbish(t *testing.T, answer string) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.Read(make([]byte, 4096))
			io.WriteString(c, answer)
			c.Close()
		}
	}()
	return l.Addr().String()
}

func TestABackendThatKeepsSendingIsNotCutOff(t *testing.T) {
	w := start(t, func(c *Config) { c.Timeouts.Backend = 200 * time.Millisecond })
	w.serve("x", backend(t, func(w http.ResponseWriter, _ *http.Request) {
		for range 8 {
			time.Sleep(50 * time.Millisecond)
			io.WriteString(w, ".")
			w.(http.Flusher).Flush()
		}
	}))
	if got := w.get("http://x/"); got != "200 ........" {
		t.Error(got)
	}
}

func TestRedirectToHTTPS(t *testing.T) {
	w := start(t, nil)
	i := w.serve("x.example.com", saying(t, "x"))
	i = w.change(i, func(i *model.Ingress) { i.TLS = []model.IngressTLS{{Hosts: []string{"x.example.com"}}} })
	res, err := w.client(false, nil).Post("http://x.example.com:80/a%20b/../c?d=/e", "text/plain", strings.NewReader("body"))
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	want := fmt.Sprintf("https://x.example.com:%d/a%%20b/../c?d=/e", w.cfg.Ports.HTTPS)
	if got := res.Header.Get("Location"); res.StatusCode != 308 || got != want {
		t.Errorf("%d to %s, want 308 to %s", res.StatusCode, got, want)
	}
	if got := w.get("https://x.example.com/"); got != "200 x" {
		t.Errorf("over HTTPS: %s", got)
	}
	w.change(i, func(i *model.Ingress) { i.Redirect = model.RedirectNever })
	if got := w.get("http://x.example.com/"); got != "200 x" {
		t.Errorf("where the annotation forbids it: %s", got)
	}
}

func TestMethodsThatAreNotServed(t *testing.T) {
	w := start(t, nil)
	var reached atomic.Int32
	w.serve("x", backend(t, func(http.ResponseWriter, *http.Request) { reached.Add(1) }))
	for _, request := range []string{
		"CONNECT x:80 HTTP/1.1\r\nHost: x:80\r\n\r\n",
		"TRACE / HTTP/1.1\r\nHost: x\r\n\r\n",
	} {
		if got := w.raw(request); !strings.HasPrefix(got, "HTTP/1.1 405 ") {
			t.Errorf("%q gives %q", request, got)
		}
	}
	if reached.Load() > 0 {
		t.Error("the backend was reached")
	}
}

func TestLimitOfBodies(t *testing.T) {
	w := start(t, nil)
	i := w.serve("x", backend(t, func(w http.ResponseWriter, r *http.Request) {
		n, err := io.Copy(io.Discard, r.Body)
		fmt.Fprintf(w, "%d %v", n, err)
	}))
	body := func(n int) io.Reader { return strings.NewReader(strings.Repeat("x", n)) }
	if got := do(t, w.client(false, nil), "POST", "http://x/", body(3<<20)); got != "200 3145728 <nil>" {
		t.Errorf("without a limit: %s", got)
	}
	w.change(i, func(i *model.Ingress) { i.MaxBody = 1000 })
	for name, c := range map[string]struct {
		body io.Reader
		want string
	}{
		"as allowed":         {body(1000), "200 1000 <nil>"},
		"too long":           {body(1001), "413 413 Request Entity Too Large\nThe request is larger than its Ingress allows.\n"},
		"too long, in parts": {io.MultiReader(body(600), body(600)), "413 413 Request Entity Too Large\nThe request is larger than its Ingress allows.\n"},
	} {
		if got := do(t, w.client(false, nil), "POST", "http://x/", c.body); got != c.want {
			t.Errorf("%s: %s", name, got)
		}
	}
}

func TestAClientThatStopsInABodyIsToldSo(t *testing.T) {
	w := start(t, func(c *Config) { c.Timeouts.Client = 100 * time.Millisecond })
	w.serve("x", backend(t, func(_ http.ResponseWriter, r *http.Request) { io.Copy(io.Discard, r.Body) }))
	if got := w.raw("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhalf"); !strings.HasPrefix(got, "HTTP/1.1 408 ") {
		t.Errorf("got %q", got)
	}
}

func TestAResponseMayTakeLongerThanAClientMayBeSilent(t *testing.T) {
	w := start(t, func(c *Config) { c.Timeouts.Client = 100 * time.Millisecond })
	w.serve("x", backend(t, func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		time.Sleep(300 * time.Millisecond)
		io.WriteString(w, "late")
	}))
	if got := do(t, w.client(false, nil), "POST", "http://x/", strings.NewReader("body")); got != "200 late" {
		t.Error(got)
	}
}

func TestCountsAndAccessLog(t *testing.T) {
	w := start(t, nil)
	w.serve("x", saying(t, "x"))
	w.get("http://x/")
	w.get("http://y/")
	eventually(t, "both requests to end", func() bool { return w.active.Load() == 0 })
	if ok, missing := w.statuses[200].Load(), w.statuses[404].Load(); ok != 1 || missing != 1 {
		t.Errorf("counted %d with 200 and %d with 404", ok, missing)
	}
}
