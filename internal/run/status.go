package run

import (
	"context"
	"fmt"
	"io"
	"reflect"
	"text/tabwriter"
	"time"

	"minato/internal/status"
	"minato/internal/web"
)

const (
	// lagPatience is for how long a component may be behind and still be healthy: every change has it behind for a moment.
	lagPatience = 10 * time.Second
	// statusPause is how often `status --watch` looks.
	statusPause = time.Second
)

// state is what `minato status` says.
type state struct {
	Revision   uint64      `json:"revision"`
	Services   int         `json:"services"`
	Healthy    bool        `json:"healthy"`
	Components []component `json:"components"`
	Problems   []problem   `json:"problems,omitempty"`

	nodes      int
	port       uint16 // of the API
	conditions string // a line for each node with which something is not as usual
}

// component is what a component has reached of the state's revision.
type component struct {
	status.Entry
	Behind uint64 `json:"behind"` // revisions
	Frozen bool   `json:"frozen,omitempty"`
}

// problem is one of a part that is not told by revisions.
type problem struct {
	Node  string `json:"node"`
	Part  string `json:"part"`
	Error string `json:"error"`
}

// state reads what every component has reached by now.
func (u *instanceRun) state(now time.Time) state {
	snapshot := u.builder.Current()
	s := state{Revision: snapshot.Revision, Services: snapshot.Len(), nodes: len(u.agents), port: u.cfg.APIPort, conditions: u.conditions(), Components: []component{}}
	for _, e := range u.board.Entries() {
		c := component{Entry: e, Frozen: u.outOfReach(e.Node)}
		if e.Applied < s.Revision {
			c.Behind = s.Revision - e.Applied
		}
		s.Components = append(s.Components, c)
	}
	for _, a := range u.agents {
		add := func(part, err string) {
			if err != "" {
				s.Problems = append(s.Problems, problem{a.node.Name, part, err})
			}
		}
		if ok, reason := a.dns.Ready(); !ok {
			add("dns server", reason)
		}
		add("corefile", a.corefile.Problem())
		add("ingress proxy", a.ingress.Problem())
		add(a.dataplane.Name(), a.dataplane.Problem())
		for _, speaker := range a.speakers {
			add(speaker.Name(), speaker.Problem())
		}
	}
	s.Healthy = s.healthy(now)
	return s
}

// healthy reports whether every node has, or is about to have, what the API says.
func (s state) healthy(now time.Time) bool {
	reporting := map[string]bool{}
	for _, c := range s.Components {
		if c.Error != "" || c.Frozen || c.lag(now) > lagPatience {
			return false
		}
		if c.Node != "" {
			reporting[c.Node] = true
		}
	}
	return len(reporting) >= s.nodes && len(s.Problems) == 0 && s.conditions == ""
}

// lag is for how long the component has been behind.
func (c component) lag(now time.Time) time.Duration {
	if c.Behind == 0 || c.BehindSince.IsZero() {
		return 0
	}
	return now.Sub(c.BehindSince)
}

func (s state) writeText(w io.Writer, now time.Time) error {
	fmt.Fprintf(w, "revision %d, %d Services, %d nodes; API https://127.0.0.1:%d\n\n", s.Revision, s.Services, s.nodes, s.port)
	t := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	fmt.Fprintln(t, "NODE\tCOMPONENT\tAPPLIED\tLAG\tSINCE\tSTATE")
	for _, c := range s.Components {
		lag, state := "0", "ok"
		if c.Behind > 0 {
			lag = fmt.Sprintf("%d (%s)", c.Behind, c.lag(now).Round(time.Second))
		}
		switch {
		case c.Error != "":
			state = c.Error
		case c.Frozen:
			state = "frozen"
		case c.lag(now) > lagPatience:
			state = "behind"
		}
		fmt.Fprintf(t, "%s\t%s\t%d\t%s\t%s\t%s\n", c.Node, c.Component, c.Applied, lag, now.Sub(c.Since).Round(time.Second), state)
	}
	for _, p := range s.Problems {
		fmt.Fprintf(t, "%s\t%s\t\t\t\t%s\n", p.Node, p.Part, p.Error)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	_, err := io.WriteString(w, s.conditions)
	return err
}

// status prints the state, and with watch again whenever it has changed, until ctx ends. Exit is 1 if not healthy.
func (u *instanceRun) status(ctx context.Context, q web.Query, w io.Writer) (exit int, err error) {
	now := time.Now()
	last := u.state(now)
	if err := last.write(w, q.Output, now); err != nil || !q.Watch {
		if !last.Healthy {
			exit = 1
		}
		return exit, err
	}
	tick := time.NewTicker(statusPause)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return 0, nil
		case now = <-tick.C:
		}
		s := u.state(now)
		if reflect.DeepEqual(s, last) {
			continue
		}
		if _, err := io.WriteString(w, "\n"); err != nil {
			return 0, err
		}
		if err := s.write(w, q.Output, now); err != nil {
			return 0, err
		}
		last = s
	}
}

func (s state) write(w io.Writer, output string, now time.Time) error {
	if output != web.Text {
		return encode(w, output, s)
	}
	return s.writeText(w, now)
}

// followRevisions tells the board of every revision, so that it knows who is behind.
func (u *instanceRun) followRevisions(ctx context.Context) error {
	changed, cancel := u.builder.Subscribe()
	defer cancel()
	for {
		u.board.Publish(u.builder.Current().Revision)
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		}
	}
}
