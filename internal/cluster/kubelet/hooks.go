//go:build linux

package kubelet

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"time"

	v1 "k8s.io/api/core/v1"
	httpprobe "k8s.io/kubernetes/pkg/probe/http"
)

// hook runs a lifecycle hook until it is done or ctx ends, and says how it failed, nothing if it did not
// (pkg/kubelet/lifecycle).
func (k *Kubelet) hook(ctx context.Context, pod *v1.Pod, c *v1.Container, id string, ips []string, h *v1.LifecycleHandler) (failure string) {
	where := fmt.Sprintf("for Container %q in Pod %q failed - error: ", c.Name, podFormat(pod))
	switch {
	case h.Exec != nil:
		output, code, err := k.exec(ctx, id, h.Exec.Command, 0)
		if err == nil && code != 0 {
			err = fmt.Errorf("command '%v' exited with %d", h.Exec.Command, code)
		}
		if err != nil {
			return fmt.Sprintf("Exec lifecycle hook (%v) %s%v, message: %q", h.Exec.Command, where, err, output)
		}
	case h.HTTPGet != nil:
		if err := k.httpHook(ctx, pod, c, ips, h.HTTPGet); err != nil {
			return fmt.Sprintf("HTTP lifecycle hook (%s) %s%v", h.HTTPGet.Path, where, err)
		}
	case h.Sleep != nil:
		select {
		case <-time.After(time.Duration(h.Sleep.Seconds) * time.Second):
		case <-ctx.Done():
			return fmt.Sprintf("Sleep lifecycle hook (%d) %scontainer terminated before sleep hook finished", h.Sleep.Seconds, where)
		}
	default: // the API keeps tcpSocket for old objects, and nobody runs it
		return fmt.Sprintf("Cannot run handler: invalid handler: %v", h)
	}
	return ""
}

// httpHook sends a request; any answer is a success. A server that answers HTTPS with HTTP is asked again by HTTP.
func (k *Kubelet) httpHook(ctx context.Context, pod *v1.Pod, c *v1.Container, ips []string, get *v1.HTTPGetAction) error {
	request, err := httpprobe.NewRequestForHTTPGetAction(get, c, k.podIP(pod, ips), "lifecycle")
	if err != nil {
		return err
	}
	client := http.Client{Transport: &http.Transport{
		DialContext: k.cfg.Netns.DialContext, DisableKeepAlives: true,
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, // as upstream: a hook proves nothing about identity
	}}
	response, err := client.Do(request.WithContext(ctx))
	if err == nil {
		return response.Body.Close()
	}
	if !errors.Is(err, http.ErrSchemeMismatch) {
		return err
	}
	again := request.Clone(ctx)
	again.URL.Scheme = "http"
	again.Header.Del("Authorization")
	response, errAgain := client.Do(again)
	if errAgain != nil {
		return err
	}
	k.podEvent(pod, v1.EventTypeWarning, "LifecycleHTTPFallback",
		fmt.Sprintf("request to HTTPS lifecycle hook %s got HTTP response, retry with HTTP succeeded", request.URL.Host))
	return response.Body.Close()
}
