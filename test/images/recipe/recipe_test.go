package recipe

import (
	"archive/tar"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/miekg/dns"

	"minato/internal/netns"
	"minato/internal/netns/netnstest"
)

// uses says of every image what the walkthroughs run in it.
var uses = map[string][][]string{
	"nginx":          {{"nginx", "-t"}, {"hostname"}, {"echo", "x"}, {"cp", "/etc/passwd", "/usr/share/nginx/html/index.html"}, {"/bin/bash", "-c", "exit"}, {"sh", "-c", "exit"}},
	"nginx:1.12":     {{"nginx", "-t"}, {"hostname"}, {"cat", "/usr/share/nginx/html/index.html"}},
	"redis:3.2":      {{"redis-server", "--version"}, {"redis-cli", "--version"}, {"/bin/bash", "-c", "exit"}, {"curl", "--version"}, {"hostname"}},
	"alpine":         {{"ash", "-c", "exit"}, {"env"}, {"/bin/sh", "-c", "wget --help"}, {"sleep", "0"}, {"cat", "/etc/passwd"}},
	"busybox":        {{"sh", "-c", "exit"}, {"wget", "--help"}, {"sleep", "0"}},
	"centos:7":       {{"dig", "-v"}, {"/bin/bash", "-c", "exit"}},
	"thr3a/debugger": {{"sleep", "0"}, {"nslookup", "-version"}, {"dig", "-v"}, {"curl", "--version"}, {"cat", "/etc/nsswitch.conf"}, {"/bin/bash", "-c", "exit"}},
	"minato/libc":    {{"sh", "/usr/local/bin/lookup", "glibc", "127.0.0.1"}, {"sh", "/usr/local/bin/lookup", "musl", "127.0.0.1"}, {"sleep", "0"}},
}

// lookups say how a name is resolved and a page fetched in an image.
var lookups = map[string][]string{
	"alpine":         {"nslookup web", "wget -q -O - web"},
	"busybox":        {"nslookup web", "wget -q -O - web"},
	"redis:3.2":      {"curl -s web"},
	"centos:7":       {"dig web +search"},
	"thr3a/debugger": {"nslookup web", "dig web +search", "curl -s web"},
	"minato/libc":    {"sh /usr/local/bin/lookup glibc web", "sh /usr/local/bin/lookup musl web"},
}

func TestEveryImageRunsWhatTheWalkthroughsRunInIt(t *testing.T) {
	needRoot(t)
	for _, name := range Names() {
		t.Run(name, func(t *testing.T) {
			if len(uses[name]) == 0 {
				t.Fatal("no uses are listed for this image")
			}
			root := unpack(t, load(t, name))
			for _, use := range uses[name] {
				if out, err := inside(t, root, netns.NS{}, use...); err != nil {
					t.Errorf("%s: %v\n%s", strings.Join(use, " "), err, out)
				}
			}
		})
	}
}

func TestNamesResolveInTheImages(t *testing.T) {
	needRoot(t)
	ns := webNamespace(t)
	for name, commands := range lookups {
		t.Run(name, func(t *testing.T) {
			root := unpack(t, load(t, name))
			write := os.WriteFile(filepath.Join(root, "etc/resolv.conf"), []byte("search one.test two.test\nnameserver 127.0.0.1\noptions ndots:5\n"), 0o644)
			if write != nil {
				t.Fatal(write)
			}
			for _, command := range commands {
				out, err := inside(t, root, ns, strings.Fields(command)...)
				if !strings.Contains(out, "127.0.0.1") && !strings.Contains(out, "hello from web") {
					t.Errorf("%s: %v\n%s", command, err, out)
				}
				if strings.Contains(command, "nslookup") && !strings.Contains(out, "web.two.test") {
					t.Errorf("%s does not show the full name:\n%s", command, out)
				}
			}
		})
	}
}

func TestNginxIsConfiguredAsTheOfficialImageIs(t *testing.T) {
	img := load(t, "nginx")
	config, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	if config.Config.StopSignal != "SIGQUIT" {
		t.Errorf("stop signal %q, want SIGQUIT", config.Config.StopSignal)
	}
	if _, ok := config.Config.ExposedPorts["80/tcp"]; !ok {
		t.Errorf("exposes %v, want 80/tcp", config.Config.ExposedPorts)
	}
	root := unpack(t, img)
	page, err := os.ReadFile(filepath.Join(root, "usr/share/nginx/html/index.html"))
	if err != nil || !strings.Contains(string(page), "<title>Welcome to nginx!</title>") {
		t.Errorf("page: %v\n%s", err, page)
	}
	for log, target := range map[string]string{"access.log": "/dev/stdout", "error.log": "/dev/stderr"} {
		if got, err := os.Readlink(filepath.Join(root, "var/log/nginx", log)); got != target {
			t.Errorf("%s goes to %q (%v), want %s", log, got, err, target)
		}
	}
}

