//go:build linux

package world

import (
	"strings"
	"testing"
	"time"

	"minato/internal/netns/netnstest"
)

// bare is a world without an instance.
func bare(t *testing.T) *World {
	t.Helper()
	outside := netnstest.New(t)
	return &World{World: outside, Internet: newInternet(t, outside.Internet), Name: "wt-bare", Minato: "/nonexistent", dir: t.TempDir()}
}

func TestATerminalIsInteractiveAndOnTheHost(t *testing.T) {
	w := bare(t)
	term := w.Terminal(t, "/", "sh")
	if out := term.Do(t, "[ -t 0 ] && [ -t 1 ] && echo a terminal"); !strings.Contains(out, "a terminal\n") {
		t.Errorf("no terminal:\n%s", out)
	}
	if out := term.Do(t, "ip -br address show "+netnstest.HostUplink); !strings.Contains(out, netnstest.HostAddr) {
		t.Errorf("not on the host:\n%s", out)
	}
	term.Type(t, "exit 3\n")
	if _, err := term.Wait(t, 5*time.Second); (Result{Err: err}).Code() != 3 {
		t.Errorf("ended with %v, want exit code 3", err)
	}
}

func TestTheInternetSaysWhoAsksAndRemembersIt(t *testing.T) {
	w := bare(t)
	out := w.Must(t, "curl", "-s", "http://"+netnstest.FarAddr+"/path")
	if out != "the internet greets "+netnstest.HostAddr+"\n" {
		t.Errorf("got %q", out)
	}
	want := netnstest.HostAddr + " " + netnstest.FarAddr + " /path"
	if hits := w.Internet.Hits(); len(hits) != 1 || hits[0] != want {
		t.Errorf("hits %q, want %q", hits, want)
	}
}

func TestACommandThatTakesTooLongIsEnded(t *testing.T) {
	w := bare(t)
	started := time.Now()
	r := w.run(100*time.Millisecond, "sh", "-c", "sleep 60 & sleep 60")
	if r.Err == nil || time.Since(started) > 10*time.Second {
		t.Errorf("ended after %v with %v", time.Since(started), r.Err)
	}
}

func TestTracesShowWhatIsMoreAndWhatIsMissing(t *testing.T) {
	before := traces{"link": {"lo", "wan0"}}
	if left := (traces{"link": {"lo", "wan0"}}).since(before); left != "" {
		t.Errorf("equal traces differ: %s", left)
	}
	left := traces{"link": {"lo", "minato0"}}.since(before)
	if !strings.Contains(left, "link: + minato0") || !strings.Contains(left, "link: - wan0") {
		t.Errorf("got %q", left)
	}
}

func TestTracesFindAProcessAndASettingOfTheHost(t *testing.T) {
	w := bare(t)
	before, err := w.traces()
	if err != nil {
		t.Fatal(err)
	}
	term := w.Terminal(t, "/", "sleep 60")
	netnstest.Run(t, w.Host, "sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")
	after, err := w.traces()
	if err != nil {
		t.Fatal(err)
	}
	left := after.since(before)
	if !strings.Contains(left, "sleep 60") || !strings.Contains(left, "+ net/ipv4/ip_forward = 1") {
		t.Errorf("traces of a process and a setting: %q", left)
	}
	_ = term.cmd.Process.Kill()
}
