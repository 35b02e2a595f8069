// Package web is the control socket of a running instance: HTTP over a unix socket, asked by the CLI. What it serves
// is handed over by run as functions, so it knows neither plans nor appliers.
//
// It does not authenticate: the socket's file mode does. It changes nothing by itself.
package web

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"minato/internal/drain"
)

// Node is what `minato node list` shows, and where `minato node exec` enters.
type Node struct {
	Name  string `json:"name"`
	Addr  string `json:"addr"`
	Netns string `json:"netns"` // mount point; empty: the host's own
	Ready bool   `json:"ready"`
	// Condition is what was done to the node or has happened to it: "stopped", "killed", "agent paused", "cut off".
	Condition string `json:"condition,omitempty"`
}

// ExitHeader carries the exit code that the CLI ends with, where a verb has more than two.
const ExitHeader = "X-Minato-Exit"

// Query is what a request asks for, in words of the command line.
type Query struct {
	Node      string // of which node; empty: the first
	From      string // explain: where the connection starts
	Protocol  string
	Namespace string // explain: of svc/NAME, and of the pod that no From stands for
	Output    string // Text, JSON or YAML; checked
	Selector  string // show and flows: only this Service
	Watch     bool   // status and flows: go on
}

// The forms in which answers are written. Text is a table, or lines.
const (
	Text = "text"
	JSON = "json"
	YAML = "yaml"
)

// Backend is what a running instance offers. Every function may be called at any time and concurrently.
type Backend struct {
	Status func(ctx context.Context, q Query, w io.Writer) (exit int, err error)
	Nodes  func(ctx context.Context) ([]Node, error)
	// Change does stop, kill, pause-agent or start to a node and says what came of it; grace is stop's.
	Change  func(ctx context.Context, verb, node string, grace time.Duration) (string, error)
	Show    func(ctx context.Context, what string, q Query, w io.Writer) error
	Diff    func(ctx context.Context, q Query, w io.Writer) (exit int, err error)
	Flows   func(ctx context.Context, q Query, w io.Writer) error
	Explain func(ctx context.Context, dest string, q Query, w io.Writer) (exit int, err error)
	Service func(ctx context.Context, namespace, name string) (urls []string, err error)
	// Services lists the names of a namespace.
	Services func(ctx context.Context, namespace string) []string
	Images   func(ctx context.Context) ([]string, error)
	Load     func(ctx context.Context, r io.Reader) ([]string, error)
	Backup   func(ctx context.Context, w io.Writer) error
	Page     http.Handler // below /dashboard
}

// ErrNotFound marks an error that means: what was asked for is not there.
var ErrNotFound = errors.New("not found")

// Listen opens the control socket at path. It belongs to uid.
func Listen(path string, uid int) (net.Listener, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("clear the control socket: %w", err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("open the control socket: %w", err)
	}
	if err := errors.Join(os.Chmod(path, 0o600), os.Chown(path, uid, -1)); err != nil {
		l.Close()
		return nil, fmt.Errorf("give the control socket to its user: %w", err)
	}
	return l, nil
}

// Serve answers on the control socket until ctx ends, then waits for requests under way.
func Serve(ctx context.Context, l net.Listener, b Backend) error {
	const grace = 2 * time.Second
	srv := &http.Server{Handler: b.routes(), ReadHeaderTimeout: 10 * time.Second}
	if err := drain.Until(ctx, srv, l, grace); err != nil {
		return fmt.Errorf("serve the control socket: %w", err)
	}
	return nil
}

