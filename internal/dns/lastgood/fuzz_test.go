package lastgood

import (
	"path/filepath"
	"testing"

	"minato/internal/model"
)

// What a frame holds is damaged before it is sealed, so that the checksum does not find it.
func FuzzRestore(f *testing.F) {
	p := start(f, filepath.Join(f.TempDir(), "names"))
	p.show(f, model.Empty().With(func(e *model.Edit) {
		e.SetService(numbered(1, 2, 0))
		e.SetNamespace("default", true)
		e.SetComplete()
	}))
	now := content{table: p.table.State(), config: &model.DNSConfig{Corefile: "x"}}
	b := now.since(content{})[header:]
	f.Add(b, len(now.table.Append(nil, nil)), []byte("null"), 0)
	f.Fuzz(func(t *testing.T, first []byte, firstTable int, second []byte, secondTable int) {
		file := []byte(magic)
		for _, frame := range []struct {
			b     []byte
			table int
		}{{first, firstTable}, {second, secondTable}} {
			b := append(make([]byte, header), frame.b...)
			seal(b, min(max(frame.table, 0), len(frame.b)))
			file = append(file, b...)
		}
		again := start(t, filepath.Join(t.TempDir(), "names"))
		fill(t, again.cfg.File, file)
		if again.Restore() {
			again.table.View().Records() // what was accepted can be read
		} else if again.table.Revision() > 0 || again.settings.config != nil {
			t.Error("a part was restored")
		}
	})
}
