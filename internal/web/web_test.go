package web

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// serve runs a Backend on a socket of the test's own.
func serve(t *testing.T, b Backend) (*Client, string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "web") // short: a socket's path has 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(dir, "s")
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	l, err := Listen(socket, os.Getuid())
	if err != nil {
		t.Fatal(err)
	}
	go func() { done <- Serve(ctx, l, b) }()
	c := NewClient(socket)
	for { // until it answers, which is after the socket has its mode
		res, err := c.http.Get("http://minato/")
		if err == nil {
			res.Body.Close()
			break
		}
		select {
		case err := <-done:
			t.Fatal(err)
		default:
		}
	}
	t.Cleanup(func() {
		c.http.CloseIdleConnections()
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		os.RemoveAll(dir)
	})
	return c, socket
}

func TestAnswersAreCopiedAndCarryTheExitCode(t *testing.T) {
	c, _ := serve(t, Backend{Explain: func(_ context.Context, dest string, q Query, w io.Writer) (int, error) {
		fmt.Fprintf(w, "%s from %s output=%s", dest, q.From, q.Output)
		return 3, nil
	}})
	var out bytes.Buffer
	exit, err := c.Get(t.Context(), "/explain", url.Values{"dest": {"web:80"}, "from": {"lan"}, "output": {"json"}}, &out)
	if err != nil || exit != 3 || out.String() != "web:80 from lan output=json" {
		t.Errorf("exit %d, %q, %v", exit, out.String(), err)
	}
}

func TestErrorsComeAsTheyAre(t *testing.T) {
	c, _ := serve(t, Backend{Show: func(context.Context, string, Query, io.Writer) error {
		return fmt.Errorf("show one of these: %w", ErrNotFound)
	}})
	_, err := c.Get(t.Context(), "/show/nothing", nil, io.Discard)
	if err == nil || err.Error() != "show one of these" {
		t.Errorf("got %v", err)
	}
}

func TestListsAndArchives(t *testing.T) {
	var loaded string
	c, _ := serve(t, Backend{
		Nodes:  func(context.Context) ([]Node, error) { return []Node{{Name: "node1", Ready: true}}, nil },
		Images: func(context.Context) ([]string, error) { return []string{"nginx"}, nil },
		Load: func(_ context.Context, r io.Reader) ([]string, error) {
			b, err := io.ReadAll(r)
			loaded = string(b)
			return []string{"busybox"}, err
		},
	})
	nodes, err := c.Nodes(t.Context())
	if err != nil || len(nodes) != 1 || !nodes[0].Ready {
		t.Errorf("nodes %v, %v", nodes, err)
	}
	images, err := c.Images(t.Context())
	if err != nil || len(images) != 1 || images[0] != "nginx" {
		t.Errorf("images %v, %v", images, err)
	}
	images, err = c.Load(t.Context(), strings.NewReader("a tar"))
	if err != nil || loaded != "a tar" || images[0] != "busybox" {
		t.Errorf("loaded %q, %v, %v", loaded, images, err)
	}
}

func TestNobodyThereIsErrNotRunning(t *testing.T) {
	c := NewClient(filepath.Join(t.TempDir(), "none"))
	if _, err := c.Nodes(t.Context()); !errors.Is(err, ErrNotRunning) {
		t.Errorf("got %v", err)
	}
}

func TestTheSocketIsForItsOwnerAlone(t *testing.T) {
	_, socket := serve(t, Backend{})
	info, err := os.Stat(socket)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, want 0600", info.Mode().Perm())
	}
}

func TestPodAttachmentIsNotServedHere(t *testing.T) {
	c, _ := serve(t, Backend{})
	res, err := c.http.Post("http://minato/cni", "application/json", strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != http.StatusNotFound {
		t.Errorf("POST /cni answers %s: it enters paths as root and has a socket of its own", res.Status)
	}
}
