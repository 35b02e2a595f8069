//go:build linux

package walkthrough

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"minato/test/world"
)

// TestFamilies does the steps of articles A, B, D and E that name no IPv4 address, on their examples, in instances of
// IPv6 and of both families. In the latter every Service is first as its file says and then asks for both.
func TestFamilies(t *testing.T) {
	for _, tt := range []struct {
		family string
		addrs  int // of each pod
		nodes  []string
	}{
		{"ipv6", 1, []string{"fd00:172:30::11", "fd00:172:30::12"}},
		{"dual", 2, []string{"172.30.0.11", "fd00:172:30::11", "172.30.0.12", "fd00:172:30::12"}},
	} {
		t.Run(tt.family, func(t *testing.T) {
			w := world.Start(t, world.Config{
				Up: []string{"--ip-family", tt.family, "--nodes", "2"}, Images: []string{"nginx", "thr3a/debugger"},
			})
			f := families{w: w, addrs: tt.addrs, nodes: tt.nodes}
			f.apply(t)
			t.Run("A1_PodsHaveAnAddressOfEachFamily", f.podAddresses)
			t.Run("A4_NamesGiveAddressesOfEachFamily", f.names)
			t.Run("A4_EveryPodIsReachedAtEveryClusterIP", f.clusterIPs)
			t.Run("A5_EveryNodeAnswersAtTheNodePort", f.nodePort)
			t.Run("A6_HeadlessNamesPods", f.headless)
			t.Run("B2_PodsReachEachOther", f.reach)
			t.Run("B4_ReverseNames", f.reverse)
			t.Run("C3_PolicyLocalKeepsTheClientsAddress", f.local)
			t.Run("D3_LoadBalancersAreReachedFromTheLAN", f.loadBalancer)
			t.Run("D7_IngressIsServedAtAddressesOfEachFamily", f.ingress)
		})
	}
}

// families are the steps; pods is set by apply.
type families struct {
	w     *world.World
	addrs int
	nodes []string
	pods  []pod
}

func (f *families) apply(t *testing.T) {
	for _, file := range []string{"deploy", "svc", "svc-np", "svc-headless"} {
		path, err := filepath.Abs("../../examples/000-service-kinds/" + file + ".yaml")
		if err != nil {
			t.Fatal(err)
		}
		f.w.Kubectl(t, "apply", "-f", path)
	}
	f.w.Kubectl(t, "expose", "deployment", "nginx", "--name=nginx-lb", "--type=LoadBalancer", "--port=80")
	f.w.Kubectl(t, "create", "deployment", "debugger", "--image=thr3a/debugger", "--", "sleep", "infinity")
	f.pods = readyPods(t, f.w, "default", "app=nginx", 3)
	readyPods(t, f.w, "default", "app=debugger", 1)
	sayWho(t, f.w, "default", "nginx", f.pods)
	if f.addrs == 1 {
		return
	}
	for _, svc := range []string{"nginx", "nginx-np", "nginx-headless", "nginx-lb"} {
		if got := f.list(t, "service", svc, ".spec.ipFamilies[*]"); !slices.Equal(got, []string{"IPv4"}) {
			t.Errorf("%s has the families %v before it asks for both", svc, got)
		}
		f.w.Kubectl(t, "patch", "service", svc, "-p", `{"spec":{"ipFamilyPolicy":"RequireDualStack"}}`)
	}
}

// list reads a list of words from an object.
func (f *families) list(t *testing.T, kind, name, path string) []string {
	t.Helper()
	return strings.Fields(f.w.Kubectl(t, "get", kind, name, "-o", "jsonpath={"+path+"}"))
}

// inPod asks in the pod from which the articles look around.
func (f *families) inPod(argv ...string) world.Result {
	return f.w.Shell("/", "kubectl exec deploy/debugger -- "+strings.Join(argv, " "))
}

func (f *families) fromPod(address string, flags ...string) func() world.Result {
	return func() world.Result {
		return f.inPod(append([]string{"curl", "-gsm", "3", "http://" + address + "/who"}, flags...)...)
	}
}

