package lastgood

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"minato/internal/dns"
	"minato/internal/model"
)

// settings is a corefile.Applier as far as a Keeper sees it. Its Corefile is the word "noendpoints", or any other.
type settings struct {
	config *model.DNSConfig
	table  *dns.Table
}

func (s *settings) InForce() *model.DNSConfig { return s.config }

func (s *settings) Restore(c *model.DNSConfig) {
	s.config = c
	s.table.SetOptions(dns.Options{NoEndpoints: c.Corefile == "noendpoints"})
}

// process is the DNS of one process of a node.
type process struct {
	*Keeper
	table    *dns.Table
	settings settings
	log      bytes.Buffer
}

func start(t testing.TB, file string) *process {
	t.Helper()
	table, err := dns.NewTable(dns.Zone{Domain: "cluster.local"})
	if err != nil {
		t.Fatal(err)
	}
	p := &process{table: table, settings: settings{table: table}}
	p.Keeper = New(Config{File: file, Table: table, Corefile: &p.settings, Log: slog.New(slog.NewTextHandler(&p.log, nil)), Rest: time.Millisecond, Least: time.Millisecond})
	return p
}

func (p *process) publish(t *testing.T, services ...string) {
	t.Helper()
	p.show(t, model.Empty().With(func(e *model.Edit) {
		for _, name := range services {
			e.SetService(&model.Service{Name: model.ServiceName{Namespace: "default", Name: name}, ClusterIPs: []netip.Addr{netip.MustParseAddr("10.96.0.1")},
				Ports: []model.Port{{Protocol: model.TCP, Port: 80}}})
		}
		e.SetComplete()
	}))
}

func (p *process) show(t testing.TB, s *model.Snapshot) {
	t.Helper()
	for _, publish := range []func(context.Context, *model.Snapshot, func(model.ServiceName) bool) error{p.table.Publish, p.Keeper.Publish} {
		if err := publish(t.Context(), s, nil); err != nil {
			t.Fatal(err)
		}
	}
}

func (p *process) knows(name string) bool {
	return len(p.table.View().Resolve(name+".default.svc.cluster.local").Addrs) > 0
}

func TestTheNextProcessKnowsTheNamesAndTheCorefileOfTheLast(t *testing.T) {
	file := filepath.Join(t.TempDir(), "dns")
	first := start(t, file)
	if first.Restore() || first.log.Len() > 0 {
		t.Errorf("without a file something was restored, or told of: %s", &first.log)
	}
	ended, written := make(chan error), context.Background()
	ctx, cancel := context.WithCancel(written)
	go func() { ended <- first.Run(ctx) }()
	first.publish(t, "web")
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(time.Millisecond) { // while it runs: it may be killed any time
		if p := start(t, file); p.Restore() && p.knows("web") {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the file was not written")
		}
	}
	first.publish(t, "web", "last")
	first.settings.config = &model.DNSConfig{Corefile: ". {\n}\n", Custom: map[string]string{"a": "b"}}
	cancel()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	second := start(t, file)
	if !second.Restore() || !second.knows("web") || !second.knows("last") || second.knows("other") {
		t.Errorf("the second process knows %v", second.table.View().Records())
	}
	if !second.settings.config.Equal(first.settings.config) {
		t.Errorf("Corefile %+v, want %+v", second.settings.config, first.settings.config)
	}
}

func TestADamagedFileIsToldOfAndIgnored(t *testing.T) {
	dir := t.TempDir()
	good := filepath.Join(dir, "good")
	p := start(t, good)
	p.publish(t, "web")
	p.write()
	whole := read(t, good)
	damaged := map[string][]byte{
		"empty": {}, "cut": whole[:len(whole)-1], "other": []byte("something else, of more bytes than a header has"),
		"of the version before": []byte("minatoD1" + string(whole[len(magic):])),
	}
	for i := range whole {
		b := slices.Clone(whole)
		b[i] ^= 1 << (i % 8)
		damaged[fmt.Sprintf("a bit of byte %d", i)] = b
	}
	for name, b := range damaged {
		p := start(t, filepath.Join(dir, "damaged"))
		fill(t, p.cfg.File, b)
		if p.Restore() || p.knows("web") || !strings.Contains(p.log.String(), "level=WARN") {
			t.Errorf("%s: restored, or not told of: %s", name, &p.log)
		}
		if r := p.table.View().Resolve("web.default.svc.cluster.local"); r.Exists {
			t.Errorf("%s: %+v", name, r)
		}
	}
}

