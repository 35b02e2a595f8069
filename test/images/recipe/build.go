package recipe

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"minato/test/images/deb"
)

// format is part of every cached image's key. Raise it when the packing changes.
const format = 1

// Cache is where packages and images are kept between runs, outside any checkout.
func Cache() (string, error) {
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find a cache folder (set XDG_CACHE_HOME): %w", err)
	}
	return filepath.Join(dir, "minato", "images"), nil
}

// Tars returns the path in the cache folder of each named image as a docker-archive. An image is made when the cache
// lacks it or apt has newer packages. Several processes may use one cache.
func Tars(ctx context.Context, cache string, names ...string) (map[string]string, error) {
	var wanted []recipe
	var roots []string
	for _, n := range names {
		r, err := find(n)
		if err != nil {
			return nil, err
		}
		wanted = append(wanted, r)
		for _, l := range r.Layers {
			roots = append(roots, l.Packages...)
		}
	}
	k, err := openKitchen(ctx, cache, roots)
	if err != nil {
		return nil, err
	}
	files := map[string]string{}
	for _, r := range wanted {
		if files[r.Name], err = k.tar(ctx, r); err != nil {
			return nil, fmt.Errorf("image %s: %w", r.Name, err)
		}
	}
	return files, nil
}

// kitchen is what all images of one call to Tars are made with.
type kitchen struct {
	cache, debs string
	arch        string
	archive     deb.Archive
	layers      map[string]v1.Layer // by name and packages: packing one is most of the work
}

func openKitchen(ctx context.Context, cache string, roots []string) (*kitchen, error) {
	k := &kitchen{cache: cache, debs: filepath.Join(cache, "debs"), layers: map[string]v1.Layer{}}
	if err := os.MkdirAll(k.debs, 0o755); err != nil {
		return nil, fmt.Errorf("make cache folder: %w", err)
	}
	var err error
	if k.arch, err = deb.Arch(ctx); err != nil {
		return nil, err
	}
	k.archive, err = deb.Load(ctx, roots)
	return k, err
}

func (k *kitchen) tar(ctx context.Context, r recipe) (string, error) {
	packages, err := k.resolve(r)
	if err != nil {
		return "", err
	}
	key, err := r.key(packages)
	if err != nil {
		return "", err
	}
	file := filepath.Join(k.cache, key+".tar")
	if _, err := os.Stat(file); err == nil {
		return file, nil
	}
	img, err := k.image(ctx, r, packages)
	if err != nil {
		return "", err
	}
	return file, write(file, r.Name, img)
}

// resolve finds the packages of every layer, without those that a layer below has.
func (k *kitchen) resolve(r recipe) ([][]deb.Package, error) {
	var layers [][]deb.Package
	have := map[string]bool{}
	for _, l := range r.Layers {
		packages, err := k.archive.Resolve(l.Packages, skipped)
		if err != nil {
			return nil, err
		}
		packages = slices.DeleteFunc(packages, func(p deb.Package) bool { return have[p.Name] })
		for _, p := range packages {
			have[p.Name] = true
		}
		layers = append(layers, packages)
	}
	return layers, nil
}

// key changes with whatever the image's bytes depend on.
func (r recipe) key(packages [][]deb.Package) (string, error) {
	own := map[string][]byte{}
	err := fs.WalkDir(ownFiles, ".", func(file string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		own[file], err = ownFiles.ReadFile(file)
		return err
	})
	if err != nil {
		return "", fmt.Errorf("read own files: %w", err)
	}
	all, err := json.Marshal([]any{format, r, packages, own})
	if err != nil {
		return "", fmt.Errorf("describe image: %w", err)
	}
	return fmt.Sprintf("%x", sha256.Sum256(all)), nil
}

func (k *kitchen) image(ctx context.Context, r recipe, packages [][]deb.Package) (v1.Image, error) {
	img := v1.Image(empty.Image)
	for i, l := range r.Layers {
		packed, err := k.layer(ctx, l, packages[i])
		if err != nil {
			return nil, fmt.Errorf("layer %s: %w", l.Name, err)
		}
		if img, err = mutate.AppendLayers(img, packed); err != nil {
			return nil, fmt.Errorf("layer %s: %w", l.Name, err)
		}
	}
	config, err := img.ConfigFile()
	if err != nil {
		return nil, fmt.Errorf("read image configuration: %w", err)
	}
	config = config.DeepCopy()
	config.OS = "linux"
	config.Architecture, config.Variant = platform(k.arch)
	config.Created = v1.Time{Time: time.Unix(0, 0).UTC()}
	config.Config = r.Config
	return mutate.ConfigFile(img, config)
}

func (k *kitchen) layer(ctx context.Context, l layer, packages []deb.Package) (v1.Layer, error) {
	id := fmt.Sprint(l.Name, packages)
	if done, ok := k.layers[id]; ok {
		return done, nil
	}
	if err := deb.Download(ctx, k.debs, packages); err != nil {
		return nil, err
	}
	t := tree{}
	if err := t.fill(ctx, l, k.debs, packages); err != nil {
		return nil, err
	}
	content, err := t.tar()
	if err != nil {
		return nil, err
	}
	open := func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(content)), nil }
	k.layers[id], err = tarball.LayerFromOpener(open, tarball.WithCompressionLevel(gzip.BestSpeed), tarball.WithCompressedCaching)
	return k.layers[id], err
}

// platform says Debian's name of an architecture in the words of images. Most are the same.
func platform(arch string) (architecture, variant string) {
	switch arch {
	case "armhf":
		return "arm", "v7"
	case "i386":
		return "386", ""
	case "ppc64el":
		return "ppc64le", ""
	}
	return arch, ""
}

// write makes the file appear whole or not at all.
func write(file, image string, img v1.Image) error {
	tag, err := name.NewTag(image)
	if err != nil {
		return fmt.Errorf("image name %s: %w", image, err)
	}
	tmp, err := os.CreateTemp(filepath.Dir(file), "image-")
	if err != nil {
		return fmt.Errorf("write image %s: %w", image, err)
	}
	defer os.Remove(tmp.Name()) // fails, as it should, once it has its right name
	if err := tarball.Write(tag, img, tmp); err != nil {
		tmp.Close()
		return fmt.Errorf("write image %s: %w", image, err)
	}
	if err := tmp.Close(); err != nil {
		return fmt.Errorf("write image %s: %w", image, err)
	}
	if err := os.Rename(tmp.Name(), file); err != nil {
		return fmt.Errorf("write image %s: %w", image, err)
	}
	return nil
}
