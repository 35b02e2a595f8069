package proxy

import (
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
)

// BenchmarkProxy compares a request through the whole server with one through a plain httputil.ReverseProxy, and with
// none between: 1 KB bodies, kept connections, client and backend in this process too. Compare several runs of all three.
func BenchmarkProxy(b *testing.B) {
	answer := strings.Repeat("x", 1024)
	addr := saying(b, answer)
	w := start(b, nil)
	w.serve("x", addr)
	target := &url.URL{Scheme: "http", Host: addr}
	behind := &http.Transport{MaxIdleConnsPerHost: idlePerHost, DisableCompression: true}
	defer behind.CloseIdleConnections()
	plain := httptest.NewServer(&httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(target); r.SetXForwarded() }, Transport: behind,
	})
	defer plain.Close()
	for _, c := range []struct{ name, addr string }{{"direct", addr}, {"plain", plain.Listener.Addr().String()}, {"minato", w.plain}} {
		b.Run(c.name, func(b *testing.B) { benchmark(b, c.addr, len(answer)) })
	}
}

func benchmark(b *testing.B, addr string, size int) {
	tr := &http.Transport{MaxIdleConnsPerHost: 64, DisableCompression: true}
	defer tr.CloseIdleConnections()
	client := &http.Client{Transport: tr}
	var failed atomic.Int64
	b.ReportAllocs()
	b.SetParallelism(16)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			req, err := http.NewRequest(http.MethodGet, "http://"+addr+"/a/b", nil)
			if err != nil {
				b.Error(err)
				return
			}
			req.Host = "x"
			res, err := client.Do(req)
			if err != nil {
				failed.Add(1)
				continue
			}
			if n, _ := io.Copy(io.Discard, res.Body); n != int64(size) {
				failed.Add(1)
			}
			res.Body.Close()
		}
	})
	if n := failed.Load(); n > 0 {
		b.Errorf("%d requests failed", n)
	}
}