// A file of three frames is cut anywhere, or loses a bit of any byte: what was written before that place counts.
func TestWhatIsTornOrDamagedAndWhatFollowsItIsLost(t *testing.T) {
	dir := t.TempDir()
	p := start(t, filepath.Join(dir, "good"))
	p.publish(t, "web")
	var ends []int
	var states [][]dns.Record
	for _, services := range [][]string{{"web"}, {"web", "other"}, {"other"}} {
		p.publish(t, services...)
		p.write()
		ends, states = append(ends, len(read(t, p.cfg.File))), append(states, p.table.View().Records())
	}
	whole := read(t, p.cfg.File)
	check := func(what string, b []byte, good int, told bool) {
		again := start(t, filepath.Join(dir, "damaged"))
		fill(t, again.cfg.File, b)
		if again.Restore() != (good > 0) {
			t.Fatalf("%s: want %d frames; %s", what, good, &again.log)
		}
		if good > 0 && !slices.Equal(again.table.View().Records(), states[good-1]) {
			t.Errorf("%s: want the names after %d frames, got %v", what, good, again.table.View().Records())
		}
		if strings.Contains(again.log.String(), "level=WARN") != told {
			t.Errorf("%s: told of: %t; %s", what, !told, &again.log)
		}
	}
	for at := range whole {
		good := 0
		for good < len(ends) && ends[good] <= at {
			good++
		}
		check(fmt.Sprintf("cut at %d of %v", at, ends), whole[:at], good, good == 0 || at > ends[good-1])
		b := slices.Clone(whole)
		b[at] ^= 1 << (at % 8)
		check(fmt.Sprintf("a bit of byte %d of %v", at, ends), b, good, true)
	}
	check("whole", whole, len(ends), false)
	check("longer", append(whole, make([]byte, 100)...), len(ends), true)
}

func read(t *testing.T, file string) []byte {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func fill(t *testing.T, file string, b []byte) {
	t.Helper()
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestNothingIsWrittenThatIsThereAlready(t *testing.T) {
	file := filepath.Join(t.TempDir(), "dns")
	p := start(t, file)
	if p.write() {
		t.Error("a table that is not complete was written")
	}
	p.publish(t, "web")
	if !p.write() || p.write() {
		t.Error("want one writing")
	}
	p.publish(t, "web", "more")
	if !p.write() {
		t.Error("what is new was not written")
	}
	p.settings.config = &model.DNSConfig{Corefile: "x"}
	if !p.write() {
		t.Error("the new Corefile was not written")
	}
	p.publish(t, "web", "more")
	if before := p.written.table; p.write() || p.written.table == before {
		t.Error("Services with the same records are written, or compared each time")
	}
}

func TestAFileThatCannotBeReplacedIsToldOfOnceAndLeavesTheOldOne(t *testing.T) {
	file := filepath.Join(t.TempDir(), "dns")
	first := start(t, file)
	first.publish(t, "web")
	first.write()
	inTheWay := filepath.Join(file+".new", "in the way")
	if err := os.MkdirAll(inTheWay, 0o700); err != nil {
		t.Fatal(err)
	}
	p := start(t, file)
	for _, name := range []string{"a", "b", "c"} {
		p.publish(t, "web", name)
		p.write()
	}
	if n := strings.Count(p.log.String(), "level=WARN"); n != 1 {
		t.Errorf("told of %d times:\n%s", n, &p.log)
	}
	if again := start(t, file); !again.Restore() || !again.knows("web") {
		t.Error("the old file is gone")
	}
	if err := os.Remove(inTheWay); err != nil {
		t.Fatal(err)
	}
	p.publish(t, "d")
	p.write()
	if again := start(t, file); !again.Restore() || !again.knows("d") || again.knows("web") {
		t.Error("nothing is written after the error is gone")
	}
}

// What could be written of a frame before the disk was full stands at the end of the file, until there is a new one.
func TestAfterAFrameThatCouldNotBeAppendedTheFileIsWrittenAnew(t *testing.T) {
	p := start(t, filepath.Join(t.TempDir(), "dns"))
	p.publish(t, "web")
	p.write()
	if _, err := p.file.file.WriteString("torn"); err != nil {
		t.Fatal(err)
	}
	if err := p.file.file.Close(); err != nil {
		t.Fatal(err)
	}
	p.publish(t, "web", "more")
	if p.write(); strings.Count(p.log.String(), "level=WARN") != 1 {
		t.Errorf("want to be told: %s", &p.log)
	}
	if again := start(t, p.cfg.File); !again.Restore() || !again.knows("web") || again.knows("more") {
		t.Error("what was written before is gone")
	}
	if !p.write() || p.write() {
		t.Error("want one more writing")
	}
	if again := start(t, p.cfg.File); !again.Restore() || !again.knows("more") || strings.Contains(again.log.String(), "level=WARN") {
		t.Errorf("it was not written anew: %s", &again.log)
	}
}

// A process that gives way to another, and one whose folder was emptied, do not append to a file that has no name.
func TestAFileThatIsNoLongerInItsPlaceIsWrittenAnew(t *testing.T) {
	file := filepath.Join(t.TempDir(), "dns")
	first, second := start(t, file), start(t, file)
	for i, p := range []*process{first, second, first, first, second} {
		name := fmt.Sprint("web", i)
		p.publish(t, name)
		p.write()
		if again := start(t, file); !again.Restore() || !again.knows(name) {
			t.Errorf("%s was not written", name)
		}
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	second.publish(t, "last")
	second.write()
	if again := start(t, file); !again.Restore() || !again.knows("last") {
		t.Error("the file that was removed was not made anew")
	}
}
