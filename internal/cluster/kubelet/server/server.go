//go:build linux

// Package server is what the API asks of a node: logs, exec, attach, port-forward, the list of its pods and what they
// use, by the paths of the kubelet (pkg/kubelet/server).
//
// Streams are passed on to the runtime's own streaming server, byte for byte, so that SPDY and WebSocket both work
// as far as the runtime knows them; but for a container that lives for one client alone, which gets all of its output. A
// client certificate of the given authority whose organization is system:masters may do everything, as the API's own
// has; another nothing. The API decides who may come through it.
//
// It serves no metrics of the kubelet itself and no debugging.
package server

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/proxy"
	internalapi "k8s.io/cri-api/pkg/apis"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
	stats "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
	kubelettypes "k8s.io/kubelet/pkg/types"

	"minato/internal/drain"
)

// Pods is what the server wants to know of the node's pods. All methods are called concurrently.
type Pods interface {
	Pod(namespace, name string) (*v1.Pod, bool)
	Pods() []*v1.Pod
	Summary() stats.Summary // every CPU and Memory in it has its values
}

// Server serves one node.
type Server struct {
	Pods    Pods
	Runtime internalapi.RuntimeService
	LogDir  string // holds NAMESPACE_NAME_UID/CONTAINER/N.log
	Log     *slog.Logger

	shown *shown
}

// privileged is the organization of clients that may do everything (k8s.io/apiserver, user.SystemPrivilegedGroup).
const privileged = "system:masters"

// errNotFound is a pod or container that is not here.
var errNotFound = errors.New("not found")

// Serve answers on the listener until ctx ends. It closes the listener and ends open streams.
func (s Server) Serve(ctx context.Context, listener net.Listener, certificate tls.Certificate, clients *x509.CertPool) error {
	base, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	server := &http.Server{
		Handler:           s.handler(),
		ErrorLog:          slog.NewLogLogger(s.Log.Handler(), slog.LevelDebug),
		ReadHeaderTimeout: 30 * time.Second,
		BaseContext:       func(net.Listener) context.Context { return base },
		TLSConfig: &tls.Config{
			Certificates: []tls.Certificate{certificate}, ClientCAs: clients, ClientAuth: tls.VerifyClientCertIfGiven,
			MinVersion: tls.VersionTLS12,
			NextProtos: []string{"http/1.1"}, // SPDY and WebSocket take the connection over, which HTTP/2 cannot
		},
	}
	const grace = time.Second // for whom has just connected; what lasts, such as logs that are followed, ends with base
	return drain.Until(ctx, server, listener, grace)
}

func (s Server) handler() http.Handler {
	s.shown = new(shown)
	private := http.NewServeMux()
	private.HandleFunc("GET /pods", s.pods)
	private.HandleFunc("GET /stats/summary", s.summary)
	private.Handle("GET /metrics/resource", s.resourceMetrics())
	private.HandleFunc("GET /containerLogs/{namespace}/{pod}/{container}", s.logs)
	for _, method := range []string{"GET", "POST"} {
		private.HandleFunc(method+" /exec/{namespace}/{pod}/{container}", s.exec)
		private.HandleFunc(method+" /exec/{namespace}/{pod}/{uid}/{container}", s.exec)
		private.HandleFunc(method+" /attach/{namespace}/{pod}/{container}", s.attach)
		private.HandleFunc(method+" /attach/{namespace}/{pod}/{uid}/{container}", s.attach)
		private.HandleFunc(method+" /portForward/{namespace}/{pod}", s.portForward)
		private.HandleFunc(method+" /portForward/{namespace}/{pod}/{uid}", s.portForward)
	}
	public := http.NewServeMux()
	public.HandleFunc("GET /healthz", func(w http.ResponseWriter, r *http.Request) { w.Write([]byte("ok")) })
	public.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.TLS == nil || len(r.TLS.VerifiedChains) == 0:
			http.Error(w, "Unauthorized", http.StatusUnauthorized)
		case !slices.Contains(r.TLS.VerifiedChains[0][0].Subject.Organization, privileged):
			http.Error(w, "Forbidden", http.StatusForbidden)
		default:
			private.ServeHTTP(w, r)
		}
	})
	return public
}

func (s Server) pods(w http.ResponseWriter, r *http.Request) {
	list := v1.PodList{}
	list.Kind, list.APIVersion = "PodList", "v1"
	for _, pod := range s.Pods.Pods() {
		list.Items = append(list.Items, *pod)
	}
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(list)
}

