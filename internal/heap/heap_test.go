package heap

import (
	"runtime/debug"
	"testing"
)

func percent() int {
	now := debug.SetGCPercent(-1)
	debug.SetGCPercent(now)
	return now
}

func TestTheHeapGrowsFreelyUntilTheStartIsOver(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(100))
	usual := GrowFreely()
	if got := percent(); got != 400 {
		t.Errorf("while starting, %d", got)
	}
	usual()
	if got := percent(); got != 100 {
		t.Errorf("after the start, %d", got)
	}
}

func TestGOGCDecides(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(50))
	usual := GrowFreely()
	if got := percent(); got != 50 {
		t.Errorf("while starting, %d", got)
	}
	usual()
	if got := percent(); got != 50 {
		t.Errorf("after the start, %d", got)
	}
}
