package proxy

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
)

// seen is a backend that answers with the headers it got, sorted.
func seen(t *testing.T) string {
	return backend(t, func(w http.ResponseWriter, r *http.Request) {
		var lines []string
		for name, values := range r.Header {
			lines = append(lines, fmt.Sprintf("%s: %s", name, strings.Join(values, " | ")))
		}
		slices.Sort(lines)
		fmt.Fprintf(w, "Host: %s\n%s\n", r.Host, strings.Join(lines, "\n"))
	})
}

func TestABackendLearnsTheTruthAboutTheClient(t *testing.T) {
	w := start(t, nil)
	w.serve("x", seen(t))
	got := w.raw("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n" +
		"X-Forwarded-For: 1.2.3.4\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: evil\r\nX-Forwarded-Port: 1\r\nX-Real-Ip: 1.2.3.4\r\n" +
		"X-Scheme: https\r\nX-Forwarded-Scheme: https\r\nForwarded: for=1.2.3.4\r\nX-Original-Forwarded-For: 5.6.7.8\r\n" +
		"X_Real_Ip: 1.2.3.4\r\nProxy: evil\r\nX-Request-Id: mine\r\n\r\n")
	_, got, _ = strings.Cut(got, "\r\n\r\n")
	want := fmt.Sprintf(`Host: x
X-Forwarded-For: 127.0.0.1
X-Forwarded-Host: x
X-Forwarded-Port: %d
X-Forwarded-Proto: http
X-Forwarded-Scheme: http
X-Original-Forwarded-For: 1.2.3.4
X-Real-Ip: 127.0.0.1
X-Request-Id: mine
X-Scheme: http
`, w.cfg.Ports.HTTP)
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	over := w.get("https://x/")
	for _, line := range []string{"X-Forwarded-Proto: https\n", fmt.Sprintf("X-Forwarded-Port: %d\n", w.cfg.Ports.HTTPS)} {
		if !strings.Contains(over, line) {
			t.Errorf("over HTTPS there is no %q in\n%s", line, over)
		}
	}
}

func TestHopByHopHeadersEndHere(t *testing.T) {
	w := start(t, nil)
	w.serve("x", seen(t))
	got := w.raw("GET / HTTP/1.1\r\nHost: x\r\nConnection: close, X-Mine\r\nX-Mine: 1\r\nKeep-Alive: 5\r\nProxy-Connection: x\r\n" +
		"Proxy-Authorization: secret\r\nTe: gzip\r\nTrailer: X\r\nX-Kept: 1\r\n\r\n")
	_, got, _ = strings.Cut(got, "\r\n\r\n")
	for _, name := range []string{"X-Mine", "Keep-Alive", "Proxy-", "\nTe:", "Trailer", "\nConnection"} {
		if strings.Contains(got, name) {
			t.Errorf("%s arrives:\n%s", name, got)
		}
	}
	if !strings.Contains(got, "X-Kept: 1") {
		t.Errorf("no X-Kept:\n%s", got)
	}
}

// TestHTTPIsNeverTunnelled: a backend that took the upgrade would get every later request past the rules.
func TestHTTPIsNeverTunnelled(t *testing.T) {
	w := start(t, nil)
	w.serve("x", seen(t))
	for _, upgrade := range []string{"h2c", "H2C", "h2c, websocket", "websocket, h2c", "HTTP/2.0", "TLS/1.0"} {
		got := w.raw("GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: " + upgrade + "\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n")
		if !strings.HasPrefix(got, "HTTP/1.1 200 ") || strings.Contains(got, "Upgrade") || strings.Contains(strings.ToLower(got), "http2-settings") {
			t.Errorf("Upgrade: %s gives\n%s", upgrade, got)
		}
	}
	if got := w.raw("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"); strings.HasPrefix(got, "\x00") || strings.Contains(got, " 200 ") {
		t.Errorf("HTTP/2 without TLS is answered: %q", got)
	}
}

// TestRequestsThatTwoReadersCouldReadDifferently has the classes of request smuggling of RFC 9112, 11.2: each is
// refused, or reaches the backend as exactly one request that is framed anew.
func TestRequestsThatTwoReadersCouldReadDifferently(t *testing.T) {
	w := start(t, nil)
	w.serve("x", backend(t, func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		fmt.Fprintf(w, "[%s %s %q %v cl=%d te=%v]", r.Method, r.URL.Path, b, err, r.ContentLength, r.TransferEncoding)
	}))
	const smuggled = "GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
	for name, c := range map[string]struct {
		request string
		once    string // what the backend may see, empty for nothing at all
	}{
		"length and chunks":          {"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n0\r\n\r\n" + smuggled, `[POST / "" <nil> cl=-1 te=[chunked]]`},
		"two lengths":                {"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab" + smuggled, ""},
		"a list of lengths":          {"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1, 2\r\n\r\nab" + smuggled, ""},
		"signed length":              {"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: +1\r\n\r\na" + smuggled, ""},
		"negative length":            {"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\na" + smuggled, ""},
		"hexadecimal length":         {"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0x1\r\n\r\na" + smuggled, ""},
		"chunked, but not really":    {"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + smuggled, ""},
		"identity and chunked":       {"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + smuggled, ""},
		"chunked twice":              {"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n" + smuggled, ""},
		"space before the colon":     {"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n" + smuggled, ""},
		"NUL in a name":              {"GET / HTTP/1.1\r\nHost: x\r\nA\x00b: 1\r\n\r\n", ""},
		"space in a name":            {"GET / HTTP/1.1\r\nHost: x\r\nA b: 1\r\n\r\n", ""},
		"no host":                    {"GET / HTTP/1.1\r\n\r\n", ""},
		"two hosts":                  {"GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", ""},
		"host with a slash":          {"GET / HTTP/1.1\r\nHost: x/y\r\n\r\n", ""},
		"bad chunk size":             {"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n" + smuggled, ""},
		"bare line feed after chunk": {"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1;a\nb\r\nx\r\n0\r\n\r\n", ""},
	} {
		got := w.raw(c.request)
		if strings.Contains(got, "smuggled") {
			t.Errorf("%s: the hidden request arrives:\n%s", name, got)
		}
		switch {
		case c.once != "" && !strings.Contains(got, c.once):
			t.Errorf("%s: want %s in\n%s", name, c.once, got)
		case c.once == "" && strings.Count(got, "HTTP/1.1 ") != 1:
			t.Errorf("%s: more than one answer:\n%s", name, got)
		case c.once == "" && (strings.Contains(got, "<nil>") || !strings.HasPrefix(got, "HTTP/1.1 4") && !strings.HasPrefix(got, "HTTP/1.1 50")):
			t.Errorf("%s: got\n%s", name, got)
		}
	}
}

func TestHeadersAreBounded(t *testing.T) {
	w := start(t, nil)
	w.serve("x", seen(t))
	if got := w.raw("GET / HTTP/1.1\r\nHost: x\r\nA: " + strings.Repeat("a", 64<<10) + "\r\n\r\n"); !strings.HasPrefix(got, "HTTP/1.1 431 ") {
		t.Errorf("got %.100q", got)
	}
}
