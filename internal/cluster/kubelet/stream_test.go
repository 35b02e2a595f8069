//go:build linux

package kubelet_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/client-go/transport/spdy"
	utilexec "k8s.io/client-go/util/exec"

	"minato/internal/netns"
)

// restConfig is how the API reaches the kubelet.
func (w *world) restConfig() *rest.Config {
	w.t.Helper()
	key, err := x509.MarshalPKCS8PrivateKey(w.caller.PrivateKey)
	if err != nil {
		w.t.Fatal(err)
	}
	certificate := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: w.caller.Certificate[0]})
	return &rest.Config{TLSClientConfig: rest.TLSClientConfig{
		CAData: certificate, CertData: certificate, KeyData: pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}),
	}}
}

// stream runs exec or attach as the API does, and returns stdout, stderr and the error of the command.
func (w *world) stream(path string, query url.Values, stdin io.Reader) (string, string, error) {
	w.t.Helper()
	target := &url.URL{Scheme: "https", Host: "127.0.0.1:10250", Path: path, RawQuery: query.Encode()}
	executor, err := remotecommand.NewSPDYExecutor(w.restConfig(), http.MethodPost, target)
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(w.t.Context(), soon)
	defer cancel()
	var stdout, stderr bytes.Buffer
	err = executor.StreamWithContext(ctx, remotecommand.StreamOptions{Stdin: stdin, Stdout: &stdout, Stderr: &stderr})
	return stdout.String(), stderr.String(), err
}

func TestExecPassesStreamsAndTheExitCode(t *testing.T) {
	w := newWorld(t, netns.NS{})
	w.start()
	w.create(pod("busy", "sleep"))
	w.until("busy", "ready", ready)
	query := url.Values{"command": {"/pod", "copy", ";", "complain", "oh", ";", "exit", "3"}, "input": {"1"}, "output": {"1"}, "error": {"1"}}
	stdout, stderr, err := w.stream("/exec/default/busy/main", query, strings.NewReader("from here"))
	var exit utilexec.CodeExitError
	if stdout != "from here" || stderr != "oh\n" || !errors.As(err, &exit) || exit.Code != 3 {
		t.Errorf("stdout %q, stderr %q, error %v", stdout, stderr, err)
	}
	if _, _, err := w.stream("/exec/default/busy/other", query, nil); err == nil {
		t.Error("exec in a container that is not there")
	}
}

func TestAttachTakesOverStdin(t *testing.T) {
	w := newWorld(t, netns.NS{})
	w.start()
	w.create(pod("listening", "echo first ; copy ; echo last", func(p *v1.Pod) {
		p.Spec.RestartPolicy = v1.RestartPolicyNever
		p.Spec.Containers[0].Stdin, p.Spec.Containers[0].StdinOnce = true, true
	}))
	w.until("listening", "ready", ready)
	query := url.Values{"input": {"1"}, "output": {"1"}, "error": {"1"}}
	stdout, _, err := w.stream("/attach/default/listening/main", query, strings.NewReader("typed\n"))
	if err != nil || stdout != "first\ntyped\nlast\n" { // also what it wrote before somebody listened
		t.Errorf("stdout %q, error %v", stdout, err)
	}
	w.until("listening", "succeeded", func(p *v1.Pod) bool { return p.Status.Phase == v1.PodSucceeded })
}

func TestWhoHasReadTheLogAndThenAttachesGetsEachLineOnce(t *testing.T) {
	w := newWorld(t, netns.NS{})
	w.start()
	once := func(p *v1.Pod) {
		p.Spec.RestartPolicy = v1.RestartPolicyNever
		p.Spec.Containers[0].Stdin, p.Spec.Containers[0].StdinOnce = true, true
	}
	query := url.Values{"input": {"1"}, "output": {"1"}, "error": {"1"}}
	w.create(pod("read", "echo first ; copy ; echo last", once))
	if log := w.untilLogged("read", "main", "first"); log != "first\n" {
		t.Errorf("log %q", log)
	}
	stdout, _, err := w.stream("/attach/default/read/main", query, strings.NewReader("typed\n"))
	if err != nil || stdout != "typed\nlast\n" {
		t.Errorf("attached after it: %q, error %v", stdout, err)
	}
	w.create(pod("quick", "echo all", once))
	w.until("quick", "succeeded", func(p *v1.Pod) bool { return p.Status.Phase == v1.PodSucceeded })
	stdout, _, err = w.stream("/attach/default/quick/main", query, strings.NewReader("typed\n"))
	if err != nil || stdout != "all\n" {
		t.Errorf("attached after its end: %q, error %v", stdout, err)
	}
	if log, _ := w.call("/containerLogs/default/quick/main"); log != "all\n" {
		t.Errorf("log %q", log)
	}
	if stdout, _, err = w.stream("/attach/default/quick/main", query, strings.NewReader("")); err != nil || stdout != "" {
		t.Errorf("attached after its log: %q, error %v", stdout, err)
	}
}

