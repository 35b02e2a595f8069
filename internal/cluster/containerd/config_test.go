package containerd

import (
	"strings"
	"testing"
)

func TestParseVersion(t *testing.T) {
	for output, want := range map[string]version{
		"containerd github.com/containerd/containerd 1.6.20~ds1 1.6.20~ds1-1+deb12u3": {1, 6},
		"containerd github.com/containerd/containerd 1.7.24 1.7.24~ds1-6":             {1, 7},
		"containerd github.com/containerd/containerd/v2 v2.1.4 75cb2b7193e4e49":       {2, 1},
		"containerd containerd.io 1.7.27 05044ec0a9a75232cad458027ca83437aae3f4da":    {1, 7},
	} {
		if got, err := parseVersion(output); err != nil || got != want {
			t.Errorf("parseVersion(%q) = %v, %v; want %v", output, got, err, want)
		}
	}
	if _, err := parseVersion("nonsense"); err == nil {
		t.Error("nonsense has a version")
	}
}

func TestTheConfigurationFollowsContainerdsVersion(t *testing.T) {
	s := settings{Root: "/r", State: "/s", Socket: "/c.sock", CNIBin: "/bin dir", PauseImage: "pause", Snapshotter: "native", RestrictOOM: true}
	for _, c := range []struct {
		v     version
		wants []string
	}{
		{version{1, 6}, []string{"version = 2", `[plugins."io.containerd.grpc.v1.cri"]`, `sandbox_image = "pause"`, `bin_dir = "/bin dir"`, "restrict_oom_score_adj = true", `snapshotter = "native"`}},
		{version{2, 0}, []string{"version = 3", `[plugins.'io.containerd.cri.v1.runtime']`, `sandbox = "pause"`, `bin_dir = "/bin dir"`, "restrict_oom_score_adj = true"}},
		{version{2, 2}, []string{"version = 3", `bin_dirs = ["/bin dir"]`, `address = "/c.sock.ttrpc"`}},
	} {
		text, err := s.render(c.v)
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range c.wants {
			if !strings.Contains(text, want) {
				t.Errorf("configuration for %v lacks %s:\n%s", c.v, want, text)
			}
		}
	}
}
