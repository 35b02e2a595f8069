//go:build linux

package netnstest

import (
	"net/netip"
	"os"
	"testing"
)

func TestHostReachesTheInternetAndIsSeenWithItsOutsideAddress(t *testing.T) {
	w := New(t)
	for _, network := range []string{"tcp", "udp"} {
		serve := map[string]func() Server{
			"tcp": func() Server { return ServeTCP(t, w.Internet, "far", FarAddr+":0") },
			"udp": func() Server { return ServeUDP(t, w.Internet, "far", FarAddr+":0") },
		}[network]
		got := MustAsk(t, w.Host, network, serve().Addr.String())
		if want := (Answer{"far", netip.MustParseAddr(HostAddr)}); got != want {
			t.Errorf("%s: got %v, want %v", network, got, want)
		}
	}
}

func TestAskReportsARefusal(t *testing.T) {
	w := New(t)
	if a, err := Ask(w.Host, "tcp", InternetAddr+":9"); err == nil {
		t.Errorf("a port without a server answered %v", a)
	}
}

func TestNamespacesEndWithTheTest(t *testing.T) {
	var path string
	t.Run("inner", func(t *testing.T) { path = Namespace(t, "x").Path() })
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("%s is still there: %v", path, err)
	}
}
