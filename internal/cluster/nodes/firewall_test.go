//go:build linux

package nodes

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"minato/internal/netns/netnstest"
)

func TestNodesGetThroughAFirewallThatDrops(t *testing.T) {
	drop := [][]string{{"iptables", "-P", "FORWARD", "DROP"}, {"iptables", "-P", "INPUT", "DROP"}}
	for what, more := range map[string][][]string{
		"by policy": nil,
		"by a rule": {{"iptables", "-A", "FORWARD", "-j", "REJECT"}},
		"Docker's": {{"iptables", "-N", "DOCKER-USER"}, {"iptables", "-A", "DOCKER-USER", "-j", "RETURN"},
			{"iptables", "-A", "FORWARD", "-j", "DOCKER-USER"}, {"iptables", "-A", "FORWARD", "-j", "DROP"}},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			w := netnstest.New(t)
			for _, argv := range append(slices.Clone(drop), more...) {
				netnstest.Run(t, w.Host, argv...)
			}
			c := config(t, w, 1)
			n := up(t, c)
			p := attach(t, n, "node1")
			if seen := seenBy(t, w.Internet, netip.MustParseAddr(netnstest.FarAddr), p.NS); seen.String() != netnstest.HostAddr {
				t.Errorf("seen as %s", seen)
			}
			api := netnstest.ServeTCP(t, w.Host, "api", "172.30.0.1:6443")
			netnstest.MustAsk(t, p.NS, "tcp", api.Addr.String())
			other := netnstest.ServeTCP(t, w.Host, "other", "172.30.0.1:22")
			if _, err := netnstest.Ask(p.NS, "tcp", other.Addr.String()); err == nil {
				t.Error("a port that nobody asked for is open")
			}
			n.Close()
			up(t, c) // a second time
			if got := strings.Count(netnstest.Run(t, w.Host, "iptables", "-S"), owner(c.Name)); got != 3 {
				t.Errorf("%d rules of ours, want 3", got)
			}
			if len(n.Notices) > 0 {
				t.Errorf("notices of what is done already: %v", n.Notices)
			}
		})
	}
}

func TestIptablesListsOurRules(t *testing.T) {
	w := netnstest.New(t)
	netnstest.Run(t, w.Host, "iptables", "-P", "FORWARD", "DROP")
	netnstest.Run(t, w.Host, "iptables", "-P", "INPUT", "DROP")
	c := config(t, w, 1)
	up(t, c)
	link, comment := HostLink(c.Name), `-m comment --comment "`+owner(c.Name)+`" -j ACCEPT`
	want := []string{
		"-P INPUT DROP", "-P FORWARD DROP", "-P OUTPUT ACCEPT",
		"-A INPUT -d 172.30.0.1/32 -i " + link + " -p tcp -m tcp --dport 6443 " + comment,
		"-A FORWARD -i " + link + " " + comment,
		"-A FORWARD -o " + link + " -m conntrack --ctstate RELATED,ESTABLISHED " + comment,
	}
	if got := strings.Split(strings.TrimSpace(netnstest.Run(t, w.Host, "iptables", "-S")), "\n"); !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestOurRulesAreFoundAfterIptablesRestore(t *testing.T) {
	w := netnstest.New(t)
	restore := func(saved string) { netnstest.Run(t, w.Host, "sh", "-c", "iptables-restore <<'EOF'\n"+saved+"EOF") }
	netnstest.Run(t, w.Host, "iptables", "-P", "FORWARD", "DROP")
	netnstest.Run(t, w.Host, "iptables", "-P", "INPUT", "DROP")
	restore(netnstest.Run(t, w.Host, "iptables-save"))
	before := netnstest.Dump(t, w.Host)
	c := config(t, w, 1)
	up(t, c).Close()
	restore(netnstest.Run(t, w.Host, "iptables-save"))
	n := up(t, c)
	if got := strings.Count(netnstest.Run(t, w.Host, "iptables", "-S"), owner(c.Name)); got != 3 {
		t.Errorf("%d rules of ours, want 3", got)
	}
	n.Close()
	deleteNow(t, c)
	expectNothing(t, w, c, before)
}

func TestAFirewallThatIsNotOursToChangeIsNamedWithTheCommand(t *testing.T) {
	for table, want := range map[string]string{
		"inet firewalld": "firewall-cmd --zone=trusted --add-interface=LINK",
		"inet mine": "nft insert rule inet mine forward iifname LINK accept; " +
			"nft insert rule inet mine forward oifname LINK ct state established,related accept",
	} {
		t.Run(table, func(t *testing.T) {
			w := netnstest.New(t)
			netnstest.Run(t, w.Host, "nft", "add table "+table+"; add chain "+table+" forward { type filter hook forward priority 0; policy drop; }")
			c := config(t, w, 1)
			n := up(t, c)
			want := strings.ReplaceAll(want, "LINK", HostLink(c.Name))
			if len(n.Notices) != 1 || n.Notices[0].Command != want || n.Notices[0].Problem == "" {
				t.Fatalf("got  %+v\nwant %s", n.Notices, want)
			}
			if !strings.HasPrefix(want, "nft") {
				return
			}
			netnstest.Run(t, w.Host, "sh", "-c", n.Notices[0].Command)
			seenBy(t, w.Internet, netip.MustParseAddr(netnstest.FarAddr), nodeNetns(t, n, "node1"))
		})
	}
}

func TestTheInternetReachesNoNodeThroughAFirewallThatDrops(t *testing.T) {
	w := netnstest.New(t)
	netnstest.Run(t, w.Host, "iptables", "-P", "FORWARD", "DROP")
	n := up(t, config(t, w, 1))
	netnstest.Run(t, w.Internet, "ip", "route", "add", "172.30.0.0/24", "via", netnstest.HostAddr)
	s := netnstest.ServeTCP(t, nodeNetns(t, n, "node1"), "s", "172.30.0.11:0")
	if a, err := netnstest.Ask(w.Internet, "tcp", s.Addr.String()); err == nil {
		t.Errorf("got %v", a)
	}
}
