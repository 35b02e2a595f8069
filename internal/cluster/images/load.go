package images

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// ErrNotAnArchive says that a file is neither a `docker save` archive nor a tar of an OCI layout.
var ErrNotAnArchive = errors.New("not an image archive: make one with `docker save NAME:TAG -o FILE.tar`")

// ErrNoName says that an archive's image has no name under which pods could ask for it.
var ErrNoName = errors.New("the archive does not name its image: save it by name, `docker save NAME:TAG`, not by id")

// Load adds the images of an archive, `docker save` or OCI layout, gzipped or not, and returns them. Of an archive
// with a broken image the images before it may have been added.
func (s *Store) Load(ctx context.Context, file string) ([]Image, error) {
	images, err := s.load(ctx, file)
	if err != nil {
		return nil, fmt.Errorf("loading %s: %w", file, err)
	}
	return images, nil
}

func (s *Store) load(ctx context.Context, file string) ([]Image, error) {
	plain, done, err := s.gunzip(ctx, file)
	if err != nil {
		return nil, err
	}
	defer done()
	has, err := members(plain, "manifest.json", "index.json", "oci-layout")
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNotAnArchive, err)
	}
	switch {
	case has["manifest.json"]:
		return s.loadDocker(ctx, plain)
	case has["index.json"] && has["oci-layout"]:
		return s.loadOCI(ctx, plain)
	}
	return nil, ErrNotAnArchive
}

// gunzip returns the path of the plain tar, and what removes it if it is a temporary one.
func (s *Store) gunzip(ctx context.Context, file string) (string, func(), error) {
	f, err := os.Open(file)
	if err != nil {
		return "", nil, err
	}
	defer f.Close()
	r := bufio.NewReader(f)
	if magic, _ := r.Peek(2); !bytes.Equal(magic, []byte{0x1f, 0x8b}) {
		return file, func() {}, nil
	}
	z, err := gzip.NewReader(r)
	if err != nil {
		return "", nil, fmt.Errorf("%w: %w", ErrNotAnArchive, err)
	}
	tmp, err := os.CreateTemp(filepath.Join(s.dir, "blobs", "sha256"), "load-")
	if err != nil {
		return "", nil, err
	}
	defer tmp.Close()
	if _, err := io.Copy(tmp, z); err != nil {
		os.Remove(tmp.Name())
		return "", nil, fmt.Errorf("%w: %w", ErrNotAnArchive, err)
	}
	return tmp.Name(), func() { os.Remove(tmp.Name()) }, nil
}

// members says which of the names are in the tar.
func members(file string, names ...string) (map[string]bool, error) {
	has := make(map[string]bool)
	err := eachEntry(file, func(entry string, _ io.Reader) error {
		for _, n := range names {
			has[n] = has[n] || entry == n
		}
		return nil
	})
	return has, err
}

func eachEntry(file string, visit func(entry string, r io.Reader) error) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	for tr := tar.NewReader(f); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if h.Typeflag != tar.TypeReg {
			continue
		}
		if err := visit(path.Clean(h.Name), tr); err != nil {
			return err
		}
	}
}

func (s *Store) loadDocker(ctx context.Context, file string) ([]Image, error) {
	open := func() (io.ReadCloser, error) { return os.Open(file) }
	manifest, err := tarball.LoadManifest(open)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNotAnArchive, err)
	}
	var loaded []Image
	for _, entry := range manifest {
		if len(entry.RepoTags) == 0 {
			return nil, ErrNoName
		}
		for _, repoTag := range entry.RepoTags {
			tag, err := name.NewTag(repoTag, name.WeakValidation)
			if err != nil {
				return nil, err
			}
			image, err := tarball.Image(open, &tag)
			if err != nil {
				return nil, err
			}
			if err := s.add(ctx, image, repoTag); err != nil {
				return nil, fmt.Errorf("%s: %w", repoTag, err)
			}
			if loaded, err = s.appendLoaded(loaded, repoTag); err != nil {
				return nil, err
			}
		}
	}
	return loaded, nil
}

