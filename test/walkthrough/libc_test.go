//go:build linux

package walkthrough

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"minato/internal/netns/netnstest"
	"minato/test/world"
)

// resolvers are the C libraries whose resolvers nearly all programs in containers use. They differ: musl asks all servers
// at once, gives up the search at anything but NXDOMAIN, and (before 1.2.4) knows no TCP.
var resolvers = []string{"glibc", "musl"}

func TestProgramsOfBothCLibrariesFindNames(t *testing.T) {
	w := world.Start(t, world.Config{Images: []string{"minato/libc"}, Up: []string{"--nodes", "2"},
		IPv4: "the names of the internet have addresses of IPv4, in whose order the libraries are compared"})
	for _, args := range []string{
		"run asker --image=minato/libc -- sleep infinity", "create namespace shop", "create service clusterip web --tcp=80:80",
		"create service clusterip db -n shop --tcp=80:80", "create service externalname away --external-name=www.example.com",
	} {
		w.Kubectl(t, strings.Fields(args)...)
	}
	few, many := addresses(3), addresses(100)
	manifest := filepath.Join(t.TempDir(), "headless.yaml")
	if err := os.WriteFile(manifest, []byte(headlessOf("few", few)+headlessOf("many", many)), 0o600); err != nil {
		t.Fatal(err)
	}
	w.Kubectl(t, "apply", "-f", manifest)
	w.Kubectl(t, "wait", "--for=condition=Ready", "pod/asker", "--timeout=60s")
	web, db := []string{clusterIP(t, w, "default", "web")}, []string{clusterIP(t, w, "shop", "db")}
	outside := []string{netnstest.FarAddr}
	want := map[string][]string{
		"web": web, "web.default": web, "web.default.svc": web, "web.default.svc.cluster.local": web, "web.default.svc.cluster.local.": web, "WEB": web,
		"db.shop": db, "db.shop.svc.cluster.local": db, "few": few, "few.default": few,
		"www.example.com": outside, "www.example.com.": outside, "example.com": outside, "away": outside,
		"db": nil, "nothere": nil, "nothere.default.svc.cluster.local.": nil, "web.nowhere": nil, "nothere.example.com": nil,
	}
	for _, libc := range resolvers {
		t.Run(libc, func(t *testing.T) {
			world.Eventually(t, netTime, func() error {
				if diff := cmp.Diff(want, lookUp(t, w, libc, want)); diff != "" {
					return fmt.Errorf("addresses (-want +got):\n%s", diff)
				}
				return nil
			})
			got := lookUp(t, w, libc, map[string][]string{"many": nil})["many"]
			for _, addr := range got {
				if !slices.Contains(many, addr) {
					t.Errorf("many has %s", addr)
				}
			}
			// A reply of 512 bytes holds 28 of them; the rest comes over TCP.
			if all := libc == "glibc"; len(got) < 28 || all && len(got) != len(many) {
				t.Errorf("many has %d addresses of %d", len(got), len(many))
			}
		})
	}
}

// lookUp asks for names in the pod, by the resolver of a C library.
func lookUp(t *testing.T, w *world.World, libc string, names map[string][]string) map[string][]string {
	t.Helper()
	argv := []string{"exec", "asker", "--", "sh", "/usr/local/bin/lookup", libc}
	for name := range names {
		argv = append(argv, name)
	}
	got := map[string][]string{}
	for line := range strings.Lines(w.Kubectl(t, argv...)) {
		words := strings.Fields(line)
		name, addrs := words[0], words[1:]
		if len(addrs) == 0 || addrs[0] == "none" {
			got[name] = nil
			continue
		}
		slices.SortFunc(addrs, func(a, b string) int { return compareAddrs(t, a, b) })
		got[name] = slices.Compact(addrs)
	}
	return got
}

func compareAddrs(t *testing.T, a, b string) int {
	t.Helper()
	x, err := netip.ParseAddr(a)
	if err != nil {
		t.Fatal(err)
	}
	y, err := netip.ParseAddr(b)
	if err != nil {
		t.Fatal(err)
	}
	return x.Compare(y)
}

// addresses are n that nobody has.
func addresses(n int) (all []string) {
	a := netip.MustParseAddr("198.51.100.1")
	for range n {
		all, a = append(all, a.String()), a.Next()
	}
	return all
}

// headlessOf is YAML of a headless Service with these endpoints.
func headlessOf(name string, addrs []string) string {
	return fmt.Sprintf(`---
apiVersion: v1
kind: Service
metadata: {name: %[1]s}
spec: {clusterIP: None, ports: [{port: 80}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: %[1]s-1, labels: {kubernetes.io/service-name: %[1]s}}
addressType: IPv4
ports: [{port: 80}]
endpoints: [{addresses: [%[2]s]}]
`, name, strings.Join(addrs, "]}, {addresses: ["))
}
