//go:build linux

package walkthrough

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"minato/internal/tutorial"
	"minato/test/world"
)

// lessonTime is how long a lesson may take that nobody reads.
const lessonTime = 3 * time.Minute

const lessonsNeedIPv4 = "lessons show addresses as the articles do"

// Every lesson is walked through on the default instance, and on one whose nodes have other names and addresses.
func TestEveryLessonRunsWhole(t *testing.T) {
	w := world.Start(t, world.Config{Images: []string{"nginx", "nginx:1.12", "redis:3.2", "thr3a/debugger"},
		Up:   []string{"--node-cidr", "192.168.0.0/24", "--node", "left=192.168.0.11", "--node", "right=192.168.0.12"},
		IPv4: lessonsNeedIPv4})
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	lessons, err := tutorial.Lessons(tutorial.English)
	if err != nil {
		t.Fatal(err)
	}
	for i, l := range lessons {
		lang := tutorial.Langs()[i%2]
		t.Run(l.Name, func(t *testing.T) {
			r := w.Shell("/", fmt.Sprintf("minato tutorial %d --yes --lang %s", i+1, lang))
			if r.Err != nil {
				t.Fatalf("%v\n%s", r.Err, r.Output())
			}
			for j := range l.Steps {
				wantText(t, r.Stdout, fmt.Sprintf("── %s %d/%d ──", l.Name, j+1, len(l.Steps)))
			}
			if left := regexp.MustCompile(`\{[a-z]+\d*\}|\x1b`).FindString(r.Stdout); left != "" {
				t.Errorf("it says %q:\n%s", left, r.Stdout)
			}
			wantText(t, w.Shell("/", "minato tutorial --lang en").Stdout, fmt.Sprintf("%d steps, about %d minutes; done", len(l.Steps), l.Minutes))
			if out := w.Shell("/", "minato tutorial --clean "+l.Name); out.Err != nil || w.Kubectl(t, "get", "namespace", l.Name, "--ignore-not-found") != "" {
				t.Errorf("the namespace is still there: %v\n%s", out.Err, out.Output())
			}
		})
	}
	if out := w.Kubectl(t, "get", "nodes", "-l", "app", "-o", "name"); out != "" {
		t.Errorf("nodes keep the label of a lesson: %s", out)
	}
}

func TestTutorialAtATerminal(t *testing.T) {
	w := world.Start(t, world.Config{Images: []string{"nginx", "thr3a/debugger"}, Up: []string{"--nodes", "1"}, IPv4: lessonsNeedIPv4})
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	term := w.Terminal(t, "/", "minato tutorial names --lang en")
	source := regexp.MustCompile(`source (\S+)`).FindStringSubmatch(term.Expect(t, netTime, `Enter: run it here`))
	if source == nil {
		t.Fatal("it does not say what another terminal is to source")
	}
	term.Type(t, "\n")
	term.Expect(t, lessonTime, `✓ as expected`)

	// The next step is typed elsewhere, and noticed.
	term.Expect(t, netTime, `names 2/8 (?s:.*)another terminal`)
	other := w.Terminal(t, "/", "bash --norc")
	other.Type(t, ". "+source[1]+" && kubectl -n names create deployment debugger --image=thr3a/debugger -- sleep infinity\n")
	term.Expect(t, lessonTime, `✓ as expected`)
	term.Type(t, "q\n")
	term.Expect(t, netTime, `Left; everything stays`)

	// What was made is gone in the meantime: the lesson goes on before it.
	w.Kubectl(t, "-n", "names", "delete", "deployment", "debugger", "--grace-period=1")
	term = w.Terminal(t, "/", "minato tutorial names --lang en")
	term.Expect(t, netTime, `has changed: going on with step 2`)
	term.Type(t, "\x03")
	term.Expect(t, netTime, `Left; everything stays`)

	if r := w.Shell("/", "minato tutorial names </dev/null"); r.Code() != 2 || !strings.Contains(r.Stderr, "--yes") {
		t.Errorf("with nobody there: %d %s", r.Code(), r.Stderr)
	}
	if r := w.Shell("/", "minato tutorial network --yes --lang en"); r.Code() != 1 || !strings.Contains(r.Stderr, "minato up --detach --name lab") {
		t.Errorf("with too few nodes: %d %s", r.Code(), r.Stderr)
	}
	w.Kubectl(t, "create", "namespace", "kinds")
	if r := w.Shell("/", "minato tutorial kinds --yes --lang en"); r.Code() != 1 || !strings.Contains(r.Stderr, "not the tutorial's") {
		t.Errorf("with a namespace of somebody else: %d %s", r.Code(), r.Stderr)
	}
	w.Must(t, "sh", "-c", w.Minato+" --name "+w.Name+" --state-dir "+w.StateDir+" tutorial --clean")
}
