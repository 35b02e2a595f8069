//go:build linux

package walkthrough

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"minato/internal/netns"
	"minato/test/load"
	"minato/test/world"
)

// conversation is one client of UDP that sends a numbered datagram every few milliseconds and hears who answers which.
type conversation struct {
	net.Conn
	every time.Duration

	mu       sync.Mutex
	sent     int
	answered map[int]string // by number: the pod
}

// hearFor is how long after the last datagram an answer is waited for.
const hearFor = 3 * time.Second

func converse(t *testing.T, from netns.NS, at string, every time.Duration) *conversation {
	t.Helper()
	c, err := from.DialContext(t.Context(), "udp", at)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return &conversation{Conn: c, every: every, answered: map[int]string{}}
}

// run speaks until ctx ends, n times at most, and hears what is answered until then and a while longer.
func (c *conversation) run(ctx context.Context, n int) {
	var hearing sync.WaitGroup
	_ = c.SetReadDeadline(time.Time{})
	hearing.Go(c.hear)
	tick := time.NewTicker(c.every)
	defer tick.Stop()
	for first := c.said(); c.said() < first+n && ctx.Err() == nil; <-tick.C {
		c.speak()
	}
	for end := time.Now().Add(hearFor); time.Now().Before(end) && c.missing() != nil; {
		<-tick.C
	}
	_ = c.SetReadDeadline(time.Unix(1, 0))
	hearing.Wait()
}

func (c *conversation) said() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.sent
}

// goesOn waits until some more was said, and returns how much was before.
func (c *conversation) goesOn(t *testing.T) (before int) {
	t.Helper()
	before = c.said()
	world.Eventually(t, netTime, func() error {
		if c.said() < before+20 {
			return errors.New("the conversation does not go on")
		}
		return nil
	})
	return before
}

// speak sends one datagram. One that is refused, or by which the kernel says that one before was, has no answer.
func (c *conversation) speak() {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, _ = fmt.Fprint(c, c.sent)
	c.sent++
}

func (c *conversation) hear() {
	buf := make([]byte, 2048)
	for {
		n, err := c.Read(buf)
		if errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, net.ErrClosed) {
			return
		}
		var number int
		var pod string
		if _, err := fmt.Sscan(string(buf[:n]), &number, &pod); err == nil {
			c.mu.Lock()
			c.answered[number] = pod
			c.mu.Unlock()
		}
	}
}

// missing are the numbers of the datagrams that nobody has answered.
func (c *conversation) missing() (numbers []int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.answered) == c.sent {
		return nil
	}
	for i := range c.sent {
		if c.answered[i] == "" {
			numbers = append(numbers, i)
		}
	}
	return numbers
}

// pods are who has answered.
func (c *conversation) pods() []string {
	return slices.Compact(slices.Sorted(maps.Values(c.answered)))
}

// loopback is a Service at the loopback of a node.
func loopback(port int) string {
	if world.OverIPv6() {
		return world.At("::1", port)
	}
	return world.At("127.0.0.1", port)
}

func startEcho(t *testing.T, up ...string) (w *world.World, node netns.NS) {
	t.Helper()
	w = world.Start(t, world.Config{Images: []string{"minato/libc", "nginx"}, Up: append(up, "--nodes", "2")})
	echo, err := filepath.Abs("testdata/echo.yaml")
	if err != nil {
		t.Fatal(err)
	}
	w.Kubectl(t, "apply", "-f", echo)
	w.Kubectl(t, "create", "deployment", "web", "--image=nginx", "--replicas=2")
	w.Kubectl(t, "create", "service", "nodeport", "web", "--tcp=80:80", "--node-port=30080")
	for _, d := range []string{"prompt", "slow", "web"} {
		w.Kubectl(t, "rollout", "status", "deployment", d, "--timeout=60s")
	}
	node = w.NodeNetns("node1")
	for _, port := range []int{30053, 30054} {
		awaitAnswer(t, node, port)
	}
	return w, node
}

// awaitAnswer waits until new clients of the port are answered.
func awaitAnswer(t *testing.T, node netns.NS, port int) {
	t.Helper()
	world.Eventually(t, netTime, func() error {
		c := converse(t, node, loopback(port), time.Second)
		c.run(t.Context(), 1)
		if c.missing() != nil {
			return fmt.Errorf("no answer at %s", loopback(port))
		}
		return nil
	})
}

const takeovers = 2 // the one that took over hands over as well

