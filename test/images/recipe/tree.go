package recipe

import (
	"archive/tar"
	"bytes"
	"context"
	"embed"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"minato/test/images/deb"
)

//go:embed root
var ownFiles embed.FS

// tree is the content of a layer by path. A parent sorts before what it holds.
type tree map[string]entry

type entry struct {
	header  tar.Header
	content []byte
}

// unneeded is what packages bring for people, init systems and package managers.
var unneeded = []string{
	"etc/cron", "etc/default", "etc/init.d", "etc/logrotate.d", "etc/ufw", "usr/lib/systemd", "usr/share/apport",
	"usr/share/bash-completion", "usr/share/bug", "usr/share/debianutils", "usr/share/doc", "usr/share/info", "usr/share/lintian",
	"usr/share/locale", "usr/share/man", "usr/share/menu", "usr/share/vim", "usr/share/zsh",
}

// fill adds the layer's packages, folders, links and own files, later ones over earlier ones.
func (t tree) fill(ctx context.Context, l layer, debs string, packages []deb.Package) error {
	for _, p := range packages {
		err := deb.Files(ctx, filepath.Join(debs, p.File()), func(h *tar.Header, content []byte) error {
			h.Name = mergeUsr(h.Name)
			if h.Typeflag == tar.TypeLink {
				h.Linkname = mergeUsr(strings.TrimPrefix(h.Linkname, "./"))
			}
			if !isUnneeded(h.Name) {
				t[h.Name] = entry{*h, content}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	for name, mode := range l.Dirs {
		t.add(tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: mode}, nil)
	}
	for name, target := range l.Links {
		t.add(tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: target, Mode: 0o777}, nil)
	}
	if err := t.addOwn(l.Name); err != nil {
		return err
	}
	if l.Busybox != "" {
		return t.addApplets(ctx, l.Busybox)
	}
	return nil
}

func (t tree) add(h tar.Header, content []byte) {
	h.Size = int64(len(content))
	t[h.Name] = entry{h, content}
}

// addOwn adds the files below root/NAME of this package, if there are any.
func (t tree) addOwn(name string) error {
	own, err := fs.Sub(ownFiles, "root/"+name)
	if err != nil {
		return fmt.Errorf("own files of layer %s: %w", name, err)
	}
	if _, err := fs.Stat(own, "."); err != nil {
		return nil
	}
	return fs.WalkDir(own, ".", func(file string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		content, err := fs.ReadFile(own, file)
		t.add(tar.Header{Typeflag: tar.TypeReg, Name: file, Mode: 0o644}, content)
		return err
	})
}

// addApplets asks the busybox itself which applets it was built with.
func (t tree) addApplets(ctx context.Context, busybox string) error {
	program, ok := t[busybox]
	if !ok {
		return fmt.Errorf("no busybox at %s in its package", busybox)
	}
	dir, err := os.MkdirTemp("", "minato-busybox-")
	if err != nil {
		return fmt.Errorf("list applets: %w", err)
	}
	defer os.RemoveAll(dir)
	file := filepath.Join(dir, "busybox")
	if err := os.WriteFile(file, program.content, 0o700); err != nil {
		return fmt.Errorf("list applets: %w", err)
	}
	out, err := exec.CommandContext(ctx, file, "--list").Output()
	if err != nil {
		return fmt.Errorf("list applets: %w", err)
	}
	for _, applet := range strings.Fields(string(out)) {
		name := filepath.Join(filepath.Dir(busybox), applet)
		if _, ok := t[name]; !ok {
			t.add(tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: filepath.Base(busybox), Mode: 0o777}, nil)
		}
	}
	return nil
}

// tar writes the tree in order, owned by root and with one time for all, so that equal trees give equal bytes.
func (t tree) tar() ([]byte, error) {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, name := range slices.Sorted(maps.Keys(t)) {
		e := t[name]
		h := tar.Header{
			Typeflag: e.header.Typeflag,
			Name:     name,
			Linkname: e.header.Linkname,
			Mode:     e.header.Mode,
			Size:     e.header.Size,
			ModTime:  time.Unix(0, 0),
			Format:   tar.FormatPAX,
		}
		if h.Typeflag == tar.TypeDir {
			h.Name += "/"
		}
		if err := w.WriteHeader(&h); err != nil {
			return nil, fmt.Errorf("pack %s: %w", name, err)
		}
		if _, err := w.Write(e.content); err != nil {
			return nil, fmt.Errorf("pack %s: %w", name, err)
		}
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("pack layer: %w", err)
	}
	return buf.Bytes(), nil
}

// mergeUsr moves what a package still ships in /bin, /sbin and /lib* to where the links of merged point.
func mergeUsr(name string) string {
	first, rest, below := strings.Cut(name, "/")
	target, ok := merged[first]
	if !ok {
		return name
	}
	if !below {
		return target
	}
	return target + "/" + rest
}

func isUnneeded(name string) bool {
	return slices.ContainsFunc(unneeded, func(prefix string) bool { return strings.HasPrefix(name, prefix) }) ||
		strings.Contains(name, "/gconv/")
}
