//go:build linux

package stress

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"
	"k8s.io/client-go/rest"

	"minato/internal/apply"
	"minato/internal/dataplane/nftables/kernel"
	"minato/internal/model"
	"minato/internal/netns/netnstest"
	"minato/internal/nfnl"
	"minato/internal/source"
	"minato/internal/source/kube"
	"minato/internal/status"
)

// node is what keeps the kernel at what the API says.
type node interface {
	start()
	kill() // at once, wherever it is
}

// process is minato-agent, ended by SIGKILL.
type process struct {
	w    *world
	dir  string
	stop func()
}

var agentBinary = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "minato-stress-")
	if err != nil {
		return "", err
	}
	at := filepath.Join(dir, "minato-agent")
	if out, err := exec.Command("go", "build", "-o", at, "minato/cmd/minato-agent").CombinedOutput(); err != nil {
		return at, fmt.Errorf("build minato-agent: %w\n%s", err, out)
	}
	return at, nil
})

func (p *process) start() {
	at, err := agentBinary()
	if err != nil {
		p.w.t.Fatal(err)
	}
	kubeconfig := filepath.Join(p.dir, "kubeconfig")
	content := fmt.Sprintf("apiVersion: v1\nkind: Config\nclusters: [{name: c, cluster: {server: \"http://%s\"}}]\n"+
		"contexts: [{name: c, context: {cluster: c}}]\ncurrent-context: c\n", p.w.apiAddr)
	if err := os.WriteFile(kubeconfig, []byte(content), 0o600); err != nil {
		p.w.t.Fatal(err)
	}
	cmd := exec.Command(at, "--kubeconfig", kubeconfig, "--node-name", "node1", "--service-cidr", serviceCIDRs[0].String())
	if err := netnstest.Start(p.w.node, cmd); err != nil {
		p.w.t.Fatal(err)
	}
	p.stop = sync.OnceFunc(func() {
		_ = unix.Kill(cmd.Process.Pid, unix.SIGKILL)
		_ = cmd.Wait()
	})
}

func (p *process) kill() { p.stop() }

// faulty is a node in this process, whose commits fail now and then: refused, lost on the way, or done but unknown.
type faulty struct {
	w    *world
	seed uint64
	stop func()
}

type faultyKernel struct {
	*nfnl.Conn
	mu sync.Mutex
	r  *rand.Rand
}

func (k *faultyKernel) Commit(b *nfnl.Batch) error {
	k.mu.Lock()
	fault := k.r.IntN(12)
	k.mu.Unlock()
	if fault == 0 {
		return &nfnl.Error{Errno: unix.ENOMEM}
	}
	err := k.Conn.Commit(b)
	if fault == 1 && err == nil {
		return fmt.Errorf("injected fault: %w", nfnl.ErrUnknownOutcome)
	}
	return err
}

func (f *faulty) open() (*kernel.Applier, error) {
	conn, err := nfnl.Open(f.w.node)
	if err != nil {
		return nil, err
	}
	f.seed++
	k := &faultyKernel{Conn: conn, r: rand.New(rand.NewPCG(f.seed, 1))}
	return kernel.Open(kernel.Config{Kernel: k, Conntrack: conn, ServiceCIDRs: serviceCIDRs})
}

func (f *faulty) start() {
	a, err := f.open()
	for again := 0; err != nil && again < 20; again++ { // whoever started it would do so again
		a, err = f.open()
	}
	if err != nil {
		f.w.t.Fatal(err)
	}
	client, err := kube.Client(&rest.Config{Host: "http://" + f.w.apiAddr, Dial: f.w.node.DialContext})
	if err != nil {
		f.w.t.Fatal(err)
	}
	builder := source.NewBuilder()
	loop := apply.New(apply.Config{Source: builder, Node: model.Node{Name: "node1"}, Board: new(status.Board),
		Log: slog.New(slog.DiscardHandler), Programmers: []apply.Programmer{a}})
	ctx, cancel := context.WithCancel(context.Background())
	var work sync.WaitGroup
	errs := make([]error, 2)
	work.Go(func() { errs[0] = kube.RunServices(ctx, client, builder) })
	work.Go(func() { errs[1] = loop.Run(ctx) })
	f.stop = sync.OnceFunc(func() {
		cancel()
		work.Wait()
		if err := errors.Join(append(errs, a.Close())...); err != nil {
			f.w.t.Error(err)
		}
	})
}

func (f *faulty) kill() { f.stop() }
