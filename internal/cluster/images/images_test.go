package images

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"debug/elf"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/crane"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

func open(t *testing.T) *Store {
	t.Helper()
	s, err := Open(filepath.Join(t.TempDir(), "images"), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func randomImage(t *testing.T) v1.Image {
	t.Helper()
	image, err := random.Image(3000, 2)
	if err != nil {
		t.Fatal(err)
	}
	return image
}

func dockerArchive(t *testing.T, ref string, image v1.Image) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "image.tar")
	tag, err := name.NewTag(ref)
	if err != nil {
		t.Fatal(err)
	}
	if err := tarball.WriteToFile(file, tag, image); err != nil {
		t.Fatal(err)
	}
	return file
}

func ociArchive(t *testing.T, ref string, image v1.Image) string {
	t.Helper()
	dir := t.TempDir()
	path, err := layout.Write(dir, mustIndex(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := path.AppendImage(image, layout.WithAnnotations(map[string]string{refAnnotation: ref})); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "oci.tar")
	f, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	tw := tar.NewWriter(f)
	if err := errors.Join(tw.AddFS(os.DirFS(dir)), tw.Close()); err != nil {
		t.Fatal(err)
	}
	return file
}

func mustIndex(t *testing.T) v1.ImageIndex {
	t.Helper()
	index, err := random.Index(10, 1, 0)
	if err != nil {
		t.Fatal(err)
	}
	return index
}

func gzipped(t *testing.T, file string) string {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var buf bytes.Buffer
	z := gzip.NewWriter(&buf)
	if _, err := z.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file+".gz", buf.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return file + ".gz"
}

// A client that goes to another registry in the mirror's name: what containerd does.
func pull(t *testing.T, mirror http.Handler, ns, ref string) (v1.Image, error) {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/v2/" {
			r.URL.RawQuery = "ns=" + ns
		}
		mirror.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	return crane.Pull(server.Listener.Addr().String()+"/"+ref, crane.Insecure)
}

func TestAnImageIsPulledAsItWasLoaded(t *testing.T) {
	image := randomImage(t)
	for kind, file := range map[string]string{
		"docker save":         dockerArchive(t, "nginx:1.12", image),
		"docker save gzipped": gzipped(t, dockerArchive(t, "nginx:1.12", image)),
		"OCI layout":          ociArchive(t, "docker.io/library/nginx:1.12", image),
		"OCI layout gzipped":  gzipped(t, ociArchive(t, "docker.io/library/nginx:1.12", image)),
	} {
		t.Run(kind, func(t *testing.T) {
			s := open(t)
			loaded, err := s.Load(t.Context(), file)
			if err != nil {
				t.Fatal(err)
			}
			if len(loaded) != 1 || loaded[0].Ref != "docker.io/library/nginx:1.12" || loaded[0].Size < 6000 {
				t.Errorf("loaded %+v", loaded)
			}
			got, err := pull(t, s.Mirror(), "docker.io", "library/nginx:1.12")
			if err != nil {
				t.Fatal(err)
			}
			want, _ := image.ConfigName()
			if name, err := got.ConfigName(); err != nil || name != want {
				t.Errorf("pulled configuration %v (%v), want %v", name, err, want)
			}
			layers, err := got.Layers()
			if err != nil {
				t.Fatal(err)
			}
			for _, layer := range layers {
				r, err := layer.Uncompressed()
				if err != nil {
					t.Fatal(err)
				}
				if _, err := io.Copy(io.Discard, r); err != nil { // verifies the digest
					t.Error(err)
				}
			}
			digest, err := got.Digest()
			if err != nil {
				t.Fatal(err)
			}
			if _, err := pull(t, s.Mirror(), "docker.io", "library/nginx@"+digest.String()); err != nil {
				t.Errorf("pull by digest: %v", err)
			}
		})
	}
}

func TestTheMirrorAnswersNotFoundForWhatItDoesNotHave(t *testing.T) {
	s := open(t)
	if _, err := s.Load(t.Context(), dockerArchive(t, "nginx:1.12", randomImage(t))); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{
		"/v2/library/nginx/manifests/1.13?ns=docker.io",
		"/v2/library/nginx/manifests/1.12?ns=quay.io",
		"/v2/library/nginx/manifests/1.12",
		"/v2/library/other/manifests/sha256:0000000000000000000000000000000000000000000000000000000000000000?ns=docker.io",
		"/v2/library/nginx/blobs/sha256:0000000000000000000000000000000000000000000000000000000000000000?ns=docker.io",
		"/v2/library/nginx/blobs/sha256:..%2f..%2f..%2findex.json?ns=docker.io",
		"/v2/library/nginx/tags/list?ns=docker.io",
	} {
		w := httptest.NewRecorder()
		s.Mirror().ServeHTTP(w, httptest.NewRequest("GET", path, nil))
		if w.Code != http.StatusNotFound {
			t.Errorf("GET %s: %d %s, want 404", path, w.Code, w.Body)
		}
	}
}

