package run

import (
	"testing"

	"minato/internal/model"
)

func TestANodeIsTurnedAwayFromWhenNobodyIsSentThere(t *testing.T) {
	ready := []*model.BackendSlice{{Backends: []model.Backend{{NodeName: "node2", Ready: true, Serving: true}}}}
	for name, c := range map[string]struct {
		node *model.Node
		svc  model.Service
		want bool
	}{
		"the Node is Ready":                    {&model.Node{Name: "node2", Ready: true}, model.Service{}, true},
		"an endpoint is ready":                 {&model.Node{Name: "node2"}, model.Service{Selector: "app=web", Slices: ready}, true},
		"an endpoint of another node is":       {&model.Node{Name: "node1"}, model.Service{Selector: "app=web"}, false},
		"an endpoint that nobody judges is":    {&model.Node{Name: "node2"}, model.Service{Slices: ready}, false},
		"an endpoint that is published anyway": {&model.Node{Name: "node2"}, model.Service{Selector: "app=web", PublishNotReady: true, Slices: ready}, false},
	} {
		t.Run(name, func(t *testing.T) {
			s := model.Empty().With(func(e *model.Edit) {
				e.SetNode(c.node)
				e.SetService(&c.svc)
			})
			if got := sends(s, "node2"); got != c.want {
				t.Errorf("sends: %t, want %t", got, c.want)
			}
		})
	}
}