// add stores an image with its layers uncompressed, and names it.
func (s *Store) add(ctx context.Context, image v1.Image, ref string) error {
	full, err := FullName(ref)
	if err != nil {
		return err
	}
	config, err := image.RawConfigFile()
	if err != nil {
		return err
	}
	layers, err := image.Layers()
	if err != nil {
		return err
	}
	manifest := v1.Manifest{SchemaVersion: 2, MediaType: types.OCIManifestSchema1}
	for _, layer := range layers {
		d, err := s.addLayer(ctx, layer)
		if err != nil {
			return err
		}
		manifest.Layers = append(manifest.Layers, d)
	}
	if manifest.Config, err = s.putBytes(ctx, config, types.OCIConfigJSON); err != nil {
		return err
	}
	raw, err := json.Marshal(manifest)
	if err != nil {
		return err
	}
	d, err := s.putBytes(ctx, raw, types.OCIManifestSchema1)
	if err != nil {
		return err
	}
	return s.tag(full, d)
}

func (s *Store) addLayer(ctx context.Context, layer v1.Layer) (v1.Descriptor, error) {
	id, err := layer.DiffID()
	if err != nil {
		return v1.Descriptor{}, err
	}
	if !s.has(id) {
		r, err := layer.Uncompressed()
		if err != nil {
			return v1.Descriptor{}, err
		}
		defer r.Close()
		if err := s.put(ctx, id, r); err != nil {
			return v1.Descriptor{}, err
		}
	}
	fi, err := os.Stat(s.blobPath(id))
	if err != nil {
		return v1.Descriptor{}, err
	}
	return v1.Descriptor{MediaType: types.OCIUncompressedLayer, Digest: id, Size: fi.Size()}, nil
}

func (s *Store) putBytes(ctx context.Context, data []byte, mediaType types.MediaType) (v1.Descriptor, error) {
	h, n, err := v1.SHA256(bytes.NewReader(data))
	if err != nil {
		return v1.Descriptor{}, err
	}
	return v1.Descriptor{MediaType: mediaType, Digest: h, Size: n}, s.put(ctx, h, bytes.NewReader(data))
}

// loadOCI copies all blobs, verified, and names the entries of the archive's index.
func (s *Store) loadOCI(ctx context.Context, file string) ([]Image, error) {
	var index v1.IndexManifest
	err := eachEntry(file, func(entry string, r io.Reader) error {
		dir, hex := path.Split(entry)
		switch {
		case entry == "index.json":
			return json.NewDecoder(r).Decode(&index)
		case dir == "blobs/sha256/":
			return s.put(ctx, v1.Hash{Algorithm: "sha256", Hex: hex}, r)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	var loaded []Image
	for _, d := range index.Manifests {
		ref := d.Annotations["io.containerd.image.name"]
		if ref == "" {
			ref = d.Annotations[refAnnotation]
		}
		if ref == "" {
			return nil, ErrNoName
		}
		full, err := FullName(ref)
		if err != nil {
			return nil, err
		}
		if err := s.tag(full, d); err != nil {
			return nil, err
		}
		if loaded, err = s.appendLoaded(loaded, full); err != nil {
			return nil, err
		}
	}
	if len(loaded) == 0 {
		return nil, ErrNoName
	}
	return loaded, nil
}

func (s *Store) appendLoaded(loaded []Image, ref string) ([]Image, error) {
	d, ok, err := s.find(ref)
	if err != nil || !ok {
		return nil, errors.Join(err, fmt.Errorf("%s vanished while it was loaded", ref))
	}
	image, err := s.describe(d)
	return append(loaded, image), err
}

// find is the entry of a reference.
func (s *Store) find(ref string) (v1.Descriptor, bool, error) {
	full, err := FullName(ref)
	if err != nil {
		return v1.Descriptor{}, false, err
	}
	index, err := s.index()
	if err != nil {
		return v1.Descriptor{}, false, err
	}
	for _, d := range index.Manifests {
		if d.Annotations[refAnnotation] == full {
			return d, true, nil
		}
	}
	return v1.Descriptor{}, false, nil
}
