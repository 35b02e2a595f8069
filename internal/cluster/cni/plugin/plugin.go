// Package plugin is the CNI plugin that containerd starts for every pod sandbox. It holds no logic: it hands the
// request to the daemon's control socket and prints the daemon's answer.
//
// It imports the standard library alone, because it is started twice per pod and its start-up time is part of
// every pod's. It does not touch the network: the daemon does.
package plugin

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// The names under which containerd starts the plugin.
const (
	Name     = "minato-cni"
	Loopback = "loopback"
)

// The annotations of a pod sandbox that choose its node, copied by containerd into the plugin's runtimeConfig.
const (
	AnnotationNode        = "minato.io/node"
	AnnotationHostNetwork = "minato.io/host-network"
)

// Request is what the daemon is asked, as JSON by POST /cni.
type Request struct {
	Command      string `json:"command"` // ADD, DEL or CHECK
	ContainerID  string `json:"containerID"`
	Netns        string `json:"netns"` // path; may be empty for DEL
	IfName       string `json:"ifName"`
	Node         string `json:"node"`
	HostNetwork  bool   `json:"hostNetwork"`
	PodNamespace string `json:"podNamespace"`
	PodName      string `json:"podName"`
	PodUID       string `json:"podUID"`
	Ports        []Port `json:"ports,omitempty"`
}

// Port is a port of the node that leads to a port of the pod, as containerd says it (CNI convention "portMappings").
type Port struct {
	HostIP        string `json:"hostIP"`
	HostPort      uint16 `json:"hostPort"`
	ContainerPort uint16 `json:"containerPort"`
	Protocol      string `json:"protocol"` // tcp, udp or sctp
}

// conf is the part of the network configuration on stdin that the plugin reads.
type conf struct {
	Socket        string `json:"socket"`
	RuntimeConfig struct {
		Annotations map[string]string `json:"io.kubernetes.cri.pod-annotations"`
		Ports       []Port            `json:"portMappings"`
	} `json:"runtimeConfig"`
}

const (
	version  = `{"cniVersion":"1.0.0","supportedVersions":["0.3.1","0.4.0","1.0.0"]}`
	loopback = `{"cniVersion":"1.0.0","interfaces":[{"name":"lo","sandbox":%q}],"ips":[{"address":"127.0.0.1/8","interface":0}]}`
	timeout  = 30 * time.Second
)

// Is reports whether a program called arg0 is started as a CNI plugin.
func Is(arg0 string) bool {
	base := filepath.Base(arg0)
	return base == Name || base == Loopback
}

// Main runs one CNI command and returns the exit code. The error contract is the CNI specification's: a JSON
// object on stdout and a code that is not 0.
func Main(arg0 string, getenv func(string) string, stdin io.Reader, stdout io.Writer) int {
	answer, err := run(filepath.Base(arg0), getenv, stdin)
	if err != nil {
		json.NewEncoder(stdout).Encode(map[string]any{"cniVersion": "1.0.0", "code": 11, "msg": err.Error()}) // 11: try again later
		return 1
	}
	fmt.Fprintln(stdout, answer)
	return 0
}

func run(base string, getenv func(string) string, stdin io.Reader) (string, error) {
	command := getenv("CNI_COMMAND")
	if command == "VERSION" {
		return version, nil
	}
	if base == Loopback {
		// The daemon brings lo up. DEL must leave it: the namespace may be a node's own, bound over the sandbox's.
		if command == "ADD" {
			return fmt.Sprintf(loopback, getenv("CNI_NETNS")), nil
		}
		return "", nil
	}
	var c conf
	if err := json.NewDecoder(stdin).Decode(&c); err != nil {
		return "", fmt.Errorf("reading the network configuration: %w", err)
	}
	args := parseArgs(getenv("CNI_ARGS"))
	return ask(c.Socket, Request{
		Command: command, ContainerID: getenv("CNI_CONTAINERID"), Netns: getenv("CNI_NETNS"), IfName: getenv("CNI_IFNAME"),
		Node:        c.RuntimeConfig.Annotations[AnnotationNode],
		HostNetwork: c.RuntimeConfig.Annotations[AnnotationHostNetwork] == "true",
		PodName:     args["K8S_POD_NAME"], PodNamespace: args["K8S_POD_NAMESPACE"], PodUID: args["K8S_POD_UID"],
		Ports: c.RuntimeConfig.Ports,
	})
}

// parseArgs splits CNI_ARGS, "K=V;K=V".
func parseArgs(s string) map[string]string {
	args := make(map[string]string)
	for pair := range strings.SplitSeq(s, ";") {
		if k, v, ok := strings.Cut(pair, "="); ok {
			args[k] = v
		}
	}
	return args
}

// ask posts the request. A DEL succeeds when the daemon is away: the veth dies with its namespace, and a pod
// must be removable without a daemon.
func ask(socket string, r Request) (string, error) {
	body, err := json.Marshal(r)
	if err != nil {
		return "", err
	}
	conn, err := net.Dial("unix", socket)
	if err != nil {
		if r.Command == "DEL" && (errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, os.ErrNotExist)) {
			return "", nil
		}
		return "", fmt.Errorf("asking the minato daemon: %w", err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(timeout))
	// HTTP/1.0 by hand: net/http would double the plugin's start-up time. The answer ends with the connection.
	if _, err := fmt.Fprintf(conn, "POST /cni HTTP/1.0\r\nHost: minato\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(body), body); err != nil {
		return "", fmt.Errorf("asking the minato daemon: %w", err)
	}
	response, err := io.ReadAll(io.LimitReader(conn, 1<<20))
	if err != nil {
		return "", fmt.Errorf("reading the daemon's answer: %w", err)
	}
	head, answer, ok := strings.Cut(string(response), "\r\n\r\n")
	if !ok {
		return "", fmt.Errorf("the minato daemon hung up after %q", response)
	}
	answer = strings.TrimSpace(answer)
	if _, status, _ := strings.Cut(head, " "); !strings.HasPrefix(status, "200") {
		return "", fmt.Errorf("minato daemon: %s", answer)
	}
	return answer, nil
}
