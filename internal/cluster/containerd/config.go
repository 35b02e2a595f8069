package containerd

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"text/template"

	"golang.org/x/sys/unix"
)

// Config says where the private containerd lives. All folders are the instance's own.
type Config struct {
	Dir        string // what survives a reboot: images, snapshots, configuration, CNI folders, log
	RunDir     string // sockets, and the state of running containers
	PauseImage string // see images.PauseImage
	Mirror     string // base URL of the first registry mirror, "http://127.0.0.1:PORT"; empty for none
	CgroupRoot string // optional: parent of all pods' cgroups, removed with them
	Log        *slog.Logger
}

// Socket is the gRPC socket.
func (c Config) Socket() string { return filepath.Join(c.RunDir, "containerd.sock") }

// CNIBinDir is where cni.Install puts the plugin.
func (c Config) CNIBinDir() string { return filepath.Join(c.Dir, "cni", "bin") }

// CNIConfDir is where cni.Install puts the configuration of the network.
func (c Config) CNIConfDir() string { return filepath.Join(c.Dir, "cni", "conf") }

func (c Config) file() string     { return filepath.Join(c.Dir, "config.toml") }
func (c Config) logFile() string  { return filepath.Join(c.Dir, "containerd.log") }
func (c Config) pidFile() string  { return filepath.Join(c.RunDir, "containerd.pid") }
func (c Config) state() string    { return filepath.Join(c.RunDir, "state") }
func (c Config) runcRoot() string { return filepath.Join(c.RunDir, "runc") }

// settings are a configuration file's variable parts.
type settings struct {
	Root, State, Socket, RuncRoot    string
	CNIBin, CNIConf, Certs           string
	PauseImage, Snapshotter          string
	RestrictOOM, AppArmor, BinDirsIn bool
}

// Common to both layouts: no plugin that needs a file system or a service which may be absent.
const head = `root = {{printf "%q" .Root}}
state = {{printf "%q" .State}}
disabled_plugins = [
  "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.blockfile", "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs", "io.containerd.nri.v1.nri",
  "io.containerd.internal.v1.opt", "io.containerd.internal.v1.tracing", "io.containerd.tracing.processor.v1.otlp",
]
[grpc]
  address = {{printf "%q" .Socket}}
[ttrpc]
  address = {{printf "%q" (print .Socket ".ttrpc")}}
`

// version2 is the layout of containerd 1.x (its docs/cri/config.md).
const version2 = "version = 2\n" + head + `[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = {{printf "%q" .PauseImage}}
  stream_server_address = "127.0.0.1"
  stream_server_port = "0"
  disable_apparmor = {{not .AppArmor}}
  restrict_oom_score_adj = {{.RestrictOOM}}
  disable_hugetlb_controller = true
  tolerate_missing_hugetlb_controller = true
  netns_mounts_under_state_dir = true
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = {{printf "%q" .Snapshotter}}
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
        Root = {{printf "%q" .RuncRoot}}
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = {{printf "%q" .CNIBin}}
    conf_dir = {{printf "%q" .CNIConf}}
  [plugins."io.containerd.grpc.v1.cri".registry]
    config_path = {{printf "%q" .Certs}}
`

// version3 is the layout of containerd 2.x, where CRI is two plugins (its docs/cri/config.md).
const version3 = "version = 3\n" + head + `[plugins.'io.containerd.cri.v1.images']
  snapshotter = {{printf "%q" .Snapshotter}}
  [plugins.'io.containerd.cri.v1.images'.pinned_images]
    sandbox = {{printf "%q" .PauseImage}}
  [plugins.'io.containerd.cri.v1.images'.registry]
    config_path = {{printf "%q" .Certs}}
[plugins.'io.containerd.cri.v1.runtime']
  disable_apparmor = {{not .AppArmor}}
  restrict_oom_score_adj = {{.RestrictOOM}}
  disable_hugetlb_controller = true
  tolerate_missing_hugetlb_controller = true
  netns_mounts_under_state_dir = true
  [plugins.'io.containerd.cri.v1.runtime'.containerd]
    default_runtime_name = "runc"
    [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
        SystemdCgroup = false
        Root = {{printf "%q" .RuncRoot}}
  [plugins.'io.containerd.cri.v1.runtime'.cni]
{{- if .BinDirsIn}}
    bin_dirs = [{{printf "%q" .CNIBin}}]
{{- else}}
    bin_dir = {{printf "%q" .CNIBin}}
{{- end}}
    conf_dir = {{printf "%q" .CNIConf}}
[plugins.'io.containerd.grpc.v1.cri']
  stream_server_address = "127.0.0.1"
  stream_server_port = "0"
`

