package run

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"sync"
	"time"

	"minato/internal/flows"
	"minato/internal/model"
	"minato/internal/nfnl"
	"minato/internal/source/kube"
	"minato/internal/web"
)

// flows prints the connections of Services that nodes track, as the kernel tells them: none is kept here. The names of
// client pods are those at the start.
func (u *instanceRun) flows(ctx context.Context, q web.Query, pods *kube.Pods, w io.Writer) error {
	snapshot := u.builder.Current()
	only, err := serviceAsked(snapshot, q)
	if err != nil {
		return err
	}
	agents := u.agents
	if q.Node != "" {
		a, err := u.agentOf(q.Node)
		if err != nil {
			return err
		}
		agents = []*agent{a}
	}
	p := &flowPrinter{w: w, output: q.Output, only: only, source: u.builder.Current, pods: map[netip.Addr]string{}}
	if q.Output == web.Text {
		p.text = flows.NewText(w, q.Watch)
	}
	for _, pod := range pods.In("") {
		if !pod.HostNetwork {
			p.pods[pod.Addr] = pod.Namespace + "/" + pod.Name
		}
	}
	if err := pods.Err(); err != nil {
		return err
	}
	if q.Watch {
		return p.watch(ctx, agents)
	}
	for _, a := range agents {
		if err := p.list(ctx, a); err != nil {
			return err
		}
	}
	switch {
	case p.text == nil:
		return nil
	case p.text.Empty():
		_, err := fmt.Fprintln(w, noFlows(snapshot.Service(only)))
		return err
	}
	return p.text.Flush()
}

// noFlows says in words that a list is empty; svc is nil where all Services were asked for.
func noFlows(svc *model.Service) string {
	switch {
	case svc == nil:
		return "no connection to a Service is open or remembered"
	case svc.Headless:
		return svc.Name.String() + " is headless: clients connect to its pods, and no connection passes it"
	case svc.Type == model.TypeExternalName:
		return svc.Name.String() + " is a name for " + svc.ExternalName + ": no connection passes it"
	}
	return "no connection to " + svc.Name.String() + " is open or remembered"
}

// serviceAsked is the Service of a selector: svc/NAME, svc/NAMESPACE/NAME, NAMESPACE/NAME or NAME. The zero name is all.
func serviceAsked(s *model.Snapshot, q web.Query) (n model.ServiceName, err error) {
	if q.Selector == "" {
		return n, nil
	}
	name := strings.TrimPrefix(strings.TrimPrefix(q.Selector, "service/"), "svc/")
	n = model.ServiceName{Namespace: "default", Name: name}
	if q.Namespace != "" {
		n.Namespace = q.Namespace
	}
	if namespace, rest, ok := strings.Cut(name, "/"); ok {
		n = model.ServiceName{Namespace: namespace, Name: rest}
	}
	if s.Service(n) == nil {
		return n, fmt.Errorf("%s: there is no Service %s: %w", nearNames(s, n), n, web.ErrNotFound)
	}
	return n, nil
}

// flowPrinter writes flows as they come, one a line.
type flowPrinter struct {
	output string
	only   model.ServiceName
	source func() *model.Snapshot
	pods   map[netip.Addr]string

	mu      sync.Mutex // of all below: every node is watched for itself
	w       io.Writer
	text    *flows.Text // to w; nil: objects
	err     error       // of w: the client went away
	index   *flows.Index
	of      *model.Snapshot // of index
	indexed time.Time
}

// list prints what a node tracks now. The socket is its own, so that a slow reader holds up nobody.
func (p *flowPrinter) list(ctx context.Context, a *agent) error {
	conn, err := nfnl.Open(a.netns)
	if err != nil {
		return err
	}
	defer conn.Close()
	for _, family := range []nfnl.Family{nfnl.IPv4, nfnl.IPv6} {
		for _, protocol := range []model.Protocol{model.TCP, model.UDP, model.SCTP} {
			if err := errors.Join(ctx.Err(), p.err); err != nil {
				return err
			}
			if err := conn.Flows(family, uint8(protocol), func(f nfnl.Flow) { p.print(a, "", f) }); err != nil {
				return fmt.Errorf("node %s: %w", a.node.Name, err)
			}
		}
	}
	return p.err
}

// watch prints what begins and ends until ctx does, or the reader goes away.
func (p *flowPrinter) watch(ctx context.Context, agents []*agent) error {
	if p.text != nil {
		if err := p.text.Flush(); err != nil {
			return err
		}
	}
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	var nodes sync.WaitGroup
	for _, a := range agents {
		tell := func(event string) func(nfnl.Flow) {
			return func(f nfnl.Flow) {
				if p.print(a, event, f); p.gone() {
					stop(nil)
				}
			}
		}
		nodes.Go(func() {
			err := nfnl.WatchFlows(ctx, a.netns, tell("new"), tell("end"), func() { p.missed(a) })
			if err != nil {
				stop(fmt.Errorf("node %s: %w", a.node.Name, err))
			}
		})
	}
	nodes.Wait()
	if err := context.Cause(ctx); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

func (p *flowPrinter) print(a *agent, event string, f nfnl.Flow) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err != nil {
		return
	}
	n := p.current().NodeNamed(a.node.Name)
	if n == nil {
		n = &a.node
	}
	flow, ok := p.index.Of(n, flows.Tracked{
		Protocol: model.Protocol(f.Protocol), Client: f.Src, To: f.Dst, Backend: f.ReplySrc, SeenAs: f.ReplyDst,
		State: f.State, LeftSeconds: int(f.Left / time.Second),
	})
	if !ok {
		return
	}
	flow.Event = event
	if p.text != nil {
		p.err = p.text.Print(flow)
		return
	}
	p.err = p.object(flow)
}

// object writes one a line; as YAML that is an item of a list.
func (p *flowPrinter) object(v any) error {
	if p.output == web.YAML {
		if _, err := io.WriteString(p.w, "- "); err != nil {
			return err
		}
	}
	return json.NewEncoder(p.w).Encode(v)
}

// current makes the index that of the newest snapshot, at most once a second: it takes all Services.
func (p *flowPrinter) current() *model.Snapshot {
	const often = time.Second
	if newest := p.source(); newest != p.of && time.Since(p.indexed) > often {
		p.of, p.index, p.indexed = newest, flows.New(newest, p.only, except(), p.pods), time.Now()
	}
	return p.of
}

func (p *flowPrinter) gone() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.err != nil
}

// missed says that the list has a gap.
func (p *flowPrinter) missed(a *agent) {
	p.mu.Lock()
	defer p.mu.Unlock()
	const text = "more happened than could be told: some are missing here"
	if p.text != nil {
		_, p.err = fmt.Fprintf(p.w, "%s: %s\n", a.node.Name, text)
		return
	}
	p.err = p.object(map[string]string{"event": "missed", "node": a.node.Name, "reason": text})
}