func TestLoadSaysWhatIsWrong(t *testing.T) {
	text := filepath.Join(t.TempDir(), "text")
	if err := os.WriteFile(text, []byte("not a tar"), 0o600); err != nil {
		t.Fatal(err)
	}
	unnamed := ociArchive(t, "", randomImage(t))
	for _, c := range []struct {
		file string
		want error
	}{{text, ErrNotAnArchive}, {unnamed, ErrNoName}, {"/nonexistent", os.ErrNotExist}} {
		if _, err := open(t).Load(t.Context(), c.file); !errors.Is(err, c.want) {
			t.Errorf("Load(%s) = %v, want %v", c.file, err, c.want)
		}
	}
}

func TestADamagedBlobIsRefused(t *testing.T) {
	s := open(t)
	h, _, err := v1.SHA256(bytes.NewReader([]byte("right")))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.put(t.Context(), h, bytes.NewReader([]byte("wrong"))); err == nil {
		t.Error("put accepted content of another digest")
	}
	if s.has(h) {
		t.Error("the damaged blob was kept")
	}
}

func TestACancelledLoadLeavesNothing(t *testing.T) {
	s := open(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Load(ctx, dockerArchive(t, "nginx:1", randomImage(t))); !errors.Is(err, context.Canceled) {
		t.Errorf("Load = %v, want cancelled", err)
	}
	if list, err := s.List(); err != nil || len(list) != 0 {
		t.Errorf("List = %v, %v", list, err)
	}
}

func TestLoadingANameAgainReplacesItAndOpenRemovesTheOldBlobs(t *testing.T) {
	s := open(t)
	for range 2 {
		if _, err := s.Load(t.Context(), dockerArchive(t, "nginx:1", randomImage(t))); err != nil {
			t.Fatal(err)
		}
	}
	s, err := Open(s.dir, s.log)
	if err != nil {
		t.Fatal(err)
	}
	list, err := s.List()
	if err != nil || len(list) != 1 {
		t.Fatalf("List = %v, %v; want one image", list, err)
	}
	blobs, err := os.ReadDir(filepath.Join(s.dir, "blobs", "sha256"))
	if err != nil {
		t.Fatal(err)
	}
	if len(blobs) != 4 { // manifest, configuration, two layers
		t.Errorf("%d blobs are left, want 4", len(blobs))
	}
}

func TestFullName(t *testing.T) {
	for ref, want := range map[string]string{
		"nginx":                  "docker.io/library/nginx:latest",
		"redis:3.2":              "docker.io/library/redis:3.2",
		"thr3a/debugger":         "docker.io/thr3a/debugger:latest",
		"docker.io/nginx":        "docker.io/library/nginx:latest",
		"localhost:5000/a/b:c":   "localhost:5000/a/b:c",
		"registry.k8s.io/pause":  "registry.k8s.io/pause:latest",
		"minato.local/pause:1":   PauseImage,
		"centos:7":               "docker.io/library/centos:7",
		"docker.io/library/x:y1": "docker.io/library/x:y1",
	} {
		if got, err := FullName(ref); err != nil || got != want {
			t.Errorf("FullName(%q) = %q, %v; want %q", ref, got, err, want)
		}
	}
}

func TestThePauseImageIsServed(t *testing.T) {
	s := open(t)
	for range 2 {
		if err := s.EnsurePause(); err != nil {
			t.Fatal(err)
		}
	}
	image, err := pull(t, s.Mirror(), "minato.local", "pause:1")
	if err != nil {
		t.Fatal(err)
	}
	config, err := image.ConfigFile()
	if err != nil || config.Architecture != runtime.GOARCH {
		data, _ := json.Marshal(config)
		t.Errorf("configuration %s, %v", data, err)
	}
}

func TestPauseProgramsAreWellFormed(t *testing.T) {
	for arch, machine := range map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64} {
		program, err := pauseProgram(arch)
		if err != nil {
			t.Fatal(err)
		}
		f, err := elf.NewFile(bytes.NewReader(program))
		if err != nil {
			t.Fatal(err)
		}
		if f.Machine != machine || f.Type != elf.ET_EXEC || len(f.Progs) != 1 || f.Progs[0].Filesz != uint64(len(program)) {
			t.Errorf("%s: %+v, segments %+v", arch, f.FileHeader, f.Progs)
		}
	}
}

func TestPauseStopsBySignal(t *testing.T) {
	program, err := pauseProgram(runtime.GOARCH)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "pause")
	if err := os.WriteFile(file, program, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		cmd := exec.Command(file)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() { ended <- cmd.Wait() }()
		select {
		case err := <-ended:
			t.Fatalf("pause ended by itself: %v", err)
		case <-time.After(50 * time.Millisecond):
		}
		cmd.Process.Signal(syscall.SIGCHLD) // must not end it
		cmd.Process.Signal(signal)
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("after %v: %v, want exit code 0", signal, err)
			}
		case <-time.After(5 * time.Second):
			cmd.Process.Kill()
			t.Fatalf("pause did not stop by %v", signal)
		}
	}
}