// While another process takes over, every datagram at the loopback is answered, and each client by the pod that it has.
func TestATakeoverLosesNoDatagramAtTheLoopback(t *testing.T) {
	w, node := startEcho(t)
	all := map[string][]*conversation{}
	for range 4 {
		all["prompt"] = append(all["prompt"], converse(t, node, loopback(30053), 8*time.Millisecond))
		all["slow"] = append(all["slow"], converse(t, node, loopback(30054), 40*time.Millisecond)) // a process for each
	}
	for _, cs := range all {
		for _, c := range cs {
			c.run(t.Context(), 2)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	connections := load.Start(ctx, 25, []load.Source{{NS: node}}, loopback(30080))
	var talking sync.WaitGroup
	for _, cs := range all {
		for _, c := range cs {
			talking.Go(func() { c.run(ctx, 1<<30) })
		}
	}
	var newcomers []*conversation
	talking.Go(func() { // two datagrams of each
		for ; ctx.Err() == nil; time.Sleep(40 * time.Millisecond) {
			c := converse(t, node, loopback(30053), 5*time.Millisecond)
			newcomers = append(newcomers, c)
			talking.Go(func() { c.run(context.WithoutCancel(ctx), 2) })
		}
	})
	for range takeovers {
		if r := w.Verb("up", "--replace", "--detach"); r.Err != nil {
			t.Errorf("%v\n%s", r.Err, r.Output())
		}
	}
	for _, c := range all["slow"] {
		c.goesOn(t)
	}
	cancel()
	talking.Wait()
	connections.Wait()
	all["new"] = newcomers
	for name, cs := range all {
		sent, moved := 0, 0
		var lost []string
		for i, c := range cs {
			sent += c.sent
			if m := c.missing(); m != nil {
				lost = append(lost, fmt.Sprintf("client %d of %d: %v", i, c.sent, m))
			}
			if pods := c.pods(); len(pods) > 1 {
				moved++
			}
		}
		t.Logf("%s: %d datagrams of %d clients, %d moved", name, sent, len(cs), moved)
		if len(lost) > 0 || sent == 0 {
			t.Errorf("%s: not answered:\n%s", name, strings.Join(lost, "\n"))
		}
		if moved > 0 {
			t.Errorf("%s: %d of %d clients were answered by more than one pod", name, moved, len(cs))
		}
	}
	if t.Failed() { // where the kernel had no room, RcvbufErrors says so
		t.Log(w.OnNode("node1", "grep", "Udp:", "/proc/self/net/snmp").Output())
	}
	t.Log(connections)
	if len(connections.Failed()) > 0 || connections.Connections() == 0 {
		t.Error("connections at the loopback failed")
	}
}

// A process that is killed leaves nothing that keeps the next one from answering: neither at the ports, nor for clients
// that were answered before, nor for connections.
func TestTheLoopbackAnswersAgainAfterACrash(t *testing.T) {
	w, node := startEcho(t)
	known := converse(t, node, loopback(30053), 5*time.Millisecond)
	known.run(t.Context(), 10)
	connection, err := node.DialContext(t.Context(), "tcp", loopback(30080)) // one that the crash cuts
	if err != nil {
		t.Fatal(err)
	}
	defer connection.Close()
	for range 3 {
		ctx, cancel := context.WithCancel(t.Context())
		var talking sync.WaitGroup
		talking.Go(func() { known.run(ctx, 1<<30) })
		w.Kill(t)
		if r := w.Verb("up", "--detach"); r.Err != nil {
			t.Fatalf("%v\n%s", r.Err, r.Output())
		}
		up := known.goesOn(t)
		cancel()
		talking.Wait()
		for _, n := range known.missing() {
			if n > up {
				t.Errorf("datagram %d is not answered, %d were sent when the instance was up", n, up)
			}
		}
		for _, port := range []int{30053, 30054} {
			awaitAnswer(t, node, port)
		}
		ctx, cancel = context.WithTimeout(t.Context(), 200*time.Millisecond)
		connections := load.Start(ctx, 50, []load.Source{{NS: node}}, loopback(30080))
		connections.Wait()
		cancel()
		if len(connections.Failed()) > 0 || connections.Connections() == 0 {
			t.Error(connections)
		}
		if status := w.Verb("status").Output(); strings.Contains(status, "not answered at") {
			t.Errorf("status:\n%s", status)
		}
	}
}
