package plugin

import (
	"encoding/json"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

func env(pairs map[string]string) func(string) string {
	return func(name string) string { return pairs[name] }
}

// daemon answers every request with a status and a body, and hands on what it was asked.
func daemon(t *testing.T, status int, answer string) (socket string, asked <-chan Request) {
	t.Helper()
	socket = filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	requests := make(chan Request, 1)
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var request Request
		if r.Method != "POST" || r.URL.Path != "/cni" {
			t.Errorf("asked %s %s", r.Method, r.URL)
		}
		if err := json.NewDecoder(r.Body).Decode(&request); err != nil {
			t.Error(err)
		}
		requests <- request
		w.WriteHeader(status)
		io.WriteString(w, answer)
	})}
	go server.Serve(l)
	t.Cleanup(func() { server.Close() })
	return socket, requests
}

func network(socket string) io.Reader {
	return strings.NewReader(`{"cniVersion":"1.0.0","name":"n","type":"minato-cni","socket":"` + socket + `",
		"runtimeConfig":{"io.kubernetes.cri.pod-annotations":{"minato.io/node":"node2","minato.io/host-network":"true"},
			"portMappings":[{"hostPort":8080,"containerPort":80,"protocol":"tcp","hostIP":""}]}}`)
}

var add = map[string]string{
	"CNI_COMMAND": "ADD", "CNI_CONTAINERID": "id", "CNI_NETNS": "/run/netns/x", "CNI_IFNAME": "eth0",
	"CNI_ARGS": "IgnoreUnknown=1;K8S_POD_NAMESPACE=ns;K8S_POD_NAME=p;K8S_POD_INFRA_CONTAINER_ID=id;K8S_POD_UID=u",
}

func TestThePluginAsksTheDaemonAndPrintsItsAnswer(t *testing.T) {
	socket, asked := daemon(t, http.StatusOK, `{"cniVersion":"1.0.0"}`)
	var out strings.Builder
	if code := Main("/opt/bin/minato-cni", env(add), network(socket), &out); code != 0 || out.String() != "{\"cniVersion\":\"1.0.0\"}\n" {
		t.Errorf("code %d, answer %q", code, out.String())
	}
	want := Request{
		Command: "ADD", ContainerID: "id", Netns: "/run/netns/x", IfName: "eth0", Node: "node2", HostNetwork: true,
		PodNamespace: "ns", PodName: "p", PodUID: "u", Ports: []Port{{HostPort: 8080, ContainerPort: 80, Protocol: "tcp"}},
	}
	if got := <-asked; !reflect.DeepEqual(got, want) {
		t.Errorf("asked %+v, want %+v", got, want)
	}
}

func TestARefusalIsACNIError(t *testing.T) {
	socket, _ := daemon(t, http.StatusInternalServerError, "no such node\n")
	var out strings.Builder
	code := Main("minato-cni", env(add), network(socket), &out)
	var answer struct {
		CNIVersion string
		Code       int
		Msg        string
	}
	if err := json.Unmarshal([]byte(out.String()), &answer); err != nil || code == 0 || answer.Code == 0 || answer.Msg != "minato daemon: no such node" {
		t.Errorf("code %d, answer %q, %v", code, out.String(), err)
	}
}

func TestWithoutADaemonDELSucceedsAndADDDoesNot(t *testing.T) {
	gone := filepath.Join(t.TempDir(), "gone")
	for command, want := range map[string]int{"DEL": 0, "ADD": 1} {
		if code := Main("minato-cni", env(map[string]string{"CNI_COMMAND": command}), network(gone), io.Discard); code != want {
			t.Errorf("%s: code %d, want %d", command, code, want)
		}
	}
}

func TestLoopbackTouchesNothing(t *testing.T) {
	for command, want := range map[string]string{
		"ADD": `{"cniVersion":"1.0.0","interfaces":[{"name":"lo","sandbox":"/n"}],"ips":[{"address":"127.0.0.1/8","interface":0}]}` + "\n",
		"DEL": "\n",
	} {
		var out strings.Builder
		code := Main("/opt/bin/loopback", env(map[string]string{"CNI_COMMAND": command, "CNI_NETNS": "/n"}), strings.NewReader(""), &out)
		if code != 0 || out.String() != want {
			t.Errorf("%s: code %d, answer %q", command, code, out.String())
		}
	}
}

func TestVersionNeedsNoDaemon(t *testing.T) {
	for _, name := range []string{Name, Loopback} {
		var out strings.Builder
		if code := Main(name, env(map[string]string{"CNI_COMMAND": "VERSION"}), strings.NewReader(""), &out); code != 0 || !json.Valid([]byte(out.String())) {
			t.Errorf("%s: code %d, answer %q", name, code, out.String())
		}
	}
}

func TestIs(t *testing.T) {
	for name, want := range map[string]bool{"/a/minato-cni": true, "loopback": true, "/usr/bin/minato": false} {
		if Is(name) != want {
			t.Errorf("Is(%q) = %v", name, !want)
		}
	}
}