func TestPortForwardReachesThePod(t *testing.T) {
	w := newWorld(t, netns.NS{})
	w.start()
	w.create(pod("web", "serve 8080 ; sleep", func(p *v1.Pod) {
		p.Spec.Containers[0].ReadinessProbe = &v1.Probe{ProbeHandler: v1.ProbeHandler{TCPSocket: &v1.TCPSocketAction{Port: intstr.FromInt32(8080)}}, PeriodSeconds: 1, TimeoutSeconds: 1, SuccessThreshold: 1, FailureThreshold: 1}
	}))
	w.until("web", "ready", ready)
	transport, upgrader, err := spdy.RoundTripperFor(w.restConfig())
	if err != nil {
		t.Fatal(err)
	}
	dialer := spdy.NewDialer(upgrader, &http.Client{Transport: transport}, http.MethodPost, &url.URL{Scheme: "https", Host: "127.0.0.1:10250", Path: "/portForward/default/web"})
	stop, opened := make(chan struct{}), make(chan struct{})
	forwarder, err := portforward.NewOnAddresses(dialer, []string{"127.0.0.1"}, []string{"0:8080"}, stop, opened, io.Discard, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- forwarder.ForwardPorts() }()
	defer func() { close(stop); <-ended }()
	select {
	case <-opened:
	case err := <-ended:
		t.Fatal(err)
	}
	ports, err := forwarder.GetPorts()
	if err != nil {
		t.Fatal(err)
	}
	response, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d/", ports[0].Local))
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if body, err := io.ReadAll(response.Body); err != nil || string(body) != "served\n" {
		t.Errorf("body %q, %v", body, err)
	}
}

func TestLogsFollowAndAreCut(t *testing.T) {
	w := newWorld(t, netns.NS{})
	w.start()
	gate := newGate(t)
	w.create(pod("talking", "echo one ; echo two ; echo three ; await /gate/open ; echo four", func(p *v1.Pod) {
		p.Spec.RestartPolicy = v1.RestartPolicyNever
		gate.mount(p)
	}))
	w.untilLogged("talking", "main", "three")
	if log, _ := w.call("/containerLogs/default/talking/main?tailLines=1"); log != "three\n" {
		t.Errorf("the last line is %q", log)
	}
	start := time.Now()
	time.AfterFunc(time.Second, gate.open) // when the log is followed, most likely
	if log, _ := w.call("/containerLogs/default/talking/main?follow=true"); log != "one\ntwo\nthree\nfour\n" {
		t.Errorf("followed to its end: %q after %v", log, time.Since(start))
	}
	if log, _ := w.call("/containerLogs/default/talking/main?limitBytes=5"); log != "one\nt" {
		t.Errorf("the first 5 bytes are %q", log)
	}
	log, _ := w.call("/containerLogs/default/talking/main?timestamps=true&tailLines=1")
	at, text, _ := strings.Cut(log, " ")
	if _, err := time.Parse(time.RFC3339Nano, at); err != nil || text != "four\n" {
		t.Errorf("with its time: %q, %v", log, err)
	}
}

func TestOnlyThePrivilegedAreServed(t *testing.T) {
	w := newWorld(t, netns.NS{})
	w.start()
	w.create(pod("private", "sleep"))
	w.until("private", "ready", ready)
	for path, want := range map[string]int{"/healthz": http.StatusOK, "/pods": http.StatusUnauthorized, "/containerLogs/default/private/main": http.StatusUnauthorized} {
		client := http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: w.roots}, DisableKeepAlives: true}}
		response, err := client.Get("https://127.0.0.1:10250" + path)
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		if response.StatusCode != want {
			t.Errorf("%s without a certificate: %d, want %d", path, response.StatusCode, want)
		}
	}
	if body, code := w.call("/pods"); code != http.StatusOK || !strings.Contains(body, `"name":"private"`) {
		t.Errorf("with a certificate: %d %s", code, body)
	}
}