// render is the configuration file for a version of containerd.
func (s settings) render(v version) (string, error) {
	layout := version2
	if v.major >= 2 {
		layout = version3
	}
	s.BinDirsIn = v.major > 2 || v.major == 2 && v.minor >= 1
	t, err := template.New("config.toml").Parse(layout)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	err = t.Execute(&b, s)
	return b.String(), err
}

// settings finds out what this machine permits.
func (c Config) settings() (settings, error) {
	lower, err := canLowerOOMScore()
	if err != nil {
		return settings{}, fmt.Errorf("trying oom_score_adj: %w", err)
	}
	snapshotter := "overlayfs"
	if err := tryOverlay(c.Dir); err != nil {
		c.Log.Warn("overlayfs cannot be mounted, layers are copied instead, which is slow and large", "err", err)
		snapshotter = "native"
	}
	apparmor, err := os.ReadFile("/sys/module/apparmor/parameters/enabled")
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return settings{}, err
	}
	return settings{
		Root: filepath.Join(c.Dir, "root"), State: c.state(), Socket: c.Socket(), RuncRoot: c.runcRoot(),
		CNIBin: c.CNIBinDir(), CNIConf: c.CNIConfDir(), Certs: filepath.Join(c.Dir, "certs.d"),
		PauseImage: c.PauseImage, Snapshotter: snapshotter,
		RestrictOOM: !lower, AppArmor: strings.HasPrefix(string(apparmor), "Y"),
	}, nil
}

// write puts the configuration in place and reports whether the file has changed.
func (c Config) write(v version) (changed bool, err error) {
	for _, dir := range []string{c.Dir, c.RunDir} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return false, err
		}
	}
	s, err := c.settings()
	if err != nil {
		return false, err
	}
	text, err := s.render(v)
	if err != nil {
		return false, err
	}
	if err := c.writeMirror(s.Certs); err != nil {
		return false, err
	}
	old, err := os.ReadFile(c.file())
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return false, err
	}
	if string(old) == text {
		return false, nil
	}
	return true, replace(c.file(), text)
}

// writeMirror makes the mirror the first host of every registry. containerd reads the file at every pull.
func (c Config) writeMirror(certs string) error {
	dir := filepath.Join(certs, "_default")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	text := ""
	if c.Mirror != "" {
		text = fmt.Sprintf("[host.%q]\n  capabilities = [\"pull\", \"resolve\"]\n", c.Mirror)
	}
	return replace(filepath.Join(dir, "hosts.toml"), text)
}

func replace(path, text string) error {
	if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// canLowerOOMScore tries it on this process, and restores it. Without CAP_SYS_RESOURCE it is refused, and so would
// be every sandbox, whose score is negative.
func canLowerOOMScore() (bool, error) {
	const file = "/proc/self/oom_score_adj"
	old, err := os.ReadFile(file)
	if err != nil {
		return false, err
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(old)))
	if err != nil {
		return false, err
	}
	if n <= -998 { // kubelet's score of a sandbox
		return true, nil
	}
	if err := os.WriteFile(file, []byte(strconv.Itoa(n-1)), 0); err != nil {
		if errors.Is(err, os.ErrPermission) {
			return false, nil
		}
		return false, err
	}
	return true, os.WriteFile(file, old, 0)
}

// tryOverlay mounts a small overlay under dir: it fails on an overlay itself, as in a container.
func tryOverlay(dir string) error {
	tmp, err := os.MkdirTemp(dir, "overlay-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	for _, name := range []string{"lower", "upper", "work", "merged"} {
		if err := os.Mkdir(filepath.Join(tmp, name), 0o700); err != nil {
			return err
		}
	}
	merged := filepath.Join(tmp, "merged")
	options := fmt.Sprintf("lowerdir=%[1]s/lower,upperdir=%[1]s/upper,workdir=%[1]s/work", tmp)
	if err := unix.Mount("overlay", merged, "overlay", 0, options); err != nil {
		return os.NewSyscallError("mount overlay", err)
	}
	return unix.Unmount(merged, 0)
}

// version is containerd's own.
type version struct{ major, minor int }

var versionNumber = regexp.MustCompile(`\bv?(\d+)\.(\d+)\.\d+`)

// parseVersion reads the output of `containerd --version`.
func parseVersion(output string) (version, error) {
	m := versionNumber.FindStringSubmatch(output)
	if m == nil {
		return version{}, fmt.Errorf("no version in %q", output)
	}
	major, _ := strconv.Atoi(m[1])
	minor, _ := strconv.Atoi(m[2])
	return version{major, minor}, nil
}
