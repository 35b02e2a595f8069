//go:build linux

package walkthrough

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"testing"

	"minato/internal/netns/netnstest"
	"minato/test/world"
)

const (
	applyL2 = "kubectl apply -f l2-config.yaml"
	applyLB = "kubectl apply -f sample-lb.yaml"
)

// defaultPool are the addresses of a LoadBalancer Service where nothing is configured.
func (e ways) defaultPool(t *testing.T) {
	all := e.sample(t)
	e.w.Kubectl(t, "expose", "deployment", "sample-deployment", "--name=unconfigured", "--type=LoadBalancer", "--port=8080", "--target-port=80")
	t.Cleanup(func() { e.w.Kubectl(t, "delete", "service", "unconfigured") })
	var addr netip.Addr
	world.Eventually(t, netTime, func() (err error) {
		addr, err = netip.ParseAddr(e.w.Kubectl(t, "get", "service", "unconfigured", "-o", "jsonpath={.status.loadBalancer.ingress[0].ip}"))
		return err
	})
	if first, last := netip.MustParseAddr("192.168.3.200"), netip.MustParseAddr("192.168.3.250"); addr.Less(first) || last.Less(addr) {
		t.Errorf("the address is %s, want one of %s-%s", addr, first, last)
	}
	wantAll(t, all, e.onLAN(addr.String()+":8080"))
}

// balanced is the Service of the article, with the article's address.
func (e ways) balanced(t *testing.T) []pod {
	t.Helper()
	all := e.sample(t)
	e.s.once(t, e.w, applyL2)
	r := e.w.Shell(e.s.dir, e.s.line(t, applyLB))
	if r.Err != nil {
		t.Fatalf("%s: %v\n%s", applyLB, r.Err, r.Output())
	}
	if strings.HasSuffix(r.Stdout, " created\n") { // kubectl tells of a warning once
		wantText(t, r.Stderr, "Warning: spec.loadBalancerSourceRanges[0]: ", "192.168.3.0/8", "192.0.0.0/8")
	}
	world.Eventually(t, netTime, func() error {
		out := e.s.shell(t, e.w, "kubectl get services")
		row := `(?m)^sample-lb\s+LoadBalancer\s+` + anAddr + `\s+192\.168\.3\.100\s+8080:30082/TCP\s+\S+$`
		if !regexp.MustCompile(row).MatchString(out) {
			return fmt.Errorf("no row of sample-lb with its address:\n%s", out)
		}
		return nil
	})
	return all
}

func (e ways) loadBalancer(t *testing.T) {
	all := e.balanced(t)
	wantAll(t, all, func() world.Result { return e.w.Shell("/", e.s.line(t, "curl -s http://192.168.3.100:8080")) })
	wantAll(t, all, e.onLAN("192.168.3.33:30082"))
	// One node answers for the address, with its own link's.
	link := func(addr string) string {
		return regexp.MustCompile(`lladdr (\S+)`).FindString(e.w.Must(t, "ip", "neigh", "show", addr))
	}
	owner := link("192.168.3.100")
	var nodes []string
	for _, addr := range []string{"192.168.3.32", "192.168.3.33", "192.168.3.34"} {
		e.w.OnLAN("curl", "-s", "-m", "1", "http://"+addr+":1/") // so that it is known
		nodes = append(nodes, link(addr))
	}
	if owner == "" || !slices.Contains(nodes, owner) {
		t.Errorf("192.168.3.100 is at %q, want one of the nodes' links %q", owner, nodes)
	}
	r := e.w.Shell("/", "minato explain 192.168.3.100:8080 --from lan")
	wantText(t, r.Output(), "default/sample-lb, its LoadBalancer", "delivered")
}

// ranges tries a client outside 192.0.0.0/8: the host, by its address on the internet.
func (e ways) ranges(t *testing.T) {
	all := e.balanced(t)
	from := func(address string) func() world.Result {
		return func() world.Result {
			return e.w.OnLAN("curl", "-s", "-m", "2", "--interface", netnstest.HostAddr, "http://"+address)
		}
	}
	wantAll(t, all, from("192.168.3.33:30082")) // there is a way: source ranges do not hold for NodePorts
	const curlTimedOut = 28
	for range 5 {
		if r := from("192.168.3.100:8080")(); r.Code() != curlTimedOut {
			t.Errorf("a client out of range gets %q (%v), want silence", r.Output(), r.Err)
		}
	}
	r := e.w.Verb("explain", "192.168.3.100:8080", "--from", netnstest.HostAddr)
	wantText(t, r.Output(), "dropped: spec.loadBalancerSourceRanges of Service default/sample-lb lets only 192.0.0.0/8 in")
	wantAll(t, all, e.onLAN("192.168.3.100:8080"))
}
