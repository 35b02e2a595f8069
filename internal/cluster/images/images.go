package images

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// refAnnotation holds an entry's full reference (OCI image-spec, annotations.md).
const refAnnotation = "org.opencontainers.image.ref.name"

// Image is one image of the store.
type Image struct {
	Ref     string    // full reference, docker.io/library/nginx:latest
	Digest  string    // of the manifest or index, sha256:...
	Size    int64     // bytes of all its blobs
	Created time.Time // by its configuration; zero where that does not say
}

// Store is a folder of images in OCI layout. It is safe for concurrent use by one process.
type Store struct {
	dir string
	log *slog.Logger
	mu  sync.Mutex // guards index.json
}

// Open opens or makes the store at dir, and removes blobs that no image refers to.
func Open(dir string, log *slog.Logger) (*Store, error) {
	s := &Store{dir: dir, log: log}
	if err := os.MkdirAll(filepath.Join(dir, "blobs", "sha256"), 0o700); err != nil {
		return nil, fmt.Errorf("making the image store: %w", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "oci-layout"), []byte(`{"imageLayoutVersion":"1.0.0"}`), 0o600); err != nil {
		return nil, fmt.Errorf("making the image store: %w", err)
	}
	if err := s.sweep(); err != nil {
		return nil, fmt.Errorf("opening the image store: %w", err)
	}
	return s, nil
}

// FullName is an image reference as containerd writes it: with its registry and its tag or digest.
func FullName(ref string) (string, error) {
	r, err := name.ParseReference(ref, name.WeakValidation)
	if err != nil {
		return "", fmt.Errorf("image name %q: %w", ref, err)
	}
	registry := r.Context().RegistryStr()
	if registry == name.DefaultRegistry {
		registry = "docker.io"
	}
	separator := ":"
	if _, ok := r.(name.Digest); ok {
		separator = "@"
	}
	return registry + "/" + r.Context().RepositoryStr() + separator + r.Identifier(), nil
}

// List is the store's images, sorted by reference.
func (s *Store) List() ([]Image, error) {
	index, err := s.index()
	if err != nil {
		return nil, fmt.Errorf("listing images: %w", err)
	}
	var list []Image
	for _, d := range index.Manifests {
		image, err := s.describe(d)
		if err != nil {
			return nil, fmt.Errorf("listing images: %s: %w", d.Annotations[refAnnotation], err)
		}
		list = append(list, image)
	}
	slices.SortFunc(list, func(a, b Image) int { return cmp.Compare(a.Ref, b.Ref) })
	return list, nil
}

func (s *Store) describe(d v1.Descriptor) (Image, error) {
	image := Image{Ref: d.Annotations[refAnnotation], Digest: d.Digest.String()}
	err := s.walk(d, func(d v1.Descriptor) error {
		image.Size += d.Size
		if !d.MediaType.IsConfig() || !image.Created.IsZero() {
			return nil
		}
		var config struct {
			Created time.Time `json:"created"`
		}
		if err := s.decode(d.Digest, &config); err != nil {
			return err
		}
		image.Created = config.Created
		return nil
	})
	return image, err
}

// walk visits d and, where it is there, all that it refers to. Children whose blob is missing are left out: an
// archive of one platform's image may hold the index of all platforms.
func (s *Store) walk(d v1.Descriptor, visit func(v1.Descriptor) error) error {
	if !s.has(d.Digest) {
		return nil
	}
	if err := visit(d); err != nil {
		return err
	}
	switch {
	case d.MediaType.IsIndex():
		var index v1.IndexManifest
		if err := s.decode(d.Digest, &index); err != nil {
			return err
		}
		return s.walkAll(index.Manifests, visit)
	case d.MediaType.IsImage():
		var manifest v1.Manifest
		if err := s.decode(d.Digest, &manifest); err != nil {
			return err
		}
		return s.walkAll(append(manifest.Layers, manifest.Config), visit)
	}
	return nil
}

func (s *Store) walkAll(ds []v1.Descriptor, visit func(v1.Descriptor) error) error {
	for _, d := range ds {
		if err := s.walk(d, visit); err != nil {
			return err
		}
	}
	return nil
}

// tag makes ref name the manifest or index d.
func (s *Store) tag(ref string, d v1.Descriptor) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	index, err := s.index()
	if err != nil {
		return err
	}
	index.Manifests = slices.DeleteFunc(index.Manifests, func(d v1.Descriptor) bool { return d.Annotations[refAnnotation] == ref })
	d.Annotations = map[string]string{refAnnotation: ref}
	index.Manifests = append(index.Manifests, d)
	data, err := json.Marshal(index)
	if err != nil {
		return err
	}
	return replace(filepath.Join(s.dir, "index.json"), data)
}

func (s *Store) index() (*v1.IndexManifest, error) {
	index := &v1.IndexManifest{SchemaVersion: 2, MediaType: types.OCIImageIndex}
	data, err := os.ReadFile(filepath.Join(s.dir, "index.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return index, nil
	}
	if err != nil {
		return nil, err
	}
	return index, json.Unmarshal(data, index)
}

// sweep removes blobs that no image refers to, and what an interrupted load left.
func (s *Store) sweep() error {
	index, err := s.index()
	if err != nil {
		return err
	}
	keep := make(map[string]bool)
	if err := s.walkAll(index.Manifests, func(d v1.Descriptor) error { keep[d.Digest.Hex] = true; return nil }); err != nil {
		return err
	}
	blobs, err := os.ReadDir(filepath.Join(s.dir, "blobs", "sha256"))
	if err != nil {
		return err
	}
	for _, blob := range blobs {
		if keep[blob.Name()] {
			continue
		}
		if err := os.Remove(filepath.Join(s.dir, "blobs", "sha256", blob.Name())); err != nil {
			return err
		}
	}
	return nil
}

// EnsurePause adds the built-in pause image where it is not there.
func (s *Store) EnsurePause() error {
	if _, ok, err := s.find(PauseImage); err != nil || ok {
		return err
	}
	image, err := pauseImage()
	if err == nil {
		err = s.add(context.Background(), image, PauseImage)
	}
	if err != nil {
		return fmt.Errorf("adding the pause image: %w", err)
	}
	return nil
}

func (s *Store) blobPath(h v1.Hash) string { return filepath.Join(s.dir, "blobs", h.Algorithm, h.Hex) }

func (s *Store) has(h v1.Hash) bool {
	_, err := os.Stat(s.blobPath(h))
	return err == nil
}

func (s *Store) decode(h v1.Hash, into any) error {
	data, err := os.ReadFile(s.blobPath(h))
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, into); err != nil {
		return fmt.Errorf("blob %s: %w", h, err)
	}
	return nil
}

// put stores what r yields, which must have the digest h.
func (s *Store) put(ctx context.Context, h v1.Hash, r io.Reader) error {
	if h.Algorithm != "sha256" || strings.ContainsRune(h.Hex, filepath.Separator) {
		return fmt.Errorf("unsupported digest %s", h)
	}
	if s.has(h) {
		return nil
	}
	f, err := os.CreateTemp(filepath.Dir(s.blobPath(h)), "load-")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	got, _, err := v1.SHA256(io.TeeReader(readerFunc(func(p []byte) (int, error) {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		return r.Read(p)
	}), f))
	if err != nil {
		return err
	}
	if got != h {
		return fmt.Errorf("blob %s: the archive is damaged, its digest is %s", h, got)
	}
	if err := f.Close(); err != nil {
		return err
	}
	return os.Rename(f.Name(), s.blobPath(h))
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

func replace(path string, data []byte) error {
	if err := os.WriteFile(path+".new", data, 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}
