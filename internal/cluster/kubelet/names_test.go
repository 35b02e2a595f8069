//go:build linux

package kubelet

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestHostname(t *testing.T) {
	long := strings.Repeat("a", 62) + "-b"
	fqdn := true
	for name, c := range map[string]struct {
		pod               v1.Pod
		host, domain, uts string
	}{
		"the pod's name": {named("web-0", v1.PodSpec{}), "web-0", "", "web-0"},
		"its own":        {named("web-0", v1.PodSpec{Hostname: "h"}), "h", "", "h"},
		"with subdomain": {named("web-0", v1.PodSpec{Hostname: "h", Subdomain: "s"}), "h", "s.ns.svc.cluster.local", "h"},
		"as FQDN":        {named("web-0", v1.PodSpec{Subdomain: "s", SetHostnameAsFQDN: &fqdn}), "web-0", "s.ns.svc.cluster.local", "web-0.s.ns.svc.cluster.local"},
		"too long":       {named(long, v1.PodSpec{}), strings.Repeat("a", 62), "", strings.Repeat("a", 62)},
	} {
		t.Run(name, func(t *testing.T) {
			host, domain := hostname(&c.pod, "cluster.local")
			if uts, err := utsName(&c.pod, host, domain); err != nil || host != c.host || domain != c.domain || uts != c.uts {
				t.Errorf("%q %q %q, want %q %q %q", host, domain, uts, c.host, c.domain, c.uts)
			}
		})
	}
}

func TestAHostnameThatLinuxDoesNotTakeIsRefused(t *testing.T) {
	fqdn := true
	pod := named(strings.Repeat("a", 30), v1.PodSpec{Subdomain: strings.Repeat("s", 30), SetHostnameAsFQDN: &fqdn})
	host, domain := hostname(&pod, "cluster.local")
	if _, err := utsName(&pod, host, domain); err == nil || !strings.Contains(err.Error(), "is too long (64 characters is the max, 82 characters requested)") {
		t.Errorf("error %v", err)
	}
}

func named(name string, spec v1.PodSpec) v1.Pod {
	return v1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name}, Spec: spec}
}

const hostsHead = "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n" +
	"fe00::0\tip6-localnet\nfe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n"

func TestHosts(t *testing.T) {
	aliases := []v1.HostAlias{{IP: "192.0.2.1", Hostnames: []string{"a", "b"}}}
	for _, c := range []struct {
		ips          []string
		host, domain string
		aliases      []v1.HostAlias
		want         string
	}{
		{[]string{"10.0.0.1"}, "h", "", nil, "10.0.0.1\th\n"},
		{[]string{"10.0.0.1", "fd00::1"}, "h", "s.ns.svc.d", nil, "10.0.0.1\th.s.ns.svc.d\th\nfd00::1\th.s.ns.svc.d\th\n"},
		{[]string{"10.0.0.1"}, "h", "", aliases, "10.0.0.1\th\n\n# Entries added by HostAliases.\n192.0.2.1\ta\tb\n"},
	} {
		if got := string(hosts(c.ips, c.host, c.domain, c.aliases)); got != hostsHead+c.want {
			t.Errorf("got:\n%s\nwant:\n%s", got, hostsHead+c.want)
		}
	}
}

func TestHostsOfAHostNetworkPodAreTheHosts(t *testing.T) {
	file := filepath.Join(t.TempDir(), "hosts")
	if err := os.WriteFile(file, []byte("127.0.0.1 me\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	got, err := nodeHosts(file, []v1.HostAlias{{IP: "192.0.2.1", Hostnames: []string{"a"}}})
	if want := "# Kubernetes-managed hosts file (host network).\n127.0.0.1 me\n\n# Entries added by HostAliases.\n192.0.2.1\ta\n"; err != nil || string(got) != want {
		t.Errorf("got %q, %v; want %q", got, err, want)
	}
}