// addresses are those of an object, one of each family.
func (f *families) addresses(t *testing.T, kind, name, path string) (all []netip.Addr) {
	t.Helper()
	world.Eventually(t, netTime, func() error {
		all = nil
		for _, text := range f.list(t, kind, name, path) {
			a, err := netip.ParseAddr(text)
			if err != nil {
				return err
			}
			all = append(all, a)
		}
		if len(all) != f.addrs || f.addrs == 2 && all[0].Is6() == all[1].Is6() || f.addrs == 1 && !all[0].Is6() {
			return fmt.Errorf("%s %s has the addresses %v", kind, name, all)
		}
		return nil
	})
	return all
}

func (f *families) podAddresses(t *testing.T) {
	for _, p := range f.pods {
		f.addresses(t, "pod", p.Name, ".status.podIPs[*].ip")
		f.addresses(t, "pod", p.Name, ".status.hostIPs[*].ip")
		hosts := f.w.Kubectl(t, "exec", p.Name, "--", "cat", "/etc/hosts")
		if n := strings.Count(hosts, "\t"+p.Name+"\n"); n != f.addrs {
			t.Errorf("/etc/hosts of %s has it %d times:\n%s", p.Name, n, hosts)
		}
	}
}

// dug are the addresses that a name has.
func (f *families) dug(t *testing.T, name string) (texts []string) {
	t.Helper()
	for _, kind := range []string{"A", "AAAA"} {
		r := f.inPod("dig", "+short", "+search", name, kind)
		if r.Err != nil {
			t.Errorf("dig %s %s: %v\n%s", name, kind, r.Err, r.Output())
		}
		texts = append(texts, strings.Fields(r.Stdout)...)
	}
	slices.Sort(texts)
	return texts
}

func (f *families) wantNames(t *testing.T, name string, want []netip.Addr) {
	t.Helper()
	var texts []string
	for _, a := range want {
		texts = append(texts, a.String())
	}
	slices.Sort(texts)
	world.Eventually(t, netTime, func() error {
		if diff := cmp.Diff(texts, f.dug(t, name)); diff != "" {
			return fmt.Errorf("addresses of %s (-want +got):\n%s", name, diff)
		}
		return nil
	})
}

func (f *families) names(t *testing.T) {
	f.wantNames(t, "nginx", f.addresses(t, "service", "nginx", ".spec.clusterIPs[*]"))
	f.wantNames(t, "nginx-np.default.svc.cluster.local", f.addresses(t, "service", "nginx-np", ".spec.clusterIPs[*]"))
}

func (f *families) clusterIPs(t *testing.T) {
	for _, a := range f.addresses(t, "service", "nginx", ".spec.clusterIPs[*]") {
		address := netip.AddrPortFrom(a, 80).String()
		wantAll(t, f.pods, f.fromPod(address))
		wantAll(t, f.pods, func() world.Result { return f.w.OnNode("node1", "curl", "-gsm", "3", "http://"+address+"/who") })
		wantAll(t, f.pods, f.fromPod("nginx", map[bool]string{false: "-4", true: "-6"}[a.Is6()]))
	}
}

func (f *families) nodePort(t *testing.T) {
	port := f.w.Kubectl(t, "get", "service", "nginx-np", "-o", "jsonpath={.spec.ports[0].nodePort}")
	f.addresses(t, "service", "nginx-np", ".spec.clusterIPs[*]")
	for _, node := range f.nodes {
		at := netip.MustParseAddr(node)
		address := strings.TrimSuffix(netip.AddrPortFrom(at, 0).String(), "0") + port
		wantAll(t, f.pods, func() world.Result { return f.w.OnLAN("curl", "-gsm", "3", "http://"+address+"/who") })
	}
}

func (f *families) headless(t *testing.T) {
	var all []netip.Addr
	for _, p := range f.pods {
		all = append(all, f.addresses(t, "pod", p.Name, ".status.podIPs[*].ip")...)
	}
	f.wantNames(t, "nginx-headless", all)
}

