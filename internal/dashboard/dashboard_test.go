package dashboard_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"minato/internal/dashboard"
	"minato/internal/model"
	"minato/internal/source"
	"minato/internal/status"
)

// source has one snapshot at a time.
type snapshots struct {
	now     *model.Snapshot
	changed chan struct{}
}

func (s *snapshots) Current() *model.Snapshot             { return s.now }
func (s *snapshots) Subscribe() (<-chan struct{}, func()) { return s.changed, func() {} }
func take(s *model.Snapshot, text string) dashboard.State {
	return config(s, new(status.Board)).Take(text)
}
func name(n string) model.ServiceName { return model.ServiceName{Namespace: "default", Name: n} }
func config(s *model.Snapshot, b *status.Board) dashboard.Config {
	return dashboard.Config{Instance: "test", Source: &snapshots{now: s, changed: make(chan struct{}, 1)}, Board: b,
		Own: map[model.ServiceName]bool{name("dns"): true},
		Explain: func(_ context.Context, to, from, protocol string) (dashboard.Answer, error) {
			if to == "" {
				return dashboard.Answer{}, errors.New("say where it goes")
			}
			return dashboard.Answer{Verdict: "delivered", Text: from + " " + protocol + " " + to}, nil
		}}
}

func backend(addr, pod string, ready, terminating bool) model.Backend {
	return model.Backend{Addr: netip.MustParseAddrPort(addr), Target: pod, NodeName: "node1", Ready: ready, Terminating: terminating}
}

func TestAServiceIsShownWithItsEndpointsOnceEach(t *testing.T) {
	s := model.Empty().With(func(e *model.Edit) {
		e.SetNode(&model.Node{Name: "node1", Addrs: []netip.Addr{netip.MustParseAddr("172.30.0.11")}, Ready: true})
		e.SetService(&model.Service{
			Name: name("web"), Selector: "app=web", Ports: []model.Port{{Protocol: model.TCP, Port: 80}}, Warnings: []string{"an odd field"},
			Frontends: []model.Frontend{{Addr: netip.MustParseAddrPort("10.96.0.7:80"), Protocol: model.TCP, Kind: model.ClusterIP}},
			Slices: []*model.BackendSlice{{Backends: []model.Backend{
				backend("10.244.1.2:80", "default/a", true, false), backend("10.244.1.2:443", "default/a", true, false),
				backend("10.244.1.3:80", "default/b", false, true), backend("10.244.1.4:80", "", false, false),
			}}},
		})
		e.SetConflicts([]model.Conflict{{Addr: netip.MustParseAddrPort("192.0.2.1:80"), Protocol: model.TCP, Winner: name("elder"), Loser: name("web")}})
	})
	at := netip.MustParseAddr
	want := dashboard.Service{
		Namespace: "default", Name: "web", Type: "ClusterIP", Selector: "app=web", Ports: []string{"80/tcp"},
		Frontends: []dashboard.Frontend{{Addr: netip.MustParseAddrPort("10.96.0.7:80"), Protocol: "tcp", Kind: "ClusterIP"}},
		Backends: []dashboard.Backend{
			{Addr: at("10.244.1.2"), Ports: []uint16{80, 443}, Pod: "default/a", Node: "node1", State: "ready"},
			{Addr: at("10.244.1.3"), Ports: []uint16{80}, Pod: "default/b", Node: "node1", State: "terminating"},
			{Addr: at("10.244.1.4"), Ports: []uint16{80}, Node: "node1", State: "not ready"},
		},
		Problems: []string{"an odd field", "192.0.2.1:80/tcp is Service default/elder's, which is older"},
	}
	compare := cmp.Comparer(func(a, b netip.Addr) bool { return a == b })
	comparePort := cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })
	if diff := cmp.Diff(want, take(s, "").Services[0], compare, comparePort); diff != "" {
		t.Error(diff)
	}
}

