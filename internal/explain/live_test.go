package explain_test

import (
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"minato/internal/dataplane/nftables"
	"minato/internal/explain"
	"minato/internal/model"
)

// Where the kernel is not as planned, packets follow the kernel.
func TestTheVerdictIsThatOfTheKernel(t *testing.T) {
	objects, err := os.ReadFile(filepath.Join("testdata", "world.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	w := world(t, objects)
	q := explain.Query{To: "svc/web", From: "pod/default/client"}
	planned, err := explain.Explain(w, q)
	if err != nil || planned.Verdict != explain.Delivered || planned.Counted != nil {
		t.Fatalf("%+v %v", planned, err)
	}
	var all []netip.AddrPort
	for _, b := range planned.Backends {
		all = append(all, b.Addr)
	}
	for _, c := range []struct {
		name    string
		held    nftables.Held
		verdict explain.Verdict
		says    string
	}{
		{"as planned", nftables.Held{Found: true, Endpoints: all}, explain.Delivered, ""},
		{"no frontend", nftables.Held{}, explain.Dropped, "that of node1 does not have this address"},
		{"refused", nftables.Held{Found: true, Verdict: model.Reject}, explain.Refused, "that of node1 has the verdict reject, planned is forward"},
		{"one backend less", nftables.Held{Found: true, Endpoints: all[1:]}, explain.Delivered, "that of node1 does not have backend " + all[0].String()},
	} {
		w.Held = func(node string, f explain.Frontend, _ netip.Addr) (explain.Held, error) {
			if node != "node1" || f.Addr != planned.Addr {
				t.Errorf("asked %s for %s", node, f.Addr)
			}
			return explain.Held{Held: c.held, Counted: explain.Counted{Forwarded: 12, Dropped: 3}}, nil
		}
		r, err := explain.Explain(w, q)
		if err != nil {
			t.Fatal(err)
		}
		if r.Verdict != c.verdict || (c.says != "") != (len(r.Kernel) > 0) || c.says != "" && !slices.Contains(r.Kernel, c.says) {
			t.Errorf("%s: %s, %q, want %s, %q", c.name, r.Verdict, r.Kernel, c.verdict, c.says)
		}
		var text strings.Builder
		if err := r.WriteText(&text); err != nil {
			t.Fatal(err)
		}
		const counted = "by the kernel of node1, to this port so far: 12 forwarded, 0 refused, 3 dropped"
		if strings.Contains(text.String(), counted) != c.held.Found {
			t.Errorf("%s:\n%s", c.name, &text)
		}
	}
}
