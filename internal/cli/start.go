package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"

	"minato/internal/instance"
	"minato/internal/run"
)

// progressFD names, in the environment of a detached instance, the descriptor on which it tells its progress.
const progressFD = "MINATO_PROGRESS_FD"

// started ends the progress of a detached instance that came up.
const started = "\x00"

// foreground runs the instance until it is interrupted, and then takes it down. Terminated, it leaves the pods
// running, for the next start to take up.
func foreground(ctx context.Context, inst instance.Instance, cfg instance.Config, f *upFlags, stderr io.Writer) error {
	var l slog.Level
	if err := l.UnmarshalText([]byte(f.logLevel)); err != nil {
		return &exitError{exitUsage, fmt.Errorf("give --log-level debug, info, warn or error: %w", err)}
	}
	progress, finish := io.Writer(stderr), func(bool) {}
	if fd, err := strconv.Atoi(os.Getenv(progressFD)); err == nil {
		f := os.NewFile(uintptr(fd), "progress")
		os.Unsetenv(progressFD)
		progress = f
		finish = func(ok bool) {
			if ok {
				_, _ = io.WriteString(f, started)
			}
			f.Close()
		}
	}
	log := slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: l}))
	interrupted := make(chan os.Signal, 1)
	signal.Notify(interrupted, os.Interrupt)
	defer signal.Stop(interrupted)
	r, err := run.Up(ctx, inst, cfg, run.Options{Progress: progress, Log: log, Owner: owner(), Replace: f.replace})
	finish(err == nil)
	if err != nil {
		return err
	}
	if err := r.Wait(); err != nil {
		return err
	}
	select {
	case <-interrupted:
		signal.Reset(os.Interrupt) // a second Ctrl-C ends it at once
		return run.Down(context.WithoutCancel(ctx), inst, stderr)
	default:
		return nil
	}
}

// detach starts this program again, in a session of its own, and shows what it tells until it is ready.
func detach(ctx context.Context, inst instance.Instance, args []string, stderr io.Writer) error {
	if err := inst.MakeDirs(); err != nil {
		return err
	}
	exe, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	logFile, err := os.OpenFile(inst.LogFile(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o640)
	if err != nil {
		return fmt.Errorf("open the log: %w", err)
	}
	defer logFile.Close()
	r, w, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("open a pipe: %w", err)
	}
	defer r.Close()
	cmd := exec.Command(exe, append(args, "--detach=false")...)
	cmd.Stdout, cmd.Stderr = logFile, logFile
	cmd.ExtraFiles = []*os.File{w}
	cmd.Env = append(os.Environ(), progressFD+"=3")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	cmd.Dir = "/"
	if err := cmd.Start(); err != nil {
		w.Close()
		return fmt.Errorf("start in the background: %w", err)
	}
	w.Close()
	stop := context.AfterFunc(ctx, func() { _ = cmd.Process.Signal(os.Interrupt) })
	defer stop()
	ok, err := copyProgress(stderr, r)
	if err != nil {
		return fmt.Errorf("read the progress: %w", err)
	}
	if ok {
		return cmd.Process.Release()
	}
	if err := cmd.Wait(); err != nil {
		return &exitError{code: exitFailed, err: fmt.Errorf("%s (log: %s)", lastLine(inst.LogFile()), inst.LogFile())}
	}
	return errors.New("the instance ended before it was ready")
}

// copyProgress copies until the end, and reports whether the end was a ready instance.
func copyProgress(w io.Writer, r io.Reader) (ready bool, err error) {
	buf := make([]byte, 4096)
	for {
		n, err := r.Read(buf)
		text, _, done := bytes.Cut(buf[:n], []byte(started))
		if _, err := w.Write(text); err != nil {
			return done, err
		}
		switch {
		case done:
			return true, nil
		case errors.Is(err, io.EOF):
			return false, nil
		case err != nil:
			return false, err
		}
	}
}

// lastLine is what a program said last, without its own name.
func lastLine(file string) string {
	b, err := os.ReadFile(file)
	if err != nil {
		return err.Error()
	}
	b = bytes.TrimSpace(b)
	if i := bytes.LastIndex(b, []byte("\nminato: ")); i >= 0 {
		b = b[i+1:]
	}
	return string(bytes.TrimPrefix(b[bytes.LastIndexByte(b[:min(len(b), 8)], '\n')+1:], []byte("minato: ")))
}

// owner is the user whom the control socket and the kubeconfig belong to: the one who ran sudo.
func owner() run.Owner {
	o := run.Owner{UID: os.Getuid(), GID: os.Getgid()}
	if uid, err := strconv.Atoi(os.Getenv("SUDO_UID")); err == nil && o.UID == 0 {
		o.UID = uid
		if gid, err := strconv.Atoi(os.Getenv("SUDO_GID")); err == nil {
			o.GID = gid
		}
	}
	return o
}

// kubeconfigPath is the file that kubectl of the invoking user reads.
func kubeconfigPath(flag string) string {
	if flag != "" {
		if abs, err := filepath.Abs(flag); err == nil {
			return abs
		}
		return flag
	}
	if list := filepath.SplitList(os.Getenv("KUBECONFIG")); len(list) > 0 && list[0] != "" {
		return list[0]
	}
	home, err := os.UserHomeDir()
	if u, lookErr := user.LookupId(strconv.Itoa(owner().UID)); lookErr == nil {
		home, err = u.HomeDir, nil
	}
	if err != nil {
		return ""
	}
	return filepath.Join(home, ".kube", "config")
}
