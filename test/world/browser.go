package world

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/websocket"

	"minato/internal/netns/netnstest"
)

// Browser is a page of a headless Chromium on the host, driven by the Chrome DevTools Protocol. It is for one goroutine.
type Browser struct {
	w    *World
	conn *websocket.Conn
	last int
}

// browserTime is how long a page may take on a busy machine.
const browserTime = time.Minute

// Browse starts a browser on the host and opens a URL. Flags are Chromium's own. It ends with the test, which is
// skipped on a machine without one.
func (w *World) Browse(t testing.TB, url string, flags ...string) *Browser {
	t.Helper()
	program, err := exec.LookPath("chromium")
	if err != nil {
		t.Skip("no chromium on this machine (apt-get install chromium)")
	}
	profile, err := os.MkdirTemp(w.dir, "browser-")
	if err != nil {
		t.Fatal(err)
	}
	argv := append([]string{
		program, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--disable-sync",
		"--disable-background-networking", "--disable-component-update", "--window-size=1300,900",
		"--user-data-dir=" + profile, "--remote-debugging-port=0", "--remote-allow-origins=http://127.0.0.1",
	}, flags...)
	ctx, cancel := context.WithCancel(context.Background())
	cmd := w.command(ctx, append(argv, "about:blank")...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	if err := netnstest.Start(w.Host, cmd); err != nil {
		t.Fatal(err)
	}
	var end sync.WaitGroup
	end.Go(func() { _ = cmd.Wait() })
	t.Cleanup(func() { cancel(); end.Wait() })
	b := &Browser{w: w}
	Eventually(t, browserTime, func() error { return b.connect(t.Context(), profile) })
	t.Cleanup(func() { b.conn.Close() })
	b.do(t, "Page.enable", nil)
	b.do(t, "Page.navigate", map[string]any{"url": url})
	return b
}

// connect finds the browser's port and its first page.
func (b *Browser) connect(ctx context.Context, profile string) error {
	file, err := os.ReadFile(filepath.Join(profile, "DevToolsActivePort"))
	if err != nil {
		return err
	}
	port, _, _ := strings.Cut(string(file), "\n")
	r := b.w.OnLAN("curl", "-sS", "http://127.0.0.1:"+port+"/json/list")
	var pages []struct {
		Type string
		URL  string `json:"webSocketDebuggerUrl"`
	}
	if err := json.Unmarshal([]byte(r.Stdout), &pages); err != nil {
		return fmt.Errorf("%w: %s", err, r.Output())
	}
	for _, p := range pages {
		if p.Type != "page" {
			continue
		}
		config, err := websocket.NewConfig(p.URL, "http://127.0.0.1")
		if err != nil {
			return err
		}
		var c net.Conn
		if c, err = b.w.Host.DialContext(ctx, "tcp", "127.0.0.1:"+port); err != nil {
			return err
		}
		b.conn, err = websocket.NewClient(config, c)
		return err
	}
	return fmt.Errorf("no page among %v", pages)
}

// do calls a method of the protocol and returns its result. An error ends the test.
func (b *Browser) do(t testing.TB, method string, params any) json.RawMessage {
	t.Helper()
	b.last++
	if err := b.conn.SetDeadline(time.Now().Add(browserTime)); err != nil {
		t.Fatal(err)
	}
	if params == nil {
		params = struct{}{}
	}
	if err := websocket.JSON.Send(b.conn, map[string]any{"id": b.last, "method": method, "params": params}); err != nil {
		t.Fatal(err)
	}
	for {
		var answer struct {
			ID     int
			Result json.RawMessage
			Error  *struct{ Message string }
		}
		if err := websocket.JSON.Receive(b.conn, &answer); err != nil {
			t.Fatalf("%s: %v", method, err)
		}
		if answer.ID != b.last {
			continue // an event
		}
		if answer.Error != nil {
			t.Fatalf("%s: %s", method, answer.Error.Message)
		}
		return answer.Result
	}
}

// Eval runs JavaScript in the page and returns the value as text.
func (b *Browser) Eval(t testing.TB, script string) string {
	t.Helper()
	var r struct {
		Result           struct{ Value any }
		ExceptionDetails any
	}
	answer := b.do(t, "Runtime.evaluate", map[string]any{"expression": script, "returnByValue": true, "awaitPromise": true})
	if err := json.Unmarshal(answer, &r); err != nil || r.ExceptionDetails != nil {
		t.Fatalf("%s: %v\n%s", script, err, answer)
	}
	if r.Result.Value == nil {
		return ""
	}
	return fmt.Sprint(r.Result.Value)
}

// Until waits until the page's JavaScript has a value that is not "", false or undefined, and returns it.
func (b *Browser) Until(t testing.TB, script string) (value string) {
	t.Helper()
	Eventually(t, browserTime, func() error {
		if value = b.Eval(t, script); value == "" || value == "false" {
			return fmt.Errorf("the page never has %s:\n%s", script, b.Eval(t, "document.body.innerText"))
		}
		return nil
	})
	return value
}

// Key presses and releases a key by its name, such as Tab or Enter.
func (b *Browser) Key(t testing.TB, name string) {
	t.Helper()
	press := map[string]any{"type": "keyDown", "key": name, "code": name, "windowsVirtualKeyCode": map[string]int{"Tab": 9, "Enter": 13, "Escape": 27}[name]}
	if name == "Enter" {
		press["text"] = "\r"
	}
	b.do(t, "Input.dispatchKeyEvent", press)
	b.do(t, "Input.dispatchKeyEvent", map[string]any{"type": "keyUp", "key": name, "code": name})
}

// Names are what a screen reader says of everything in the page that has one of the roles, as "role name".
func (b *Browser) Names(t testing.TB, roles ...string) (all []string) {
	t.Helper()
	var tree struct {
		Nodes []struct {
			Ignored    bool
			Role, Name struct{ Value any }
		}
	}
	if err := json.Unmarshal(b.do(t, "Accessibility.getFullAXTree", nil), &tree); err != nil {
		t.Fatal(err)
	}
	for _, n := range tree.Nodes {
		for _, role := range roles {
			if !n.Ignored && n.Role.Value == role {
				all = append(all, fmt.Sprintf("%s %v", role, n.Name.Value))
			}
		}
	}
	return all
}

// Screenshot keeps a picture of the page for people to look at, in the folder $MINATO_SCREENSHOTS if there is one.
func (b *Browser) Screenshot(t testing.TB, name string) {
	t.Helper()
	dir := os.Getenv("MINATO_SCREENSHOTS")
	if dir == "" {
		return
	}
	var shot struct{ Data string }
	if err := json.Unmarshal(b.do(t, "Page.captureScreenshot", map[string]any{"captureBeyondViewport": true}), &shot); err != nil {
		t.Fatal(err)
	}
	picture, err := base64.StdEncoding.DecodeString(shot.Data)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, name+".png"), picture, 0o644); err != nil {
		t.Fatal(err)
	}
}
