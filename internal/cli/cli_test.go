package cli

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"minato/internal/instance"
)

// execute runs a command line and returns what it prints and the error with which it ends.
func execute(args ...string) (string, error) {
	root := newRoot()
	var out bytes.Buffer
	root.SetOut(&out)
	root.SetErr(&out)
	root.SetArgs(args)
	err := root.ExecuteContext(context.Background())
	return out.String(), err
}

func TestUsageErrorsSayWhatToDoAndEndWith2(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("up is refused before its flags are read where it is not root")
	}
	state := t.TempDir()
	for name, tt := range map[string]struct {
		args []string
		want string
	}{
		"unknown flag":         {[]string{"status", "--nmae", "x"}, "--help"},
		"bad name":             {[]string{"status", "--name", "A/B"}, "choose a --name"},
		"bad range":            {[]string{"up", "--node-cidr", "172.30.0.0"}, "give --node-cidr a range"},
		"ranges overlap":       {[]string{"up", "--pod-cidr", "10.96.0.0/16"}, "choose ranges apart"},
		"node without address": {[]string{"up", "--node", "a="}, "NAME=ADDRESS"},
		"node outside":         {[]string{"up", "--node", "a=192.168.1.1"}, "inside --node-cidr"},
		"no DNS server":        {[]string{"up", "--upstream-dns", "dns.example"}, "ADDRESS or ADDRESS:PORT"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := execute(append(tt.args, "--state-dir", state)...)
			var exit *exitError
			if !errors.As(err, &exit) || exit.code != exitUsage || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want usage error with %q", err, tt.want)
			}
		})
	}
}

func TestAWrongWordEndsWith2AndSaysWhatWasMeant(t *testing.T) {
	for line, want := range map[string]string{
		"statsu":                   "did you mean minato status? (see minato --help): there is no verb statsu",
		"statsu -o json":           "did you mean minato status? (see minato --help): there is no verb statsu",
		"qqqqqq":                   "see minato --help: there is no verb qqqqqq",
		"node lst":                 "did you mean minato node list? (see minato node --help): there is no verb lst",
		"node lst --grace 1s":      "did you mean minato node list? (see minato node --help): there is no verb lst",
		"image lod x.tar":          "did you mean minato image load? (see minato image --help): there is no verb lod",
		"status --ouput json":      "did you mean minato status --output? (see minato status --help): there is no flag --ouput",
		"status --nmae x":          "did you mean minato status --name? (see minato status --help): there is no flag --nmae",
		"explain web:80 --form=x":  "did you mean minato explain --from? (see minato explain --help): there is no flag --form",
		"--qqqqqq":                 "see minato --help: there is no flag --qqqqqq",
		"node kill":                "write it as minato node kill NODE [flags] (see minato node kill --help): accepts 1 arg(s), received 0",
		"status -x":                "see minato status --help: unknown shorthand flag: 'x' in -x",
		"status --output=sideways": "give --output one of text, json, yaml: \"sideways\" is none",
		"up --nodes x":             "give --nodes a number: \"x\" is none",
		"node stop n --grace x":    "give --grace a time such as 500ms or 2s: \"x\" is none",
		"show servces":             "did you mean minato show services? (see minato show --help): there is no table servces",
		"get pods":                 "did you mean minato kubectl get? (see minato --help): there is no verb get",
		"help tutrial":             "did you mean minato tutorial? (see minato --help): there is no verb tutrial",
		"tutorial kindz":           "take one of kinds, network, nodeport, expose, names, or its number: there is no lesson kindz",
		"tutorial --yes":           "name a lesson to run with --yes: `minato tutorial` lists them",
	} {
		_, err := execute(strings.Fields(line)...)
		var exit *exitError
		if !errors.As(err, &exit) || exit.code != exitUsage || err.Error() != want {
			t.Errorf("minato %s\n got %v\nwant %s", line, err, want)
		}
	}
}

func TestAVerbThatOnlyHasVerbsListsThem(t *testing.T) {
	for _, line := range []string{"", "node", "image"} {
		out, err := execute(strings.Fields(line)...)
		if err != nil || !strings.Contains(out, "Available Commands:") {
			t.Errorf("minato %s: %v, %q", line, err, out)
		}
	}
}

func TestVerbsOfAnInstanceThatDoesNotRunNameTheStart(t *testing.T) {
	for _, args := range [][]string{{"status"}, {"diff"}, {"show", "services"}, {"explain", "web:80"}, {"node", "list"}, {"image", "list"}} {
		_, err := execute(append(args, "--name", "not-there", "--state-dir", t.TempDir())...)
		if err == nil || !strings.HasPrefix(err.Error(), "start it first (sudo minato up --name not-there)") {
			t.Errorf("minato %s: %v", strings.Join(args, " "), err)
		}
	}
}

// config is what `up` with these arguments asks for, of an instance that has the configuration old, if any.
func config(t *testing.T, old *instance.Config, args ...string) (instance.Config, error) {
	t.Helper()
	dir := t.TempDir()
	inst := instance.Instance{Name: "t", StateDir: filepath.Join(dir, "state"), RunDir: filepath.Join(dir, "run")}
	if err := inst.MakeDirs(); err != nil {
		t.Fatal(err)
	}
	if old != nil {
		if err := inst.Save(*old); err != nil {
			t.Fatal(err)
		}
	}
	f := &upFlags{}
	c := upCommandFlags(f)
	if err := c.ParseFlags(args); err != nil {
		t.Fatal(err)
	}
	return f.config(c, inst)
}

func TestANewInstanceHasTheDefaults(t *testing.T) {
	c, err := config(t, nil)
	if err != nil || len(c.Nodes) != 3 || c.PodCIDRs()[0].String() != "10.244.0.0/16" || c.ClusterDomain != "cluster.local" {
		t.Errorf("%+v, %v", c, err)
	}
}

func TestAnInstanceKeepsWhatIsNotSaid(t *testing.T) {
	first, err := config(t, nil, "--nodes", "1", "--upstream-dns", "192.0.2.53")
	if err != nil {
		t.Fatal(err)
	}
	again, err := config(t, &first)
	if err != nil || len(again.Nodes) != 1 || again.UpstreamDNS[0] != netip.MustParseAddrPort("192.0.2.53:53") {
		t.Errorf("%+v, %v", again, err)
	}
}

func TestWhatCannotChangeIsRefused(t *testing.T) {
	first, err := config(t, nil)
	if err != nil {
		t.Fatal(err)
	}
	_, err = config(t, &first, "--service-cidr", "10.112.0.0/12")
	if err == nil || !strings.Contains(err.Error(), "minato delete --name t") || !strings.Contains(err.Error(), "--service-cidr") {
		t.Errorf("got %v", err)
	}
}

func TestProgressEndsWithReadyOrNot(t *testing.T) {
	for text, ready := range map[string]bool{"network 3ms\nready in 1s\n" + started: true, "network 3ms\n": false} {
		var out bytes.Buffer
		ok, err := copyProgress(&out, io.MultiReader(strings.NewReader(text)))
		if err != nil || ok != ready || out.String() != strings.TrimSuffix(text, started) {
			t.Errorf("%q: ready %t, %v, copied %q", text, ok, err, out.String())
		}
	}
}

func TestTheLastErrorOfALogIsFound(t *testing.T) {
	file := filepath.Join(t.TempDir(), "log")
	log := "time=1 level=INFO msg=x\nminato: free the port: listen tcp: in use\n"
	if err := os.WriteFile(file, []byte(log), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := lastLine(file); got != "free the port: listen tcp: in use" {
		t.Errorf("got %q", got)
	}
}
