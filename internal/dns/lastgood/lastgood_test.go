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

// settings is a corefile.Applier as far as a Keeper sees it.
type settings struct{ config *model.DNSConfig }

func (s *settings) InForce() *model.DNSConfig  { return s.config }
func (s *settings) Restore(c *model.DNSConfig) { s.config = c }

// process is the DNS of one process of a node.
type process struct {
	*Keeper
	table    *dns.Table
	settings settings
	log      bytes.Buffer
}

func start(t *testing.T, file string) *process {
	t.Helper()
	table, err := dns.NewTable(dns.Zone{Domain: "cluster.local"})
	if err != nil {
		t.Fatal(err)
	}
	p := &process{table: table}
	p.Keeper = New(Config{File: file, Table: table, Corefile: &p.settings, Log: slog.New(slog.NewTextHandler(&p.log, nil)), Rest: time.Millisecond, Least: time.Millisecond})
	return p
}

func (p *process) publish(t *testing.T, services ...string) {
	t.Helper()
	s := model.Empty().With(func(e *model.Edit) {
		for _, name := range services {
			e.SetService(&model.Service{Name: model.ServiceName{Namespace: "default", Name: name}, ClusterIPs: []netip.Addr{netip.MustParseAddr("10.96.0.1")},
				Ports: []model.Port{{Protocol: model.TCP, Port: 80}}})
		}
		e.SetComplete()
	})
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
	whole, err := os.ReadFile(good)
	if err != nil {
		t.Fatal(err)
	}
	damaged := map[string][]byte{"empty": {}, "cut": whole[:len(whole)-1], "longer": append(slices.Clone(whole), ' '), "other": []byte("something else, of more bytes than a header has")}
	for i := range whole {
		b := slices.Clone(whole)
		b[i] ^= 1 << (i % 8)
		damaged[fmt.Sprintf("a bit of byte %d", i)] = b
	}
	for name, b := range damaged {
		file := filepath.Join(dir, "damaged")
		if err := os.WriteFile(file, b, 0o600); err != nil {
			t.Fatal(err)
		}
		p := start(t, file)
		if p.Restore() || p.knows("web") || !strings.Contains(p.log.String(), "level=WARN") {
			t.Errorf("%s: restored, or not told of: %s", name, &p.log)
		}
		if r := p.table.View().Resolve("web.default.svc.cluster.local"); r.Exists {
			t.Errorf("%s: %+v", name, r)
		}
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
}

func TestAFileThatCannotBeWrittenIsToldOfOnceAndLeavesTheOldOne(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "dns")
	p := start(t, file)
	p.publish(t, "web")
	p.write()
	if err := os.MkdirAll(filepath.Join(file+".new", "in the way"), 0o700); err != nil {
		t.Fatal(err)
	}
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
}
