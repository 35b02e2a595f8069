//go:build linux

package proxy

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"minato/internal/netns/netnstest"
	"minato/test/feed"
)

// peer is a program that is compared.
type peer struct {
	name string
	args func(kubeconfig, dir string) []string // program first
}

func peers() []peer {
	kubeProxy := func(mode string) peer {
		return peer{"kube-proxy " + mode, func(kubeconfig, dir string) []string {
			config := filepath.Join(dir, "config.yaml")
			content := fmt.Sprintf("apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\nmode: %s\nhostnameOverride: %s\n"+
				"clusterCIDR: %s\nclientConnection: {kubeconfig: %s}\nconntrack: {maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}\n",
				mode, nodeName, podRange, kubeconfig)
			if err := os.WriteFile(config, []byte(content), 0o600); err != nil {
				panic(err)
			}
			return []string{*kubeProxyBinary, "--config", config, "-v=0"}
		}}
	}
	return []peer{
		{"minato", func(kubeconfig, _ string) []string {
			return []string{*agentBinary, "--kubeconfig", kubeconfig, "--node-name", nodeName, "--service-cidr", serviceRange}
		}},
		kubeProxy("nftables"), kubeProxy("iptables"),
	}
}

// running is a peer at work in the node's namespace, in a memory cgroup of its own.
type running struct {
	pid     int
	started time.Time
	cgroup  string
	stop    func()
}

// start runs a peer against an API with the objects given.
func (w *world) start(t *testing.T, p peer, api *feed.Server) *running {
	dir := t.TempDir()
	l, err := w.node.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var served sync.WaitGroup
	served.Go(func() { _ = api.Serve(ctx, l) })
	kubeconfig := filepath.Join(dir, "kubeconfig")
	content := fmt.Sprintf("apiVersion: v1\nkind: Config\nclusters: [{name: c, cluster: {server: \"http://%s\"}}]\nusers: [{name: u}]\n"+
		"contexts: [{name: c, context: {cluster: c, user: u}}]\ncurrent-context: c\n", l.Addr())
	if err := os.WriteFile(kubeconfig, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	r := &running{cgroup: memoryCgroup(t)}
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	argv := p.args(kubeconfig, dir)
	// The shell enters the cgroup and becomes the peer.
	cmd := exec.Command("sh", append([]string{"-c", `echo $$ > "$0"/cgroup.procs; exec "$@"`, r.cgroup}, argv...)...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &unix.SysProcAttr{Setpgid: true}
	r.started = time.Now()
	if err := netnstest.Start(w.node, cmd); err != nil {
		t.Fatal(err)
	}
	r.pid = cmd.Process.Pid
	r.stop = sync.OnceFunc(func() {
		_ = unix.Kill(-r.pid, unix.SIGKILL) // with what it has started
		_ = cmd.Wait()
		cancel()
		served.Wait()
		log.Close()
		netnstest.Run(t, w.node, "nft", "flush", "ruleset")
	})
	t.Cleanup(r.stop)
	return r
}

// memoryCgroup makes a cgroup whose kernel memory is counted, where the machine has such.
func memoryCgroup(t *testing.T) string {
	root := "/sys/fs/cgroup/memory"
	if _, err := os.Stat("/sys/fs/cgroup/cgroup.controllers"); err == nil {
		root = "/sys/fs/cgroup"
	}
	at := filepath.Join(root, netnstest.Name("bench"))
	if err := os.Mkdir(at, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for range 100 { // until its last process is gone
			if os.Remove(at) == nil {
				return
			}
			time.Sleep(20 * time.Millisecond)
		}
	})
	return at
}

// cpu is the processor time of the peer and of all that it has started, whether they have ended or not.
func (r *running) cpu() time.Duration {
	files, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		panic(err) // the pattern is good
	}
	var ticks int64
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			continue // it has ended meanwhile, and whoever waits for it has its time
		}
		f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+2:])) // from the third field on
		if f[2] != strconv.Itoa(r.pid) {
			continue // of another process group
		}
		for _, v := range f[11:15] { // utime stime, and those of children that were waited for
			n, _ := strconv.ParseInt(v, 10, 64)
			ticks += n
		}
	}
	return time.Duration(ticks) * time.Second / 100
}

// rss is the resident memory of the peer alone, and its greatest, in MB.
func (r *running) rss() (now, peak float64) {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", r.pid))
	for line := range strings.Lines(string(b)) {
		var kb float64
		if _, err := fmt.Sscanf(line, "VmRSS: %f kB", &kb); err == nil {
			now = kb / 1024
		}
		if _, err := fmt.Sscanf(line, "VmHWM: %f kB", &kb); err == nil {
			peak = kb / 1024
		}
	}
	return now, peak
}

// kernelMemory is what the kernel has allocated for the peer, in MB.
func (r *running) kernelMemory() float64 {
	if b, err := os.ReadFile(filepath.Join(r.cgroup, "memory.kmem.usage_in_bytes")); err == nil {
		v, _ := strconv.ParseFloat(strings.TrimSpace(string(b)), 64)
		return v / (1 << 20)
	}
	b, _ := os.ReadFile(filepath.Join(r.cgroup, "memory.stat"))
	for line := range strings.Lines(string(b)) {
		var v float64
		if _, err := fmt.Sscanf(line, "kernel %f", &v); err == nil {
			return v / (1 << 20)
		}
	}
	return 0
}

// synced waits for the Service that is programmed last, and says how long that took.
func (w *world) synced(r *running, s size, limit time.Duration) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	at, err := w.reached(ctx, netip.AddrPortFrom(serviceAddr(s.last()), 80))
	return at.Sub(r.started), err
}