func (f *families) reach(t *testing.T) {
	for _, p := range f.pods {
		for _, a := range f.addresses(t, "pod", p.Name, ".status.podIPs[*].ip") {
			wantAll(t, []pod{p}, f.fromPod(netip.AddrPortFrom(a, 80).String()))
		}
	}
}

func (f *families) reverse(t *testing.T) {
	for _, a := range f.addresses(t, "service", "nginx", ".spec.clusterIPs[*]") {
		if r := f.inPod("dig", "+short", "-x", a.String()); strings.TrimSpace(r.Stdout) != "nginx.default.svc.cluster.local." {
			t.Errorf("the name of %s is %q (%v)", a, r.Stdout, r.Err)
		}
	}
}

func (f *families) loadBalancer(t *testing.T) {
	for _, a := range f.addresses(t, "service", "nginx-lb", ".status.loadBalancer.ingress[*].ip") {
		address := netip.AddrPortFrom(a, 80).String()
		wantAll(t, f.pods, func() world.Result { return f.w.OnLAN("curl", "-gsm", "3", "http://"+address+"/who") })
		r := f.w.Verb("explain", address, "--from", "lan")
		wantText(t, r.Output(), "default/nginx-lb, its LoadBalancer", "delivered")
	}
}

func (f *families) local(t *testing.T) {
	f.w.Kubectl(t, "patch", "service", "nginx-lb", "-p", `{"spec":{"externalTrafficPolicy":"Local"}}`)
	for _, a := range f.addresses(t, "service", "nginx-lb", ".status.loadBalancer.ingress[*].ip") {
		host := "172.30.0.1"
		if a.Is6() {
			host = "fd00:172:30::1"
		}
		world.Eventually(t, netTime, func() error {
			if r := f.w.OnLAN("curl", "-gsm", "3", "http://"+netip.AddrPortFrom(a, 80).String()); r.Err != nil {
				return fmt.Errorf("%s: %w", r.Output(), r.Err)
			}
			for _, p := range f.pods {
				if strings.Contains(f.w.Kubectl(t, "logs", p.Name), host+" - - ") {
					return nil
				}
			}
			return fmt.Errorf("no pod has logged the client %s", host)
		})
	}
	f.w.Kubectl(t, "patch", "service", "nginx-lb", "-p", `{"spec":{"externalTrafficPolicy":"Cluster"}}`)
}

// ingress asks at the addresses of the Ingress, and at those of the nodes.
func (f *families) ingress(t *testing.T) {
	e := ways{w: f.w}
	e.applyExample(t, "ingress-apps.yaml")
	e.applyExample(t, "ingress.yaml")
	shop, blog := readyPods(t, f.w, "default", "app=shop", 2), readyPods(t, f.w, "default", "app=blog", 1)
	at := slices.Clone(f.nodes)
	for _, a := range f.addresses(t, "ingress", "site", ".status.loadBalancer.ingress[*].ip") {
		at = append(at, a.String())
	}
	explained := f.w.Verb("explain", "http://shop.example.com/blog/", "--from", "lan")
	wantText(t, explained.Output(), "delivered", "prefix /blog -> default/blog:8080")
	certs := certificate(t, "shop.example.com")
	f.w.Kubectl(t, "create", "secret", "tls", "shop-tls", "--cert="+certs+"/tls.crt", "--key="+certs+"/tls.key")
	t.Cleanup(func() { f.w.Kubectl(t, "delete", "secret", "shop-tls") })
	for _, a := range at {
		e.wantSite(t, world.InURL(a), "http://shop.example.com/", "shop", shop)
		e.wantSite(t, world.InURL(a), "http://shop.example.com/blog/", "blog", blog)
		e.wantAnswer(t, world.InURL(a), "http://other.example.com/", "404 ")
	}
	e.applyExample(t, "ingress-tls.yaml")
	for _, a := range at {
		e.wantSite(t, world.InURL(a), "https://shop.example.com/", "shop", shop, "--cacert", certs+"/tls.crt")
		e.wantAnswer(t, world.InURL(a), "http://shop.example.com/cart/", "308 https://shop.example.com/cart/")
	}
}