func (b Backend) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /status", asked(func(w http.ResponseWriter, r *http.Request, q Query) {
		if q.Watch {
			_, err := b.Status(r.Context(), q, flushed{w, http.NewResponseController(w)})
			reply(w, err)
			return
		}
		withExit(w, func(out io.Writer) (int, error) { return b.Status(r.Context(), q, out) })
	}))
	mux.HandleFunc("GET /nodes", func(w http.ResponseWriter, r *http.Request) {
		nodes, err := b.Nodes(r.Context())
		replyJSON(w, nodes, err)
	})
	mux.HandleFunc("POST /nodes/{node}/{verb}", func(w http.ResponseWriter, r *http.Request) {
		grace, err := time.ParseDuration(r.URL.Query().Get("grace"))
		if err != nil {
			http.Error(w, "give grace as a time such as 500ms: "+err.Error(), http.StatusBadRequest)
			return
		}
		said, err := b.Change(r.Context(), r.PathValue("verb"), r.PathValue("node"), grace)
		replyJSON(w, said, err)
	})
	mux.HandleFunc("GET /show/{what}", asked(func(w http.ResponseWriter, r *http.Request, q Query) {
		reply(w, b.Show(r.Context(), r.PathValue("what"), q, w))
	}))
	mux.HandleFunc("GET /diff", asked(func(w http.ResponseWriter, r *http.Request, q Query) {
		withExit(w, func(out io.Writer) (int, error) { return b.Diff(r.Context(), q, out) })
	}))
	mux.HandleFunc("GET /flows", asked(func(w http.ResponseWriter, r *http.Request, q Query) {
		var out io.Writer = w
		if q.Watch {
			out = flushed{w, http.NewResponseController(w)}
		}
		reply(w, b.Flows(r.Context(), q, out))
	}))
	mux.HandleFunc("GET /explain", asked(func(w http.ResponseWriter, r *http.Request, q Query) {
		withExit(w, func(out io.Writer) (int, error) {
			return b.Explain(r.Context(), r.URL.Query().Get("dest"), q, out)
		})
	}))
	mux.HandleFunc("GET /services/{namespace}/{name}", func(w http.ResponseWriter, r *http.Request) {
		urls, err := b.Service(r.Context(), r.PathValue("namespace"), r.PathValue("name"))
		replyJSON(w, urls, err)
	})
	mux.HandleFunc("GET /services/{namespace}", func(w http.ResponseWriter, r *http.Request) {
		replyJSON(w, b.Services(r.Context(), r.PathValue("namespace")), nil)
	})
	mux.HandleFunc("GET /images", func(w http.ResponseWriter, r *http.Request) {
		images, err := b.Images(r.Context())
		replyJSON(w, images, err)
	})
	mux.HandleFunc("POST /images", func(w http.ResponseWriter, r *http.Request) {
		images, err := b.Load(r.Context(), r.Body)
		replyJSON(w, images, err)
	})
	if b.Page != nil {
		mux.Handle("GET /dashboard/", http.StripPrefix("/dashboard", b.Page))
	}
	mux.HandleFunc("GET /backup", func(w http.ResponseWriter, r *http.Request) {
		if err := b.Backup(r.Context(), w); err != nil {
			panic(http.ErrAbortHandler) // the client sees that it is not whole
		}
	})
	return mux
}

// asked reads the query, and refuses one that cannot be answered.
func asked(f func(w http.ResponseWriter, r *http.Request, q Query)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		v := r.URL.Query()
		q := Query{Node: v.Get("node"), From: v.Get("from"), Protocol: v.Get("protocol"), Namespace: v.Get("namespace"),
			Output: v.Get("output"), Selector: v.Get("selector"), Watch: v.Get("watch") == "true"}
		switch q.Output {
		case "", "table":
			q.Output = Text
		case Text, JSON, YAML:
		default:
			http.Error(w, fmt.Sprintf("write -o text, table, json or yaml: there is no output %q", q.Output), http.StatusBadRequest)
			return
		}
		f(w, r, q)
	}
}

// reply ends an answer that was written as it came: an error after the first byte cannot change the status.
func reply(w http.ResponseWriter, err error) {
	if err != nil {
		http.Error(w, strings.TrimSuffix(err.Error(), ": "+ErrNotFound.Error()), code(err)) // the status says it
	}
}

func code(err error) int {
	if errors.Is(err, ErrNotFound) {
		return http.StatusNotFound
	}
	return http.StatusInternalServerError
}

func replyJSON(w http.ResponseWriter, v any, err error) {
	if err != nil {
		reply(w, err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // the client went away: nobody to tell
}

// withExit buffers what f writes, because the exit code goes into a header.
func withExit(w http.ResponseWriter, f func(io.Writer) (int, error)) {
	var buf writer
	exit, err := f(&buf)
	if err != nil {
		reply(w, err)
		return
	}
	w.Header().Set(ExitHeader, strconv.Itoa(exit))
	_, _ = w.Write(buf)
}

// flushed passes on every write at once.
type flushed struct {
	io.Writer
	response *http.ResponseController
}

func (f flushed) Write(p []byte) (int, error) {
	n, err := f.Writer.Write(p)
	return n, errors.Join(err, f.response.Flush())
}

type writer []byte

func (b *writer) Write(p []byte) (int, error) { *b = append(*b, p...); return len(p), nil }
