package cli

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"minato/examples"
	"minato/internal/tutorial"
	"minato/internal/tutorial/guide"
)

// tutorialHost runs the commands of a lesson on this machine, in a folder with the lesson's files. It is a guide.Host.
type tutorialHost struct {
	base string // folder of all lessons of the instance
	dir  string // of the lesson
	out  io.Writer
	keys *os.File
	line *bufio.Reader // of keys
}

// host makes the programs that lessons type, kubectl and minato for this instance, and asks whether it runs.
func (t *tutorialRun) host(ctx context.Context) (*tutorialHost, error) {
	inst, err := t.instance()
	if err != nil {
		return nil, err
	}
	if _, err := t.options.nodes(ctx); err != nil {
		return nil, err
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return nil, fmt.Errorf("set HOME or XDG_CACHE_HOME, where the files of lessons are kept: %w", err)
	}
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find the program itself: %w", err)
	}
	h := &tutorialHost{base: filepath.Join(cache, "minato", "tutorial", inst.Name), out: t.out}
	h.dir = h.base
	if err := os.MkdirAll(h.programs(), 0o755); err != nil {
		return nil, fmt.Errorf("make the folder of the lessons: %w", err)
	}
	flags := "--name " + quote(inst.Name) + " --state-dir " + quote(inst.StateDir)
	for name, line := range map[string]string{
		"kubectl": quote(self) + " kubectl " + flags,
		"minato":  quote(self) + " " + flags,
	} {
		if err := os.WriteFile(filepath.Join(h.programs(), name), []byte("#!/bin/sh\nexec "+line+" \"$@\"\n"), 0o755); err != nil {
			return nil, fmt.Errorf("write the program %s for lessons: %w", name, err)
		}
	}
	return h, nil
}

// quote is a word for a shell.
func quote(word string) string { return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'" }

func (h *tutorialHost) programs() string { return filepath.Join(h.base, "bin") }
func (h *tutorialHost) envFile() string  { return filepath.Join(h.dir, "env") }

// prepare writes the files of a lesson, and what another terminal is to source.
func (h *tutorialHost) prepare(l tutorial.Lesson, values map[string]string) error {
	h.dir = filepath.Join(h.base, l.Name)
	if err := os.MkdirAll(h.dir, 0o755); err != nil {
		return fmt.Errorf("make the folder of the lesson: %w", err)
	}
	files := map[string]string{"env": "cd " + quote(h.dir) + "\nPATH=" + quote(h.programs()) + ":$PATH\n"}
	for _, name := range l.Files {
		text, err := examples.Files.ReadFile(l.Folder + "/" + name)
		if err != nil {
			return fmt.Errorf("example %s/%s: %w", l.Folder, name, err)
		}
		files[name] = string(text)
		for _, a := range l.Adapt {
			files[name] = strings.ReplaceAll(files[name], a.Old, tutorial.Fill(a.New, values))
		}
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(h.dir, name), []byte(text), 0o644); err != nil {
			return fmt.Errorf("write a file of the lesson: %w", err)
		}
	}
	return nil
}

// remove deletes the files of a lesson.
func (h *tutorialHost) remove(l tutorial.Lesson) error {
	if err := os.RemoveAll(filepath.Join(h.base, l.Name)); err != nil {
		return fmt.Errorf("remove the files of the lesson: %w", err)
	}
	return nil
}

func (h *tutorialHost) shell(ctx context.Context, line string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "sh", "-c", line)
	cmd.Dir = h.dir
	cmd.Env = append(os.Environ(), "PATH="+h.programs()+":"+os.Getenv("PATH"))
	return cmd
}

// Run implements guide.Host.
func (h *tutorialHost) Run(ctx context.Context, line string) (int, error) {
	cmd := h.shell(ctx, line)
	cmd.Stdout, cmd.Stderr = h.out, h.out
	return ended(ctx, cmd.Run())
}

// ended is the exit code of a command; only a command that could not run at all is an error.
func ended(ctx context.Context, err error) (int, error) {
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		return 0, ctx.Err()
	case errors.As(err, &exit):
		return exit.ExitCode(), nil
	case err != nil:
		return 0, fmt.Errorf("run a command of the lesson: %w", err)
	}
	return 0, nil
}

// Ask implements guide.Host.
func (h *tutorialHost) Ask(ctx context.Context, q tutorial.Question) (tutorial.Answer, error) {
	if q.URL != "" {
		return tutorial.Answer{Out: getTimes(ctx, q)}, ctx.Err()
	}
	cmd := h.shell(ctx, q.Line)
	if q.Line == "" {
		words := make([]string, len(q.Argv))
		for i, w := range q.Argv {
			words[i] = quote(w)
		}
		cmd = h.shell(ctx, strings.Join(words, " "))
	}
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	code, err := ended(ctx, cmd.Run())
	return tutorial.Answer{Out: stdout.String(), Err: stderr.String(), Code: code}, err
}

// getTimes gets a URL again and again, each time by a new connection, until one is not answered.
func getTimes(ctx context.Context, q tutorial.Question) string {
	transport := &http.Transport{DisableKeepAlives: true, Proxy: nil}
	transport.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		if _, port, err := net.SplitHostPort(address); err == nil && q.Via != "" {
			address = net.JoinHostPort(q.Via, port)
		}
		return new(net.Dialer).DialContext(ctx, network, address)
	}
	client := http.Client{Transport: transport, Timeout: 2 * time.Second}
	var out strings.Builder
	for range q.Times {
		body, err := getOnce(ctx, &client, q.URL)
		out.WriteString(body + tutorial.Separator)
		if err != nil {
			break
		}
	}
	return out.String()
}

func getOnce(ctx context.Context, client *http.Client, url string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	res, err := client.Do(req)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, 64<<10))
	return string(body), err
}

// Key implements guide.Host. It waits by poll, so that no goroutine stays behind in a read.
func (h *tutorialHost) Key(ctx context.Context, patience time.Duration) (string, bool, error) {
	if h.line == nil {
		h.line = bufio.NewReader(h.keys)
	}
	for deadline := time.Now().Add(patience); h.line.Buffered() == 0; {
		there, err := typed(h.keys, 100*time.Millisecond)
		switch {
		case ctx.Err() != nil || err != nil:
			return "", false, errors.Join(ctx.Err(), err)
		case there: // a terminal gives whole lines
			return answered(h.line.ReadString('\n'))
		case time.Now().After(deadline):
			return "", false, nil
		}
	}
	return answered(h.line.ReadString('\n'))
}

func answered(line string, err error) (string, bool, error) {
	switch {
	case errors.Is(err, io.EOF): // Ctrl-D
		return "", false, guide.ErrLeft
	case err != nil:
		return "", false, fmt.Errorf("read the terminal: %w", err)
	}
	return strings.TrimSpace(line), true, nil
}

// typed waits a while for something to read.
func typed(f *os.File, patience time.Duration) (bool, error) {
	n, err := unix.Poll([]unix.PollFd{{Fd: int32(f.Fd()), Events: unix.POLLIN}}, int(patience.Milliseconds()))
	if err != nil && !errors.Is(err, unix.EINTR) {
		return false, fmt.Errorf("wait for the terminal: %w", err)
	}
	return n > 0, nil
}
