package images

import (
	"errors"
	"io/fs"
	"net/http"
	"os"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// Mirror serves the store as a read-only OCI registry (OCI distribution-spec, pull), to be the first mirror of
// every registry: containerd names the registry that it means by ?ns=. What the store does not have is 404, and
// containerd then asks that registry. Whoever reaches the listener can read the images; bind it to loopback.
func (s *Store) Mirror() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v2/{$}", func(w http.ResponseWriter, r *http.Request) { w.Write([]byte("{}")) })
	mux.HandleFunc("GET /v2/{path...}", s.serve) // GET patterns match HEAD too
	return mux
}

func (s *Store) serve(w http.ResponseWriter, r *http.Request) {
	path, last, _ := cutLast(r.PathValue("path"))
	repository, kind, ok := cutLast(path)
	registry := r.URL.Query().Get("ns")
	if !ok || registry == "" {
		notFound(w)
		return
	}
	repository = registry + "/" + repository
	switch kind {
	case "manifests":
		s.serveManifest(w, r, repository, last)
	case "blobs":
		h, err := v1.NewHash(last)
		if err != nil {
			notFound(w)
			return
		}
		s.serveBlob(w, r, h, "application/octet-stream")
	default:
		notFound(w)
	}
}

func (s *Store) serveManifest(w http.ResponseWriter, r *http.Request, repository, reference string) {
	var d v1.Descriptor
	var ok bool
	var err error
	if strings.Contains(reference, ":") {
		d, ok, err = s.findDigest(repository, reference)
	} else {
		d, ok, err = s.find(repository + ":" + reference)
	}
	switch {
	case err != nil:
		s.log.Error("registry mirror", "image", repository, "reference", reference, "err", err)
		http.Error(w, err.Error(), http.StatusInternalServerError)
	case !ok:
		notFound(w)
	default:
		s.serveBlob(w, r, d.Digest, d.MediaType)
	}
}

// findDigest looks for a manifest among those of the repository's images.
func (s *Store) findDigest(repository, digest string) (found v1.Descriptor, ok bool, err error) {
	index, err := s.index()
	if err != nil {
		return found, false, err
	}
	for _, entry := range index.Manifests {
		ref := entry.Annotations[refAnnotation]
		if !strings.HasPrefix(ref, repository+":") && !strings.HasPrefix(ref, repository+"@") {
			continue
		}
		err := s.walk(entry, func(d v1.Descriptor) error {
			if d.Digest.String() == digest && (d.MediaType.IsIndex() || d.MediaType.IsImage()) {
				found, ok = d, true
			}
			return nil
		})
		if err != nil {
			return found, false, err
		}
	}
	return found, ok, nil
}

func (s *Store) serveBlob(w http.ResponseWriter, r *http.Request, h v1.Hash, mediaType types.MediaType) {
	if h.Algorithm != "sha256" {
		notFound(w)
		return
	}
	f, err := os.Open(s.blobPath(h))
	if errors.Is(err, fs.ErrNotExist) {
		notFound(w)
		return
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", string(mediaType))
	w.Header().Set("Docker-Content-Digest", h.String())
	w.Header().Set("Etag", `"`+h.String()+`"`)
	http.ServeContent(w, r, "", fi.ModTime(), f)
}

func notFound(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusNotFound)
	w.Write([]byte(`{"errors":[{"code":"NOT_FOUND","message":"not in minato's image store"}]}`))
}

func cutLast(path string) (before, after string, ok bool) {
	i := strings.LastIndexByte(path, '/')
	if i < 0 {
		return "", path, false
	}
	return path[:i], path[i+1:], true
}
