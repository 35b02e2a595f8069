package images

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"time"
)

// PauseImage is the reference of the built-in pause image.
const PauseImage = "minato.local/pause:1"

// Image is one image of the store.
type Image struct {
	Ref     string // full reference, docker.io/library/nginx:latest
	Digest  string // of the manifest or index, sha256:...
	Size    int64  // bytes of all blobs
	Created time.Time
}

// Store is a folder of images in OCI layout. It is safe for concurrent use by one process.
type Store struct{ dir string }

// Open opens or makes the store at dir.
func Open(dir string, log *slog.Logger) (*Store, error) { return nil, errors.ErrUnsupported }

// Load adds the images of an archive: `docker save` or OCI layout, gzipped or not.
func (s *Store) Load(ctx context.Context, path string) ([]Image, error) {
	return nil, errors.ErrUnsupported
}

// List is the store's images, sorted by reference.
func (s *Store) List() ([]Image, error) { return nil, errors.ErrUnsupported }

// EnsurePause adds the built-in pause image where it is not there.
func (s *Store) EnsurePause() error { return errors.ErrUnsupported }

// Mirror serves the store as a read-only OCI registry, to be the first mirror of every registry.
func (s *Store) Mirror() http.Handler { return nil }
