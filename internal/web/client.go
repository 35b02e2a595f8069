package web

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Client asks the control socket of a running instance.
type Client struct{ http http.Client }

// NewClient asks at the socket. It connects at the first request.
func NewClient(socket string) *Client {
	return &Client{http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socket)
		},
	}}}
}

// ErrNotRunning says that nobody answers at the socket.
var ErrNotRunning = errors.New("the instance is not running")

// Get writes the answer to out and returns the exit code that the instance asked for.
func (c *Client) Get(ctx context.Context, path string, q url.Values, out io.Writer) (exit int, err error) {
	res, err := c.do(ctx, http.MethodGet, path, q, nil)
	if err != nil {
		return 0, err
	}
	defer res.Body.Close()
	if _, err := io.Copy(out, res.Body); err != nil {
		return 0, fmt.Errorf("read the answer: %w", err)
	}
	exit, _ = strconv.Atoi(res.Header.Get(ExitHeader)) // absent: 0
	return exit, nil
}

// Page passes requests for the page of the instance on, path by path, to what the instance serves below /dashboard.
// The caller has checked who asks.
func (c *Client) Page() http.Handler {
	return &httputil.ReverseProxy{
		Transport:     c.http.Transport,
		FlushInterval: -1, // events are to be seen at once
		Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.URL.Scheme, r.Out.URL.Host, r.Out.URL.Path = "http", "minato", "/dashboard"+r.In.URL.Path
		},
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) {
			http.Error(w, "the instance does not answer: "+err.Error(), http.StatusBadGateway)
		},
		ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError),
	}
}

// Nodes lists the nodes of the instance.
func (c *Client) Nodes(ctx context.Context) (nodes []Node, err error) {
	return nodes, c.json(ctx, http.MethodGet, "/nodes", nil, &nodes)
}

// Change does stop, kill, pause-agent or start to a node, and returns in words what came of it.
func (c *Client) Change(ctx context.Context, verb, node string, grace time.Duration) (said string, err error) {
	path := "/nodes/" + url.PathEscape(node) + "/" + url.PathEscape(verb)
	return said, c.query(ctx, http.MethodPost, path, url.Values{"grace": {grace.String()}}, nil, &said)
}

// Service lists the URLs at which the host reaches a Service, one for each port; without an error there is one at least.
func (c *Client) Service(ctx context.Context, namespace, name string) (urls []string, err error) {
	return urls, c.json(ctx, http.MethodGet, "/services/"+url.PathEscape(namespace)+"/"+url.PathEscape(name), nil, &urls)
}

// Services lists the names of the Services of a namespace.
func (c *Client) Services(ctx context.Context, namespace string) (names []string, err error) {
	return names, c.json(ctx, http.MethodGet, "/services/"+url.PathEscape(namespace), nil, &names)
}

// Images lists the loaded images.
func (c *Client) Images(ctx context.Context) (images []string, err error) {
	return images, c.json(ctx, http.MethodGet, "/images", nil, &images)
}

// Load sends an image archive and returns the names of the images in it.
func (c *Client) Load(ctx context.Context, r io.Reader) (images []string, err error) {
	return images, c.json(ctx, http.MethodPost, "/images", r, &images)
}

func (c *Client) json(ctx context.Context, method, path string, body io.Reader, v any) error {
	return c.query(ctx, method, path, nil, body, v)
}

func (c *Client) query(ctx context.Context, method, path string, q url.Values, body io.Reader, v any) error {
	res, err := c.do(ctx, method, path, q, body)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if err := json.NewDecoder(res.Body).Decode(v); err != nil {
		return fmt.Errorf("read the answer: %w", err)
	}
	return nil
}

func (c *Client) do(ctx context.Context, method, path string, q url.Values, body io.Reader) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://minato"+path+"?"+q.Encode(), body)
	if err != nil {
		return nil, fmt.Errorf("ask the instance: %w", err)
	}
	res, err := c.http.Do(req)
	var asked *url.Error
	if errors.As(err, &asked) {
		err = asked.Err // the URL is no word of the command line
	}
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return nil, ErrNotRunning
	case err != nil:
		return nil, fmt.Errorf("ask the instance: %w", err)
	case res.StatusCode != http.StatusOK:
		defer res.Body.Close()
		text, _ := io.ReadAll(io.LimitReader(res.Body, 64<<10))
		return nil, errors.New(strings.TrimSpace(string(text)))
	}
	return res, nil
}
