package deb

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"path"
	"strings"
)

// Files calls each for every entry of the package file, with its clean path (no leading slash) and, for a regular
// file, its content. Reading needs no root: owners and modes are those in the package.
func Files(ctx context.Context, file string, each func(h *tar.Header, content []byte) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	cmd := exec.CommandContext(ctx, "dpkg-deb", "--fsys-tarfile", file)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return fmt.Errorf("read %s: %w", file, err)
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("read %s: %w", file, err)
	}
	if err := entries(out, each); err != nil {
		cancel()
		_ = cmd.Wait() // killed just above; err says why
		return fmt.Errorf("read %s: %w: %s", file, err, stderr.Bytes())
	}
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("read %s: %w: %s", file, err, stderr.Bytes())
	}
	return nil
}

func entries(r io.Reader, each func(*tar.Header, []byte) error) error {
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			_, err := io.Copy(io.Discard, r) // padding, so that dpkg-deb does not die of a closed pipe
			return err
		}
		if err != nil {
			return err
		}
		h.Name = strings.TrimPrefix(path.Clean("/"+h.Name), "/")
		if h.Name == "" {
			continue
		}
		content, err := io.ReadAll(tr)
		if err != nil {
			return fmt.Errorf("%s: %w", h.Name, err)
		}
		if err := each(h, content); err != nil {
			return err
		}
	}
}
