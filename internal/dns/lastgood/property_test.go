package lastgood

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"minato/internal/dns"
	"minato/internal/model"
)

// history is one node over several processes. The oracle is the table itself, at the time of the last writing.
type history struct {
	t     *testing.T
	now   *process
	world *model.Snapshot

	names  []dns.Record // that were last written; nil: none
	config *model.DNSConfig
	frames map[bool]int // appended, and written anew
}

func TestWhatIsRestoredIsWhatWasLastWritten(t *testing.T) {
	frames := map[bool]int{}
	rapid.Check(t, func(r *rapid.T) {
		dir, err := os.MkdirTemp(t.TempDir(), "")
		if err != nil {
			t.Fatal(err)
		}
		h := &history{t: t, world: model.Empty().With((*model.Edit).SetComplete), frames: frames}
		h.start(filepath.Join(dir, "names"))
		defer func() { h.now.file.close() }()
		r.Repeat(map[string]func(*rapid.T){
			"":         h.check,
			"edit":     h.edit,
			"Corefile": h.corefile,
			"write":    h.write,
			"crash":    h.crash,
			"remove":   h.remove,
		})
	})
	if frames[true] == 0 || frames[false] == 0 {
		t.Errorf("nothing was appended, or nothing written anew: %v", frames)
	}
}

func (h *history) start(file string) {
	h.now = start(h.t, file)
	h.now.file.floor = 500 // bytes: a few changes
}

func (h *history) check(r *rapid.T) {
	again := start(h.t, h.now.cfg.File)
	if again.Restore() != (h.names != nil) {
		r.Fatalf("restored: %t; %s", h.names == nil, &again.log)
	}
	if h.names == nil {
		return
	}
	if got := again.table.View().Records(); !slices.Equal(got, h.names) {
		r.Fatalf("restored %v\nwant %v", got, h.names)
	}
	if got := again.settings.config; !got.Equal(h.config) {
		r.Fatalf("Corefile %+v, want %+v", got, h.config)
	}
}

// edit changes a few things. Some Services cannot be programmed, and some changes come only as far as Withdraw.
func (h *history) edit(r *rapid.T) {
	h.world = h.world.With(func(e *model.Edit) {
		for range rapid.IntRange(1, 3).Draw(r, "changes") {
			i := rapid.IntRange(0, 7).Draw(r, "service")
			s := numbered(i, rapid.IntRange(0, 3).Draw(r, "endpoints"), rapid.IntRange(0, 2).Draw(r, "generation"))
			s.Headless = i%2 == 0
			switch rapid.IntRange(0, 4).Draw(r, "change") {
			case 0:
				e.DeleteService(s.Name)
			case 1:
				e.SetNamespace([]string{"default", "other"}[i%2], rapid.Bool().Draw(r, "exists"))
			default:
				e.SetService(s)
			}
		}
	})
	held := numbered(rapid.IntRange(0, 20).Draw(r, "held"), 0, 0).Name
	h.publish(rapid.IntRange(0, 4).Draw(r, "only withdrawn") > 0, held)
}

func (h *history) publish(whole bool, held model.ServiceName) {
	err := h.now.table.Withdraw(context.Background(), h.world)
	if err == nil && whole {
		err = h.now.table.Publish(context.Background(), h.world, func(n model.ServiceName) bool { return n == held })
	}
	if err != nil {
		h.t.Fatal(err)
	}
}

func (h *history) corefile(r *rapid.T) {
	h.now.settings.Restore(&model.DNSConfig{Corefile: rapid.SampledFrom([]string{"", "x", "noendpoints"}).Draw(r, "Corefile")})
}

func (h *history) write(r *rapid.T) {
	before := h.now.file.info
	names := h.now.table.View().Records()
	if h.now.write() {
		h.frames[h.now.file.info == before]++
		h.names, h.config = names, h.now.settings.config
	} else if h.names != nil && h.now.table.State() != nil && !slices.Equal(h.names, names) {
		r.Fatalf("%v was not written, but %v before", names, h.names)
	}
}

// crash starts another process, which reads the API when it has taken up what there is.
func (h *history) crash(r *rapid.T) {
	h.now.file.close()
	h.start(h.now.cfg.File)
	h.now.Restore()
	if rapid.Bool().Draw(r, "read the API") {
		h.publish(true, model.ServiceName{})
	}
}

func (h *history) remove(*rapid.T) {
	if err := ignore(os.Remove(h.now.cfg.File)); err != nil {
		h.t.Fatal(err)
	}
	h.names = nil
}
