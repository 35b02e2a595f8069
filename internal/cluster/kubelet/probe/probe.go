// Package probe asks containers how they are: by exec, HTTP, TCP and gRPC, and keeps the answers of each running
// container: started, ready, alive. The rules are the kubelet's (pkg/kubelet/prober), the requests upstream's
// (pkg/probe), sent from the node's network namespace.
//
// It does not restart containers or write status: it keeps results and says when one changes.
package probe

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	health "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	v1 "k8s.io/api/core/v1"
	"k8s.io/component-base/version"
	kubecontainer "k8s.io/kubernetes/pkg/kubelet/container"
	"k8s.io/kubernetes/pkg/probe"
	httpprobe "k8s.io/kubernetes/pkg/probe/http"
)

// Result is the outcome of a probe.
type Result = probe.Result

// ErrCommandTimedOut is what Exec returns for a command that did not end in time.
var ErrCommandTimedOut = errors.New("command timed out")

// maxOutput is how much of a command's output is told (kubelet's maxReadLength).
const maxOutput = 10 << 10

// Prober sends probes.
type Prober struct {
	// Dial connects from the node's namespace to an address in digits.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Exec runs a command in a container and returns its output. An exit code that is not 0 is no error.
	Exec func(ctx context.Context, containerID string, command []string, timeout time.Duration) (output []byte, exitCode int, err error)
}

// Probe sends one probe and returns its result and what was answered. An error means that there is no result.
func (p Prober) Probe(ctx context.Context, spec *v1.Probe, c Container) (Result, string, error) {
	timeout := time.Duration(spec.TimeoutSeconds) * time.Second
	switch {
	case spec.Exec != nil:
		return p.exec(ctx, spec, c, timeout)
	case spec.HTTPGet != nil:
		return p.http(ctx, spec, c, timeout)
	case spec.TCPSocket != nil:
		return p.tcp(ctx, spec, c, timeout)
	case spec.GRPC != nil:
		return p.grpc(ctx, spec, c, timeout)
	}
	return probe.Unknown, "", fmt.Errorf("missing probe handler for %s:%s", c.Pod.Name, c.Spec.Name)
}

func (p Prober) exec(ctx context.Context, spec *v1.Probe, c Container, timeout time.Duration) (Result, string, error) {
	output, code, err := p.Exec(ctx, c.ID, kubecontainer.ExpandContainerCommandOnlyStatic(spec.Exec.Command, c.Spec.Env), timeout)
	output = output[:min(len(output), maxOutput)]
	switch {
	case errors.Is(err, ErrCommandTimedOut):
		return probe.Failure, err.Error(), nil
	case err != nil:
		return probe.Unknown, "", err
	case code != 0:
		return probe.Failure, string(output), nil
	}
	return probe.Success, string(output), nil
}

func (p Prober) http(ctx context.Context, spec *v1.Probe, c Container, timeout time.Duration) (Result, string, error) {
	request, err := httpprobe.NewRequestForHTTPGetAction(spec.HTTPGet, c.Spec, c.PodIP, "probe")
	if err != nil {
		return probe.Unknown, "", err
	}
	client := http.Client{
		Timeout: timeout, CheckRedirect: httpprobe.RedirectChecker(false),
		Transport: &http.Transport{
			DialContext: p.Dial, DisableKeepAlives: true, DisableCompression: true,
			TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, // as upstream: a probe proves nothing about identity
		},
	}
	return httpprobe.DoHTTPProbe(request.WithContext(ctx), &client)
}

func (p Prober) tcp(ctx context.Context, spec *v1.Probe, c Container, timeout time.Duration) (Result, string, error) {
	port, err := probe.ResolveContainerPort(spec.TCPSocket.Port, c.Spec)
	if err != nil {
		return probe.Unknown, "", err
	}
	host := spec.TCPSocket.Host
	if host == "" {
		host = c.PodIP
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	conn, err := p.Dial(ctx, "tcp", net.JoinHostPort(host, strconv.Itoa(port)))
	if err != nil {
		return probe.Failure, err.Error(), nil
	}
	conn.Close()
	return probe.Success, "", nil
}

func (p Prober) grpc(ctx context.Context, spec *v1.Probe, c Container, timeout time.Duration) (Result, string, error) {
	address := net.JoinHostPort(c.PodIP, strconv.Itoa(int(spec.GRPC.Port)))
	conn, err := grpc.NewClient("passthrough:///"+address,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithUserAgent(fmt.Sprintf("kube-probe/%s.%s", version.Get().Major, version.Get().Minor)),
		grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) { return p.Dial(ctx, "tcp", address) }))
	if err != nil {
		return probe.Unknown, "", err
	}
	defer conn.Close()
	service := ""
	if spec.GRPC.Service != nil {
		service = *spec.GRPC.Service
	}
	ctx, cancel := context.WithTimeout(metadata.NewOutgoingContext(ctx, nil), timeout)
	defer cancel()
	response, err := health.NewHealthClient(conn).Check(ctx, &health.HealthCheckRequest{Service: service})
	switch {
	case status.Code(err) == codes.Unimplemented:
		return probe.Failure, fmt.Sprintf("error: this server does not implement the grpc health protocol (grpc.health.v1.Health): %s", status.Convert(err).Message()), nil
	case status.Code(err) == codes.DeadlineExceeded || status.Code(err) == codes.Unavailable && ctx.Err() != nil:
		return probe.Failure, fmt.Sprintf("timeout: failed to connect service %q within %v: %v", address, timeout, err), nil
	case err != nil:
		return probe.Failure, fmt.Sprintf("error: health rpc probe failed: %v", err), nil
	case response.GetStatus() != health.HealthCheckResponse_SERVING:
		return probe.Failure, fmt.Sprintf("service unhealthy (responded with %q)", response.GetStatus()), nil
	}
	return probe.Success, "service healthy", nil
}
