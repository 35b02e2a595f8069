package run

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"minato/internal/show"
	"minato/internal/source/kube"
	"minato/internal/web"
)

// control is what the control socket serves. pods asks the API for one question.
func (u *instanceRun) control(pods func(context.Context) *kube.Pods) web.Backend {
	return web.Backend{
		Status: u.status,
		Nodes:  u.nodes,
		Change: u.changeNode,
		Show:   u.show,
		Diff:   u.diff,
		Flows: func(ctx context.Context, q web.Query, w io.Writer) error {
			return u.flows(ctx, q, pods(ctx), w)
		},
		Explain: func(ctx context.Context, dest string, q web.Query, w io.Writer) (int, error) {
			return u.explain(ctx, dest, q, pods(ctx), w)
		},
		Service:  u.service,
		Services: u.serviceNames,
		Images:   u.imageNames,
		Load:     u.load,
		Page:     u.page(pods),
		Backup:   u.backup,
	}
}

// agentOf finds a node by name; an empty name is the first that is within reach.
func (u *instanceRun) agentOf(name string) (*agent, error) {
	if name == "" {
		return u.reachable(), nil
	}
	var names []string
	for _, a := range u.agents {
		if a.node.Name == name {
			return a, nil
		}
		names = append(names, a.node.Name)
	}
	return nil, fmt.Errorf("name one of the nodes (%s): there is no node %s: %w", strings.Join(names, ", "), name, web.ErrNotFound)
}

func (u *instanceRun) nodes(context.Context) ([]web.Node, error) {
	snapshot := u.builder.Current()
	var all []web.Node
	for _, a := range u.agents {
		api := snapshot.NodeNamed(a.node.Name)
		all = append(all, web.Node{
			Name: a.node.Name, Addr: a.node.Addrs[0].String(), Netns: a.netns.Path(), Ready: api != nil && api.Ready,
			Condition: a.words(),
		})
	}
	return all, nil
}

// show prints what the Services come to on a node.
func (u *instanceRun) show(_ context.Context, what string, q web.Query, w io.Writer) error {
	a, err := u.agentOf(q.Node)
	if err != nil {
		return err
	}
	snapshot := a.view.Current().On(&a.node)
	if api := snapshot.NodeNamed(a.node.Name); api != nil {
		snapshot = snapshot.On(api)
	}
	only, err := serviceAsked(snapshot, q)
	if err != nil {
		return err
	}
	v, err := show.Of(what, show.World{Snapshot: snapshot, Except: except(), Ingress: a.ingress.Plan(), Names: a.table.View(),
		Held: a.holds, Connections: a.connections}, only)
	switch {
	case errors.Is(err, show.ErrNoView):
		return fmt.Errorf("show one of %s: there is no %q: %w", strings.Join(show.Views, ", "), what, web.ErrNotFound)
	case err != nil:
		return fmt.Errorf("node %s: %w", a.node.Name, err)
	case q.Output != web.Text:
		return encode(w, q.Output, v.Rows)
	}
	return v.Text(w)
}

// diff compares the kernel of one node, or of all, with the plan.
func (u *instanceRun) diff(ctx context.Context, q web.Query, w io.Writer) (exit int, err error) {
	type difference struct {
		Node string `json:"node"`
		Text string `json:"difference"`
	}
	all := []difference{}
	for _, a := range u.agents {
		if q.Node != "" && q.Node != a.node.Name {
			continue
		}
		found, err := a.dataplane.Diff(ctx)
		if err != nil {
			return 0, fmt.Errorf("read the kernel of node %s: %w", a.node.Name, err)
		}
		for _, d := range found {
			all = append(all, difference{a.node.Name, d.String()})
		}
	}
	if len(all) > 0 {
		exit = 1
	}
	if q.Output != web.Text {
		return exit, encode(w, q.Output, all)
	}
	for _, d := range all {
		fmt.Fprintf(w, "%s: %s\n", d.Node, d.Text)
	}
	return exit, nil
}

func (u *instanceRun) imageNames(context.Context) ([]string, error) {
	list, err := u.store.List()
	var names []string
	for _, i := range list {
		names = append(names, i.Ref)
	}
	return names, err
}

// load keeps an archive that comes over the socket in a file, because an archive is read more than once. Pods that wait
// for what it holds start.
func (u *instanceRun) load(ctx context.Context, r io.Reader) (names []string, err error) {
	f, err := os.CreateTemp(u.inst.StateDir, "image-*.tar")
	if err != nil {
		return nil, fmt.Errorf("keep the archive: %w", err)
	}
	defer os.Remove(f.Name())
	_, err = io.Copy(f, r)
	if err := errors.Join(err, f.Close()); err != nil {
		return nil, fmt.Errorf("keep the archive: %w", err)
	}
	list, err := u.store.Load(ctx, f.Name())
	for _, i := range list {
		names = append(names, i.Ref)
	}
	for _, a := range u.agents {
		a.kubelet.ImagesLoaded(names)
	}
	return names, err
}
