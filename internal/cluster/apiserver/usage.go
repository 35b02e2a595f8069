package apiserver

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"time"

	"k8s.io/apimachinery/pkg/types"
	stats "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
	kubeletclient "k8s.io/kubernetes/pkg/kubelet/client"

	"minato/internal/cluster/apiserver/metrics"
)

// summaryTimeout bounds how long a node that does not answer holds up who asks what all nodes use.
const summaryTimeout = 2 * time.Second

// usage is where metrics.k8s.io has its answers from: the kubelets, reached as for logs.
func (s *Server) usage(kubelets kubeletclient.ConnectionInfoGetter) metrics.Source {
	core := s.informers.Core().V1()
	return metrics.Source{
		Nodes: core.Nodes().Lister(), Pods: core.Pods().Lister(),
		Summary: func(ctx context.Context, node string) (*stats.Summary, error) { return summary(ctx, kubelets, node) },
	}
}

// summary asks the kubelet of a node what it and its pods use.
func summary(ctx context.Context, kubelets kubeletclient.ConnectionInfoGetter, node string) (*stats.Summary, error) {
	ctx, cancel := context.WithTimeout(ctx, summaryTimeout)
	defer cancel()
	at, err := kubelets.GetConnectionInfo(ctx, types.NodeName(node))
	if err != nil {
		return nil, err
	}
	u := url.URL{Scheme: at.Scheme, Host: net.JoinHostPort(at.Hostname, at.Port), Path: "/stats/summary"}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, err
	}
	response, err := (&http.Client{Transport: at.Transport}).Do(request)
	if err != nil {
		return nil, fmt.Errorf("asking the kubelet of %s: %w", node, err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("asking the kubelet of %s: %s", node, response.Status)
	}
	answer := new(stats.Summary)
	if err := json.NewDecoder(response.Body).Decode(answer); err != nil {
		return nil, fmt.Errorf("what the kubelet of %s says: %w", node, err)
	}
	return answer, nil
}
