package oracle

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http/httptest"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"

	"minato/internal/apply"
	"minato/internal/health/server"
	"minato/internal/model"
	"minato/internal/source"
	"minato/internal/status"
	"minato/test/oracle/upstream"
)

// familiesTogether is what /healthz and /livez say differently on purpose.
const familiesTogether = "both IP families are programmed together, so neither is up to date before the other"

// /healthz and /livez answer as kube-proxy's do, at the same times. What kube-proxy's two proxiers do is one Loop here,
// which has something to do as long as one of them has.
func TestTheNodeAnswersForItselfAsKubeProxyDoes(t *testing.T) {
	answers, excepted := map[string]int{}, 0
	for i, events := range mustHealth(t) {
		if events[0].Kind == upstream.ProxyServer {
			t.Run(strconv.Itoa(i), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					w := newNodeWorld(t, events[0])
					for _, e := range events[1:] {
						w.happen(e)
						if e.Kind == upstream.Asked {
							answers[e.Path]++
						}
					}
					excepted += w.excepted
				})
			})
		}
	}
	if answers["/healthz"] < 15 || answers["/livez"] < 13 {
		t.Errorf("only %v answers", answers)
	}
	if excepted == 0 {
		t.Errorf("nothing of upstream is excepted because %s", familiesTogether)
	}
}

// nodeWorld is a node in a bubble of time, whose dataplane works when it is told to.
type nodeWorld struct {
	t          *testing.T
	server     *server.Server
	builder    *source.Builder
	goOn       chan struct{}   // lets one Program finish
	working    bool            // a Program is under way
	pending    map[string]bool // families that kube-proxy still has to program
	theirs     time.Time       // upstream's time when it was ours
	ours       time.Time
	namespaces int
	excepted   int
}

func newNodeWorld(t *testing.T, first upstream.HealthEvent) *nodeWorld {
	w := &nodeWorld{t: t, builder: completeBuilder(), goOn: make(chan struct{}), pending: map[string]bool{}, working: true, theirs: first.At, ours: time.Now()}
	w.setNode(first.Node)
	log := slog.New(slog.DiscardHandler)
	progress := new(apply.Progress)
	w.server = server.New(server.Config{Progress: progress, Log: log, Timeout: first.Timeout})
	loop := apply.New(apply.Config{Source: w.builder, Node: model.Node{Name: first.Node.Name}, Board: new(status.Board), Log: log, Progress: progress,
		Programmers: []apply.Programmer{w}, Publishers: []apply.Publisher{w.server}, Max: -1}) // no change waits for others
	run(t, loop.Run)
	synctest.Wait()
	return w
}

func (*nodeWorld) Name() string { return "dataplane" }

// Program waits for leave.
func (w *nodeWorld) Program(ctx context.Context, _ *model.Snapshot) (map[model.ServiceName]error, error) {
	select {
	case <-w.goOn:
		return nil, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Reap has nothing to delete.
func (*nodeWorld) Reap(context.Context, *model.Snapshot) error { return nil }

// setNode gives the node an IPv6 address too, because upstream's servers have both families.
func (w *nodeWorld) setNode(n *corev1.Node) {
	n = n.DeepCopy()
	n.Status.Addresses = append(n.Status.Addresses, corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: "fd00::1"})
	w.builder.Update(func(b *source.Batch) { b.SetNode(source.Node(n)) })
}

// begin has the Loop program something.
func (w *nodeWorld) begin() {
	if w.working {
		return
	}
	w.namespaces++
	w.builder.Update(func(b *source.Batch) { b.SetNamespace(strconv.Itoa(w.namespaces)) })
	synctest.Wait()
	w.working = true
}

// finish has the Loop be done with it.
func (w *nodeWorld) finish() {
	w.goOn <- struct{}{}
	synctest.Wait()
	w.working = false
}

// at is upstream's time in the bubble.
func (w *nodeWorld) at(theirs time.Time) time.Time {
	if theirs.IsZero() {
		return theirs
	}
	return w.ours.Add(theirs.Sub(w.theirs))
}

func (w *nodeWorld) happen(e upstream.HealthEvent) {
	if !e.At.IsZero() {
		time.Sleep(time.Until(w.at(e.At)))
	}
	switch e.Kind {
	case upstream.Queued:
		w.pending[e.Family] = true
		w.begin()
	case upstream.Updated:
		delete(w.pending, e.Family)
		if len(w.pending) == 0 {
			w.begin()
			w.finish()
		}
	case upstream.NodeChanged:
		if w.working {
			w.t.Fatal("the node changes while something waits")
		}
		before := w.builder.Current()
		w.setNode(e.Node)
		synctest.Wait()
		if w.builder.Current() != before { // other taints mean nothing
			w.finish()
		}
	case upstream.Asked:
		w.check(e)
	}
}

func (w *nodeWorld) check(u upstream.HealthEvent) {
	resp := httptest.NewRecorder()
	w.server.Health().ServeHTTP(resp, httptest.NewRequest("GET", u.Path, nil))
	var got upstream.ProxyHealth
	if err := json.Unmarshal(resp.Body.Bytes(), &got); err != nil {
		w.t.Fatal(err)
	}
	want := u.Body
	if u.Path == "/livez" {
		want.NodeEligible = nil // what upstream checks, and does not write into its table
	}
	v4, v6 := want.Status["IPv4"], want.Status["IPv6"]
	if v4.Healthy != v6.Healthy || !v4.LastUpdated.Equal(v6.LastUpdated) {
		w.excepted++
		if oldest := v4.LastUpdated; !want.Healthy {
			if v6.LastUpdated.Before(oldest) {
				oldest = v6.LastUpdated
			}
			want.LastUpdated = oldest
		}
		together := upstream.FamilyHealth{Healthy: want.Healthy, LastUpdated: want.LastUpdated}
		want.Status = map[string]upstream.FamilyHealth{"IPv4": together, "IPv6": together}
	}
	same := resp.Code == u.Status && got.Healthy == want.Healthy && got.CurrentTime.Equal(w.at(want.CurrentTime)) && got.LastUpdated.Equal(w.at(want.LastUpdated)) &&
		(got.NodeEligible == nil) == (want.NodeEligible == nil) && (got.NodeEligible == nil || *got.NodeEligible == *want.NodeEligible)
	for family, f := range want.Status {
		g, ok := got.Status[family]
		same = same && ok == !f.LastUpdated.IsZero() && (!ok || g.Healthy == f.Healthy && g.LastUpdated.Equal(w.at(f.LastUpdated)))
	}
	if !same {
		w.t.Errorf("%s at %s: answered %d %s\nwant %d %+v", u.Path, w.at(u.At), resp.Code, resp.Body, u.Status, want)
	}
}
