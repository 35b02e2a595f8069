//go:build linux

package nodes

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"minato/internal/netns"
	"minato/internal/netns/netnstest"
)

// upOf makes the test binary a process that brings an instance up: its name, state folder and host.
const upOf = "MINATO_TEST_UP_OF"

func TestMain(m *testing.M) {
	if args := strings.Fields(os.Getenv(upOf)); len(args) == 3 {
		c := ranges(Config{Name: args[0], StateDir: args[1], HostNetns: netns.At(args[2])}, 2)
		if _, err := Up(context.Background(), c); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// process brings an instance up in a process of its own.
func process(c Config) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s %s %s", upOf, c.Name, c.StateDir, c.HostNetns.Path()))
	return cmd
}

func TestKilledAtAnyTimeItCanBeDeletedOrBroughtUp(t *testing.T) {
	w := netnstest.New(t)
	before := netnstest.Dump(t, w.Host)
	c := config(t, w, 2)
	start := time.Now()
	if out, err := process(c).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	whole := time.Since(start)
	deleteNow(t, c)
	const moments = 30
	killed := 0
	for i := range moments {
		cmd := process(c)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(whole * time.Duration(i) / moments)
		cmd.Process.Kill()
		if err := cmd.Wait(); err != nil {
			killed++
		}
		if i%2 == 0 {
			n := up(t, c)
			if seen := seenBy(t, nodeNetns(t, n, "192.168.0.12"), c.Nodes[1].Addrs[0], nodeNetns(t, n, "node1")); seen != c.Nodes[0].Addrs[0] {
				t.Errorf("after %d of %d parts of %s: seen as %s", i, moments, whole, seen)
			}
			n.Close()
		}
		deleteNow(t, c)
		expectNothing(t, w, c, before)
	}
	if killed < moments/2 {
		t.Errorf("only %d of %d were killed before they were done", killed, moments)
	}
}

func TestKilledBetweenTheJournalAndTheNamespace(t *testing.T) {
	w := netnstest.New(t)
	before := netnstest.Dump(t, w.Host)
	for what, prepare := range map[string]func(path string) error{
		"nothing there":            func(string) error { return nil },
		"a file without namespace": func(path string) error { return os.WriteFile(path, nil, 0o444) },
		"a namespace without mark": netns.Create,
	} {
		for _, upFirst := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, up first %t", what, upFirst), func(t *testing.T) {
				c := config(t, w, 1)
				path := NetnsPath(c.Name, "node1")
				j, err := openJournal(c.StateDir)
				if err != nil {
					t.Fatal(err)
				}
				if err := errors.Join(j.addNetns(path), prepare(path)); err != nil {
					t.Fatal(err)
				}
				if upFirst {
					up(t, c).Close()
				}
				deleteNow(t, c)
				expectNothing(t, w, c, before)
			})
		}
	}
}

func TestAJournalOfAnEarlierBootCountsForNothing(t *testing.T) {
	w := netnstest.New(t)
	c := config(t, w, 1)
	old := `{"boot": "earlier", "netns": ["/run/netns/of-somebody-else-now"], "sysctls": [{"name": "net/ipv4/ip_forward", "before": "0", "ours": "1"}]}`
	j, err := openJournal(c.StateDir)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(j.path, []byte(old), 0o600); err != nil {
		t.Fatal(err)
	}
	netnstest.Run(t, w.Host, "sysctl", "net.ipv4.ip_forward=1")
	before := netnstest.Dump(t, w.Host)
	up(t, c).Close()
	deleteNow(t, c)
	expectNothing(t, w, c, before)
}