func (s Server) exec(w http.ResponseWriter, r *http.Request) {
	s.stream(w, r, func(ctx context.Context) (string, error) {
		c, err := s.running(ctx, r)
		if err != nil {
			return "", err
		}
		q := r.URL.Query()
		response, err := s.Runtime.Exec(ctx, &cri.ExecRequest{
			ContainerId: c.Id, Cmd: q["command"], Tty: isTrue(q, v1.ExecTTYParam), Stdin: isTrue(q, v1.ExecStdinParam),
			Stdout: isTrue(q, v1.ExecStdoutParam), Stderr: isTrue(q, v1.ExecStderrParam) && !isTrue(q, v1.ExecTTYParam),
		})
		return response.GetUrl(), err
	})
}

func (s Server) attach(w http.ResponseWriter, r *http.Request) {
	pod, err := s.pod(r)
	if err != nil {
		fail(w, err)
		return
	}
	if name := r.PathValue("container"); forOneClient(pod, name) {
		s.attachOnce(w, r, pod, name)
		return
	}
	s.stream(w, r, func(ctx context.Context) (string, error) {
		c, err := s.running(ctx, r)
		if err != nil {
			return "", err
		}
		q := r.URL.Query()
		tty := isTrue(q, v1.ExecTTYParam)
		response, err := s.Runtime.Attach(ctx, &cri.AttachRequest{
			ContainerId: c.Id, Tty: tty, Stdin: isTrue(q, v1.ExecStdinParam),
			Stdout: isTrue(q, v1.ExecStdoutParam), Stderr: isTrue(q, v1.ExecStderrParam) && !tty,
		})
		return response.GetUrl(), err
	})
}

func (s Server) portForward(w http.ResponseWriter, r *http.Request) {
	s.stream(w, r, func(ctx context.Context) (string, error) {
		pod, err := s.pod(r)
		if err != nil {
			return "", err
		}
		var ports []int32
		for _, text := range r.URL.Query()["port"] {
			port, err := strconv.ParseUint(text, 10, 16)
			if err != nil {
				return "", fmt.Errorf("port %q: %w", text, err)
			}
			ports = append(ports, int32(port))
		}
		sandboxes, err := s.Runtime.ListPodSandbox(ctx, &cri.PodSandboxFilter{
			LabelSelector: map[string]string{kubelettypes.KubernetesPodUIDLabel: string(pod.UID)},
			State:         &cri.PodSandboxStateValue{State: cri.PodSandboxState_SANDBOX_READY},
		})
		if err != nil {
			return "", err
		}
		if len(sandboxes) == 0 {
			return "", fmt.Errorf("sandbox of pod %s/%s: %w", pod.Namespace, pod.Name, errNotFound)
		}
		response, err := s.Runtime.PortForward(ctx, &cri.PortForwardRequest{PodSandboxId: sandboxes[0].Id, Port: ports})
		return response.GetUrl(), err
	})
}

// stream passes the connection on to where the runtime serves it.
func (s Server) stream(w http.ResponseWriter, r *http.Request, locate func(context.Context) (string, error)) {
	target, err := locate(r.Context())
	if err != nil {
		fail(w, err)
		return
	}
	location, err := url.Parse(target)
	if err != nil {
		fail(w, err)
		return
	}
	handler := proxy.NewUpgradeAwareHandler(location, nil, false, true, responder{s.Log})
	handler.ServeHTTP(w, r)
}

// responder answers where the runtime could not be reached.
type responder struct{ log *slog.Logger }

func (e responder) Error(w http.ResponseWriter, r *http.Request, err error) {
	e.log.Warn("passing a stream to the runtime", "path", r.URL.Path, "err", err)
	fail(w, err)
}

func fail(w http.ResponseWriter, err error) {
	code := http.StatusInternalServerError
	if errors.Is(err, errNotFound) {
		code = http.StatusNotFound
	}
	http.Error(w, err.Error(), code)
}

// pod is the pod that the path names; a UID in it must be the pod's.
func (s Server) pod(r *http.Request) (*v1.Pod, error) {
	pod, ok := s.Pods.Pod(r.PathValue("namespace"), r.PathValue("pod"))
	if uid := r.PathValue("uid"); !ok || uid != "" && uid != string(pod.UID) {
		return nil, fmt.Errorf("pod %s/%s: %w", r.PathValue("namespace"), r.PathValue("pod"), errNotFound)
	}
	return pod, nil
}

// running is the container that the path names, which must run.
func (s Server) running(ctx context.Context, r *http.Request) (*cri.Container, error) {
	pod, err := s.pod(r)
	if err != nil {
		return nil, err
	}
	containers, err := s.instances(ctx, pod, r.PathValue("container"))
	if err != nil {
		return nil, err
	}
	for _, c := range containers {
		if c.State == cri.ContainerState_CONTAINER_RUNNING {
			return c, nil
		}
	}
	return nil, fmt.Errorf("running container %s of pod %s/%s: %w", r.PathValue("container"), pod.Namespace, pod.Name, errNotFound)
}

func isTrue(q url.Values, name string) bool {
	value := q.Get(name)
	return value == "1" || value == "true"
}