func TestServicesAreFoundAndTheListEnds(t *testing.T) {
	s := model.Empty().With(func(e *model.Edit) {
		for i := range dashboard.MaxServices + 10 {
			e.SetService(&model.Service{Name: name(fmt.Sprintf("many-%d", i))})
		}
		e.SetService(&model.Service{Name: name("one"), Selector: "app=shop", Frontends: []model.Frontend{{Addr: netip.MustParseAddrPort("10.96.3.4:80")}}})
		e.SetService(&model.Service{Name: name("dns")})
	})
	all := take(s, "many")
	if all.Total != dashboard.MaxServices+12 || all.Matching != dashboard.MaxServices+10 || len(all.Services) != dashboard.MaxServices {
		t.Errorf("%d in all, %d match, %d listed", all.Total, all.Matching, len(all.Services))
	}
	for _, text := range []string{"default/one", "app=shop", "10.96.3.4"} {
		if got := take(s, text); got.Matching != 1 || got.Services[0].Name != "one" || got.Services[0].Problems[0] != "no endpoints" {
			t.Errorf("%q finds %+v", text, got.Services)
		}
	}
	if got := take(s, "dns").Services[0]; !got.Own || len(got.Problems) > 0 {
		t.Errorf("what every node answers by itself: %+v", got)
	}
}

func TestComponentsAreShownWithTheirNode(t *testing.T) {
	s := model.Empty().With(func(e *model.Edit) { e.SetNode(&model.Node{Name: "node1"}) })
	board := new(status.Board)
	board.Report("node1", "nftables", 3, nil)
	board.Report("node1", "nftables", 4, errors.New("no room"))
	board.Report("", "addresses", 4, nil)
	got := config(s, board).Take("")
	if c := got.Nodes[0].Components; len(c) != 1 || c[0].Applied != 3 || c[0].Seen != 4 || c[0].Error != "no room" {
		t.Errorf("of the node: %+v", c)
	}
	if len(got.Cluster) != 1 || got.Cluster[0].Name != "addresses" {
		t.Errorf("of no node: %+v", got.Cluster)
	}
}

func get(t *testing.T, url string) (*http.Response, string) {
	t.Helper()
	res, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var body strings.Builder
	if _, err := bufio.NewReader(res.Body).WriteTo(&body); err != nil {
		t.Fatal(err)
	}
	return res, body.String()
}

func TestThePageIsWholeAndLoadsNothingFromElsewhere(t *testing.T) {
	server := httptest.NewServer(dashboard.Handler(config(model.Empty(), new(status.Board))))
	defer server.Close()
	for file, kind := range map[string]string{"/": "text/html", "/app.js": "text/javascript", "/style.css": "text/css", "/icon.svg": "image/svg+xml"} {
		res, body := get(t, server.URL+file)
		if res.StatusCode != http.StatusOK || !strings.HasPrefix(res.Header.Get("Content-Type"), kind) || !strings.Contains(res.Header.Get("Content-Security-Policy"), "default-src 'self'") {
			t.Errorf("%s: %s %v", file, res.Status, res.Header)
		}
		if strings.Contains(strings.ReplaceAll(body, "http://www.w3.org/2000/svg", ""), "://") {
			t.Errorf("%s names something elsewhere", file)
		}
	}
}

func TestAQuestionIsAnsweredOrSaidToBeWrong(t *testing.T) {
	server := httptest.NewServer(dashboard.Handler(config(model.Empty(), new(status.Board))))
	defer server.Close()
	var answer dashboard.Answer
	if res, body := get(t, server.URL+"/explain?to=web:80&from=lan&protocol=udp"); res.StatusCode != http.StatusOK || json.Unmarshal([]byte(body), &answer) != nil || answer.Text != "lan udp web:80" {
		t.Errorf("%s: %s", res.Status, body)
	}
	if res, body := get(t, server.URL+"/explain"); res.StatusCode != http.StatusBadRequest || body != "say where it goes\n" {
		t.Errorf("%s: %s", res.Status, body)
	}
}

func TestChangesComeAsTheyHappen(t *testing.T) {
	b := source.NewBuilder()
	b.Update(func(b *source.Batch) {})
	c := config(nil, new(status.Board))
	c.Source = b
	server := httptest.NewServer(dashboard.Handler(c))
	defer server.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, server.URL+"/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	lines := bufio.NewScanner(res.Body)
	next := func() (s dashboard.State) {
		t.Helper()
		for lines.Scan() {
			if data, ok := strings.CutPrefix(lines.Text(), "data: "); ok {
				if err := json.Unmarshal([]byte(data), &s); err != nil {
					t.Fatal(err)
				}
				return s
			}
		}
		t.Fatal("the stream has ended: ", lines.Err())
		return s
	}
	if first := next(); len(first.Cluster) != 0 {
		t.Errorf("%+v", first.Cluster)
	}
	c.Board.Report("", "addresses", 1, errors.New("no pool")) // seen without a new revision
	if second := next(); len(second.Cluster) != 1 || second.Cluster[0].Error != "no pool" {
		t.Errorf("%+v", second.Cluster)
	}
}
