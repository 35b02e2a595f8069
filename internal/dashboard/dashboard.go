// Package dashboard is the page of `minato dashboard`: nodes, Services and backends as a picture that is live, and what
// becomes of a connection between two things of it.
//
// It is plain files without a build step, and works without the internet. What it shows is a State, taken from a
// snapshot and the status; what it explains, package explain says.
//
// It changes nothing, opens no port and asks nobody who they are: the control socket and `minato dashboard` do.
package dashboard

import (
	"bytes"
	"context"
	"embed"
	"encoding/json"
	"fmt"
	"io/fs"
	"net/http"
	"time"

	"minato/internal/model"
	"minato/internal/status"
)

//go:embed page
var files embed.FS

// Source has the newest snapshot; source.Builder is one.
type Source interface {
	Current() *model.Snapshot
	Subscribe() (changed <-chan struct{}, cancel func())
}

// Config is what a page shows. All but Own must be set.
type Config struct {
	Instance string
	Source   Source
	Board    *status.Board
	Own      map[model.ServiceName]bool // Services that every node answers by itself
	// Explain answers in words and says by the verdict how it ends. The error is for the user to mend.
	Explain func(ctx context.Context, to, from, protocol string) (Answer, error)
}

// Answer is what becomes of a connection.
type Answer struct {
	Verdict string   `json:"verdict"`
	Text    string   `json:"text"`
	Service string   `json:"service,omitempty"` // "namespace/name"
	Addrs   []string `json:"addrs"`             // of the backends that may be chosen
}

// How often a page is told of changes at most, and looks for those of the status.
const (
	pause = 250 * time.Millisecond
	look  = time.Second
)

// Handler serves the page's files, its state once (state) and as it changes (events), and what it asks (explain).
func Handler(c Config) http.Handler {
	page, err := fs.Sub(files, "page")
	if err != nil {
		panic(err) // the folder is embedded
	}
	mux := http.NewServeMux()
	mux.Handle("GET /", http.FileServerFS(page))
	mux.HandleFunc("GET /state", c.state)
	mux.HandleFunc("GET /events", c.events)
	mux.HandleFunc("GET /explain", c.explain)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Security-Policy", "default-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'")
		w.Header().Set("Referrer-Policy", "no-referrer") // the address of the page has its token
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Header().Set("Cache-Control", "no-store")
		mux.ServeHTTP(w, r)
	})
}

func (c Config) body(r *http.Request) []byte {
	body, err := json.Marshal(c.Take(r.URL.Query().Get("text")))
	if err != nil {
		panic(err) // strings, numbers and addresses
	}
	return body
}

func (c Config) state(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(c.body(r)) // who went away needs no answer
}

// events sends the state whenever it differs, as server-sent events (HTML, section 9.2), until the page goes away.
func (c Config) events(w http.ResponseWriter, r *http.Request) {
	changed, cancel := c.Source.Subscribe()
	defer cancel()
	w.Header().Set("Content-Type", "text/event-stream")
	out := http.NewResponseController(w)
	tick := time.NewTicker(look)
	defer tick.Stop()
	rest := time.NewTimer(0)
	defer rest.Stop()
	var last []byte
	for {
		select {
		case <-r.Context().Done():
			return
		case <-rest.C:
		}
		if now := c.body(r); !bytes.Equal(now, last) {
			if _, err := fmt.Fprintf(w, "data: %s\n\n", now); err != nil || out.Flush() != nil {
				return
			}
			last = now
		}
		select {
		case <-r.Context().Done():
			return
		case <-changed:
		case <-tick.C:
		}
		rest.Reset(pause)
	}
}

func (c Config) explain(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	answer, err := c.Explain(r.Context(), q.Get("to"), q.Get("from"), q.Get("protocol"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(answer) // who went away needs no answer
}
