//go:build linux

package cni

import (
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"minato/internal/cluster/cni/plugin"
)

// bin holds the plugin if cmd/minato-cni was built into it before this package. A plain `go build` embeds the
// placeholder alone, and the program itself is then the plugin.
//
//go:embed bin
var bin embed.FS

// Install writes the plugin and its configuration, each by rename, so that a running containerd never sees half
// of one. network names the CNI network, and so the runtime's cache files of it; socket is the control socket.
//
// Without an embedded plugin binDir gets links to the running program, whose main must then call plugin.Main
// when plugin.Is(os.Args[0]).
func Install(binDir, confDir, network, socket string) error {
	for _, dir := range []string{binDir, confDir} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("making folder for CNI: %w", err)
		}
	}
	for _, name := range []string{plugin.Name, plugin.Loopback} {
		if err := installPlugin(filepath.Join(binDir, name)); err != nil {
			return fmt.Errorf("installing CNI plugin: %w", err)
		}
	}
	conf, err := json.MarshalIndent(map[string]any{
		"cniVersion": Version, "name": network,
		"plugins": []any{map[string]any{
			"type": plugin.Name, "socket": socket,
			"capabilities": map[string]bool{"io.kubernetes.cri.pod-annotations": true, "portMappings": true},
		}},
	}, "", "  ")
	if err != nil {
		return err
	}
	return replace(filepath.Join(confDir, "10-minato.conflist"), func(tmp string) error {
		return os.WriteFile(tmp, append(conf, '\n'), 0o644)
	})
}

func installPlugin(path string) error {
	program, err := bin.ReadFile("bin/" + plugin.Name)
	if errors.Is(err, fs.ErrNotExist) {
		self, err := os.Executable()
		if err != nil {
			return err
		}
		return replace(path, func(tmp string) error { return os.Symlink(self, tmp) })
	}
	if err != nil {
		return err
	}
	return replace(path, func(tmp string) error { return os.WriteFile(tmp, program, 0o755) })
}

// replace makes path by way of a temporary name in its folder.
func replace(path string, write func(tmp string) error) error {
	tmp := path + ".new"
	if err := os.RemoveAll(tmp); err != nil {
		return err
	}
	if err := write(tmp); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}