func TestTheSamePackagesGiveTheSameBytes(t *testing.T) {
	kept := load(t, "alpine")
	r, err := find("alpine")
	if err != nil {
		t.Fatal(err)
	}
	k, err := openKitchen(t.Context(), cache(t), r.Layers[0].Packages)
	if err != nil {
		t.Fatal(err)
	}
	packages, err := k.resolve(r)
	if err != nil {
		t.Fatal(err)
	}
	again, err := k.image(t.Context(), r, packages)
	if err != nil {
		t.Fatal(err)
	}
	got, gotErr := again.Digest()
	want, wantErr := kept.Digest()
	if gotErr != nil || wantErr != nil || got != want {
		t.Errorf("built again: %v (%v), before: %v (%v)", got, gotErr, want, wantErr)
	}
}

func TestImagesBringNoDocumentation(t *testing.T) {
	root := unpack(t, load(t, "thr3a/debugger"))
	for _, dir := range []string{"usr/share/doc", "usr/share/man", "usr/share/locale", "usr/lib/systemd"} {
		if _, err := os.Stat(filepath.Join(root, dir)); err == nil {
			t.Errorf("%s is in the image", dir)
		}
	}
}

func TestAnUnknownImageIsRefusedWithTheChoice(t *testing.T) {
	_, err := Tars(t.Context(), t.TempDir(), "postgres")
	if err == nil || !strings.Contains(err.Error(), "thr3a/debugger") {
		t.Errorf("got %v", err)
	}
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("chroot needs root")
	}
}

// allTars makes the images once for all tests.
var allTars = sync.OnceValues(func() (map[string]string, error) {
	dir, err := Cache()
	if err != nil {
		return nil, err
	}
	return Tars(context.Background(), dir, Names()...)
})

func cache(t *testing.T) string {
	t.Helper()
	dir, err := Cache()
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func load(t *testing.T, name string) v1.Image {
	t.Helper()
	if _, err := exec.LookPath("apt-get"); err != nil {
		t.Skip("images are made of Debian packages, and this machine has no apt")
	}
	files, err := allTars()
	if err != nil {
		t.Fatal(err)
	}
	img, err := tarball.ImageFromPath(files[name], nil)
	if err != nil {
		t.Fatal(err)
	}
	return img
}

// unpack writes the image's files to a folder that ends with the test.
func unpack(t *testing.T, img v1.Image) string {
	t.Helper()
	root := t.TempDir()
	content := mutate.Extract(img)
	defer content.Close()
	for tr := tar.NewReader(content); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if err := place(filepath.Join(root, h.Name), root, h, tr); err != nil {
			t.Fatal(err)
		}
	}
	for _, device := range []string{"null", "stdout", "stderr"} { // plain files will do
		if err := os.WriteFile(filepath.Join(root, "dev", device), nil, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func place(file, root string, h *tar.Header, content io.Reader) error {
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	switch h.Typeflag {
	case tar.TypeDir:
		return os.MkdirAll(file, os.FileMode(h.Mode).Perm())
	case tar.TypeSymlink:
		return os.Symlink(h.Linkname, file)
	case tar.TypeLink:
		return os.Link(filepath.Join(root, h.Linkname), file)
	}
	f, err := os.OpenFile(file, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, os.FileMode(h.Mode).Perm())
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(f, content)
	return err
}

// inside runs a command with the image's files as its root, and returns all that it prints.
func inside(t *testing.T, root string, ns netns.NS, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	program := args[0]
	if !strings.Contains(program, "/") {
		folders := []string{"usr/sbin", "usr/bin"}
		i := slices.IndexFunc(folders, func(dir string) bool {
			_, err := os.Lstat(filepath.Join(root, dir, program))
			return err == nil
		})
		if i < 0 {
			return "", exec.ErrNotFound
		}
		program = "/" + folders[i] + "/" + program
	}
	cmd := exec.CommandContext(ctx, program, args[1:]...)
	cmd.Env = []string{path}
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: root}
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := ns.Do(cmd.Start); err != nil {
		return "", err
	}
	err := cmd.Wait()
	return out.String(), err
}

// webNamespace has a name server on its loopback, which knows web.two.test alone, and a web server there.
func webNamespace(t *testing.T) netns.NS {
	t.Helper()
	ns := netnstest.Namespace(t, "web")
	packets, err := ns.ListenPacket(t.Context(), "udp", "127.0.0.1:53")
	if err != nil {
		t.Fatal(err)
	}
	l, err := ns.Listen(t.Context(), "tcp", "127.0.0.1:80")
	if err != nil {
		t.Fatal(err)
	}
	names := &dns.Server{PacketConn: packets, Handler: dns.HandlerFunc(answer)}
	web := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "hello from web") })}
	var servers sync.WaitGroup
	servers.Go(func() { _ = names.ActivateAndServe() })
	servers.Go(func() { _ = web.Serve(l) })
	t.Cleanup(func() {
		packets.Close()
		web.Close()
		servers.Wait()
	})
	return ns
}

func answer(w dns.ResponseWriter, q *dns.Msg) {
	m := new(dns.Msg).SetReply(q)
	switch question := q.Question[0]; {
	case question.Name != "web.two.test.":
		m.Rcode = dns.RcodeNameError
	case question.Qtype == dns.TypeA:
		hdr := dns.RR_Header{Name: question.Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 5}
		m.Answer = []dns.RR{&dns.A{Hdr: hdr, A: net.IPv4(127, 0, 0, 1)}}
	}
	_ = w.WriteMsg(m)
}
