//go:build linux

package walkthrough

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"minato/test/world"
)

// asker makes one new connection after another until its context ends, and counts those that fail.
type asker struct {
	url           string
	asked, failed int
	last          error
}

func (a *asker) run(ctx context.Context, w *world.World) {
	client := &http.Client{Timeout: time.Minute, Transport: &http.Transport{DisableKeepAlives: true, DialContext: w.Host.DialContext}}
	for ctx.Err() == nil {
		a.asked++
		r, err := client.Get(a.url)
		if err == nil {
			_, err = io.Copy(io.Discard, r.Body)
			r.Body.Close()
			if err == nil && r.StatusCode >= 500 {
				err = errors.New(r.Status)
			}
		}
		if err != nil {
			a.failed++
			a.last = err
		}
	}
}

func TestAnotherMinatoTakesOverAndNoConnectionFails(t *testing.T) {
	w := world.Start(t, world.Config{Images: []string{"nginx"}, Up: []string{"--nodes", "2"}})
	w.Kubectl(t, "create", "deployment", "web", "--image=nginx", "--replicas=2")
	w.Kubectl(t, "create", "service", "nodeport", "web", "--tcp=80:80", "--node-port=30080")
	w.Kubectl(t, "create", "ingress", "web", "--default-backend=web:80")
	w.Kubectl(t, "rollout", "status", "deployment", "web", "--timeout=60s")
	const pods = "-o=jsonpath={range .items[*]}{.metadata.name} {.status.podIP} {.status.containerStatuses[0].containerID} {.status.containerStatuses[0].restartCount}{\"\\n\"}{end}"
	before := w.Kubectl(t, "get", "pod", pods)
	a := world.Default()
	var askers []*asker
	for _, at := range []string{world.At(a.Host, 6443), world.At(a.Node(1), 10250), world.At(a.Node(2), 30080), world.At(a.Node(1), 80)} {
		askers = append(askers, &asker{url: "http://" + at + "/"})
	}
	for _, a := range askers {
		world.Eventually(t, time.Minute, func() error {
			r, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: w.Host.DialContext}}).Get(a.url)
			if err == nil {
				r.Body.Close()
			}
			return err
		})
	}
	ctx, cancel := context.WithCancel(t.Context())
	var asking sync.WaitGroup
	for _, a := range askers {
		asking.Go(func() { a.run(ctx, w) })
	}
	for range 2 { // the one that took over hands over as well
		if r := w.Verb("up", "--replace", "--detach"); r.Err != nil {
			t.Fatalf("%v\n%s", r.Err, r.Output())
		}
	}
	cancel()
	asking.Wait()
	for _, a := range askers {
		t.Logf("%s: %d connections, %d failed", a.url, a.asked, a.failed)
		if a.failed > 0 || a.asked == 0 {
			t.Errorf("%s: %d of %d connections failed, the last: %v", a.url, a.failed, a.asked, a.last)
		}
	}
	if after := w.Kubectl(t, "get", "pod", pods); after != before {
		t.Errorf("the pods were\n%sand are\n%s", before, after)
	}
}

func TestABackupBringsTheClusterBack(t *testing.T) {
	w := world.Start(t, world.Config{Images: []string{}, Up: []string{"--nodes", "1"}})
	file := filepath.Join(t.TempDir(), "backup")
	verb := func(args ...string) string {
		t.Helper()
		r := w.Verb(args...)
		if r.Err != nil {
			t.Fatalf("minato %s: %v\n%s", strings.Join(args, " "), r.Err, r.Output())
		}
		return r.Stdout
	}
	w.Kubectl(t, "create", "service", "clusterip", "kept", "--tcp=80:80")
	services := func() (out string) {
		var list struct {
			Items []struct {
				Metadata struct{ Name, UID string }
				Spec     struct{ ClusterIP string }
			}
		}
		if err := json.Unmarshal([]byte(w.Kubectl(t, "get", "service", "-A", "-o", "json")), &list); err != nil {
			t.Fatal(err)
		}
		for _, s := range list.Items {
			out += s.Metadata.Name + " " + s.Metadata.UID + " " + s.Spec.ClusterIP + "\n"
		}
		return out
	}
	before := services()
	verb("backup", file) // while it runs
	w.Kubectl(t, "delete", "service", "kept")
	if r := w.Verb("restore", file, "--force"); r.Code() != 1 || !strings.Contains(r.Stderr, "stop it first") {
		t.Errorf("over a running instance: %v %s", r.Err, r.Output())
	}
	verb("down")
	if r := w.Verb("restore", file); r.Code() != 1 || !strings.Contains(r.Stderr, "--force") {
		t.Errorf("over an instance that is down: %v %s", r.Err, r.Output())
	}
	verb("restore", file, "--force")
	verb("up", "--detach")
	if after := services(); after != before {
		t.Errorf("the Services were\n%sand are\n%s", before, after)
	}
	w.Kubectl(t, "create", "service", "clusterip", "new", "--tcp=80:80")
}
