package run

import (
	"strings"
	"testing"
	"time"

	"minato/internal/status"
)

func TestStatusShowsHowFarAndForHowLongAComponentIsBehind(t *testing.T) {
	now := time.Unix(1000, 0)
	ago := func(seconds int64) time.Time { return time.Unix(1000-seconds, 0) }
	for name, tt := range map[string]struct {
		of      component
		frozen  string // line below the table
		row     string
		healthy bool
	}{
		"up to date":         {component{Entry: status.Entry{Applied: 9, Since: ago(5)}}, "", "9 0 5s ok", true},
		"just behind":        {component{Entry: status.Entry{Applied: 8, Since: ago(5), BehindSince: ago(2)}, Behind: 1}, "", "8 1 (2s) 5s ok", true},
		"behind for long":    {component{Entry: status.Entry{Applied: 7, Since: ago(40), BehindSince: ago(30)}, Behind: 2}, "", "7 2 (30s) 40s behind", false},
		"failing":            {component{Entry: status.Entry{Applied: 8, Since: ago(5), BehindSince: ago(2), Error: "no room"}, Behind: 1}, "", "8 1 (2s) 5s no room", false},
		"frozen":             {component{Entry: status.Entry{Applied: 9, Since: ago(5)}, Frozen: true}, "", "9 0 5s frozen", false},
		"a node was stopped": {component{Entry: status.Entry{Applied: 9, Since: ago(5)}}, "\nnode1: stopped\n", "9 0 5s ok", false},
	} {
		t.Run(name, func(t *testing.T) {
			tt.of.Node, tt.of.Component = "node1", "dns"
			s := state{Revision: 9, Components: []component{tt.of}, conditions: tt.frozen}
			var b strings.Builder
			if err := s.writeText(&b, now); err != nil {
				t.Fatal(err)
			}
			row := strings.Join(strings.Fields(strings.Split(b.String(), "\n")[3]), " ")
			if want := "node1 dns " + tt.row; row != want || !strings.HasSuffix(b.String(), tt.frozen) {
				t.Errorf("got row %q, want %q, in\n%s", row, want, b.String())
			}
			if s.healthy(now) != tt.healthy {
				t.Errorf("healthy: %t", !tt.healthy)
			}
		})
	}
}

func TestAProblemOfAPartIsNotHealthy(t *testing.T) {
	s := state{Problems: []problem{{"node1", "ingress proxy", "port 80 is taken"}}}
	var b strings.Builder
	if err := s.writeText(&b, time.Now()); err != nil || !strings.Contains(b.String(), "port 80 is taken") || s.healthy(time.Now()) {
		t.Errorf("healthy %t, %v:\n%s", s.healthy(time.Now()), err, b.String())
	}
}

func TestANodeThatHasReportedNothingYetIsNotHealthy(t *testing.T) {
	s := state{nodes: 2, Components: []component{{Entry: status.Entry{Component: "addresses"}}, {Entry: status.Entry{Node: "node1"}}}}
	if s.healthy(time.Now()) {
		t.Error("healthy with node1 alone of 2")
	}
	s.Components = append(s.Components, component{Entry: status.Entry{Node: "node2"}})
	if !s.healthy(time.Now()) {
		t.Error("not healthy with both")
	}
}
