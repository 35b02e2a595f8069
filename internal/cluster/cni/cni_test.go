//go:build linux

package cni

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"

	"minato/internal/cluster/cni/plugin"
	"minato/internal/netns"
)

// attacher records what it is asked and answers with err.
type attacher struct {
	asked []Request
	err   error
}

func (a *attacher) Attach(_ context.Context, r Request) (*Result, error) {
	a.asked = append(a.asked, r)
	if a.err != nil {
		return nil, a.err
	}
	return &Result{IPs: []IP{{Address: "10.244.1.2/32"}}}, nil
}

func (a *attacher) Detach(_ context.Context, r Request) error {
	a.asked = append(a.asked, r)
	return a.err
}

func ask(a Attacher, r Request) *httptest.ResponseRecorder {
	body, err := json.Marshal(r)
	if err != nil {
		panic(err)
	}
	w := httptest.NewRecorder()
	Handler(a, slog.New(slog.DiscardHandler)).ServeHTTP(w, httptest.NewRequest("POST", "/cni", strings.NewReader(string(body))))
	return w
}

func namespace(t *testing.T, name string) netns.NS {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root, to make network namespaces")
	}
	path := filepath.Join(t.TempDir(), name)
	if err := netns.Create(path); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := netns.Delete(path); err != nil {
			t.Error(err)
		}
	})
	return netns.At(path)
}

func loIsUp(t *testing.T, ns netns.NS) (up bool) {
	t.Helper()
	err := ns.Do(func() error {
		lo, err := netlink.LinkByName("lo")
		up = err == nil && lo.Attrs().Flags&net.FlagUp != 0
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return up
}

func TestADDAttachesAndBringsLoopbackUp(t *testing.T) {
	ns := namespace(t, "pod")
	a := &attacher{}
	request := Request{Command: "ADD", ContainerID: "id", Netns: ns.Path(), IfName: "eth0", Node: "node1"}
	w := ask(a, request)
	if want := `{"cniVersion":"1.0.0","ips":[{"address":"10.244.1.2/32"}]}` + "\n"; w.Code != http.StatusOK || w.Body.String() != want {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if len(a.asked) != 1 || !reflect.DeepEqual(a.asked[0], request) {
		t.Errorf("asked %+v", a.asked)
	}
	if !loIsUp(t, ns) {
		t.Error("lo is down")
	}
}

func TestTheLoopbackOfAHostNetworkPodIsTheNodes(t *testing.T) {
	ns := namespace(t, "pod")
	if w := ask(&attacher{}, Request{Command: "ADD", Netns: ns.Path(), HostNetwork: true}); w.Code != http.StatusOK {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if loIsUp(t, ns) {
		t.Error("lo was touched")
	}
}

func TestDELDetaches(t *testing.T) {
	a := &attacher{}
	if w := ask(a, Request{Command: "DEL", ContainerID: "id"}); w.Code != http.StatusOK || w.Body.Len() != 0 || len(a.asked) != 1 {
		t.Errorf("%d %q, asked %v", w.Code, w.Body, a.asked)
	}
}

func TestAnErrorIsTheAnswer(t *testing.T) {
	w := ask(&attacher{err: errors.New("no address left")}, Request{Command: "ADD"})
	if w.Code != http.StatusInternalServerError || w.Body.String() != "no address left\n" {
		t.Errorf("%d %q", w.Code, w.Body)
	}
	if w := ask(&attacher{}, Request{Command: "DANCE"}); w.Code != http.StatusInternalServerError {
		t.Errorf("an unknown command: %d %q", w.Code, w.Body)
	}
}

func TestBindNodePutsTheNodesNamespaceInThePlaceOfTheSandboxs(t *testing.T) {
	node, sandbox := namespace(t, "node"), namespace(t, "sandbox")
	if is, err := IsNode(sandbox.Path(), node.Path()); is || err != nil {
		t.Fatalf("before: %v, %v", is, err)
	}
	for range 2 {
		if err := BindNode(sandbox.Path(), node.Path()); err != nil {
			t.Fatal(err)
		}
	}
	if is, err := IsNode(sandbox.Path(), node.Path()); !is || err != nil {
		t.Errorf("after: %v, %v", is, err)
	}
	if is, err := IsNode("/nonexistent", node.Path()); is || err != nil {
		t.Errorf("of a path that is gone: %v, %v", is, err)
	}
}

func TestInstall(t *testing.T) {
	dir := t.TempDir()
	bin, conf := filepath.Join(dir, "bin"), filepath.Join(dir, "conf")
	for range 2 { // over itself
		if err := Install(bin, conf, "minato-x", "/run/x.sock"); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{plugin.Name, plugin.Loopback} {
		fi, err := os.Stat(filepath.Join(bin, name))
		if err != nil || fi.Mode()&0o111 == 0 {
			t.Errorf("%s: %v, %v", name, fi, err)
		}
	}
	data, err := os.ReadFile(filepath.Join(conf, "10-minato.conflist"))
	if err != nil {
		t.Fatal(err)
	}
	var list struct {
		CNIVersion, Name string
		Plugins          []struct {
			Type, Socket string
			Capabilities map[string]bool
		}
	}
	if err := json.Unmarshal(data, &list); err != nil {
		t.Fatal(err)
	}
	p := list.Plugins[0]
	if list.Name != "minato-x" || list.CNIVersion != Version || p.Type != plugin.Name || p.Socket != "/run/x.sock" || !p.Capabilities["io.kubernetes.cri.pod-annotations"] {
		t.Errorf("configuration %s", data)
	}
}
