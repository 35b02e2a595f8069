// Package recipe makes the container images that the walkthroughs use, out of Debian packages: no registry is asked.
//
// An image carries the name of the well-known one and what the walkthroughs need of it, not its version: `nginx:1.12` is
// the nginx of the machine's Debian. The same packages give the same bytes.
//
// It loads images nowhere, and makes them for the machine's own architecture alone.
package recipe

import (
	"fmt"
	"slices"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// recipe says what an image is made of. Images that share a layer share its bytes.
type recipe struct {
	Name   string // as one writes it in a pod, such as nginx:1.12
	Layers []layer
	Config v1.Config
}

// layer is the files of some packages, without those of the layers below, and a few files of our own.
type layer struct {
	Name     string // also the folder below root/ that holds our own files
	Packages []string
	Links    map[string]string // path -> target
	Dirs     map[string]int64  // that no package brings -> Unix mode
	Busybox  string            // path of a busybox, whose applets become links to it
}

// path is what the official images set.
const path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// skipped packages serve maintainer scripts, init systems or the package manager alone, or are compilers: tcc does.
var skipped = []string{
	"adduser", "awk", "base-files", "ca-certificates", "debconf", "debianutils", "dpkg", "init-system-helpers", "iproute2",
	"gcc-aarch64-linux-gnu", "gcc-x86-64-linux-gnu", "krb5-locales", "libldap-common", "lsb-base", "openssl", "passwd", "perl-base", "publicsuffix", "sysvinit-utils", "ucf",
	"usr-is-merged", "usrmerge",
}

// merged are the links and folders of a system whose programs and libraries are all below /usr.
var merged = map[string]string{"bin": "usr/bin", "sbin": "usr/sbin", "lib": "usr/lib", "lib64": "usr/lib64"}

var skeleton = map[string]int64{
	"dev": 0o755, "etc": 0o755, "home": 0o755, "proc": 0o555, "root": 0o700, "run": 0o755, "sys": 0o555, "tmp": 0o1777,
	"usr/bin": 0o755, "usr/sbin": 0o755, "usr/lib": 0o755, "usr/lib64": 0o755, "usr/local/bin": 0o755, "var/log": 0o755, "var/tmp": 0o1777,
}

var (
	base = layer{
		Name:     "base",
		Packages: []string{"bash", "coreutils", "dash", "hostname", "libc6", "ncurses-base"},
		Links:    merged,
		Dirs:     skeleton,
	}
	busybox = layer{
		Name:     "busybox",
		Packages: []string{"busybox-static"},
		Links:    merged,
		Dirs:     skeleton,
		Busybox:  "usr/bin/busybox",
	}
	libc  = layer{Name: "libc", Packages: []string{"libc-bin", "musl", "musl-dev", "tcc"}}
	curl  = layer{Name: "curl", Packages: []string{"curl"}}
	dig   = layer{Name: "dig", Packages: []string{"bind9-dnsutils"}}
	redis = layer{Name: "redis", Packages: []string{"redis-server"}, Dirs: map[string]int64{"data": 0o755}}
	nginx = layer{
		Name:     "nginx",
		Packages: []string{"nginx"},
		Links:    map[string]string{"var/log/nginx/access.log": "/dev/stdout", "var/log/nginx/error.log": "/dev/stderr"},
		Dirs:     map[string]int64{"var/lib/nginx": 0o755, "var/log/nginx": 0o755},
	}
)

// recipes are the images of the five articles, and one of our own: resolvers of C libraries to compare.
func recipes() []recipe {
	web := v1.Config{
		Env:          []string{path},
		Cmd:          []string{"nginx", "-g", "daemon off;"},
		ExposedPorts: map[string]struct{}{"80/tcp": {}},
		StopSignal:   "SIGQUIT",
	}
	store := v1.Config{
		Env:          []string{path},
		Cmd:          []string{"redis-server", "--protected-mode", "no"},
		ExposedPorts: map[string]struct{}{"6379/tcp": {}},
		WorkingDir:   "/data",
	}
	shell := func(program string) v1.Config { return v1.Config{Env: []string{path}, Cmd: []string{program}} }
	return []recipe{
		{"nginx", []layer{base, nginx}, web},
		{"nginx:1.12", []layer{base, nginx}, web},
		{"redis:3.2", []layer{base, curl, redis}, store},
		{"alpine", []layer{busybox}, shell("/bin/sh")},
		{"busybox", []layer{busybox}, shell("sh")},
		{"centos:7", []layer{base, dig}, shell("/bin/bash")},
		{"thr3a/debugger", []layer{base, dig, curl}, shell("/bin/bash")},
		{"minato/libc", []layer{base, libc}, shell("/bin/bash")},
	}
}

// Names are the images that Tars makes.
func Names() []string {
	var names []string
	for _, r := range recipes() {
		names = append(names, r.Name)
	}
	return names
}

func find(name string) (recipe, error) {
	all := recipes()
	i := slices.IndexFunc(all, func(r recipe) bool { return r.Name == name })
	if i < 0 {
		return recipe{}, fmt.Errorf("no image %q: choose from %q", name, Names())
	}
	return all[i], nil
}
