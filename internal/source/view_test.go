package source

import (
	"testing"
	"testing/synctest"

	"minato/internal/model"
)

// viewed is a complete Builder with a View of it, and a subscription.
func viewed(t *testing.T) (*Builder, *View, <-chan struct{}) {
	t.Helper()
	b := NewBuilder()
	b.Update(func(e *Batch) {
		e.ReplaceServices(nil)
		e.ReplaceSlices(nil)
		e.ReplaceNodes(nil)
		e.ReplaceNamespaces(nil)
	})
	v := NewView(b)
	go v.Run(t.Context())
	changed, cancel := v.Subscribe()
	t.Cleanup(cancel)
	synctest.Wait()
	<-changed
	return b, v, changed
}

func told(changed <-chan struct{}) bool {
	synctest.Wait()
	select {
	case <-changed:
		return true
	default:
		return false
	}
}

func TestAViewFollowsItsBuilder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, v, changed := viewed(t)
		b.Update(func(e *Batch) { e.SetNode(&model.Node{Name: "node1"}) })
		if !told(changed) || v.Current().NodeNamed("node1") == nil || v.Current().Revision != b.Current().Revision {
			t.Error("the new node is not seen")
		}
	})
}

func TestAFrozenViewStaysUntilItThaws(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, v, changed := viewed(t)
		v.Freeze(true)
		before := v.Current()
		b.Update(func(e *Batch) { e.SetNode(&model.Node{Name: "node1"}) })
		if told(changed) || v.Current() != before || !v.Frozen() {
			t.Error("something passes through")
		}
		v.Freeze(false)
		if !told(changed) || v.Current().NodeNamed("node1") == nil {
			t.Error("the new node is not seen")
		}
	})
}

func TestPeersAreSeenEvenWhileFrozen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, v, changed := viewed(t)
		v.Freeze(true)
		v.SetPeers([]model.Peer{{NodeName: "node2", State: model.PeerSilent}})
		if !told(changed) || len(v.Current().Peers) != 1 {
			t.Error("the peer is not seen")
		}
		if first := v.Current(); first != v.Current() || b.Current().Peers != nil {
			t.Error("a View makes a snapshot once, and leaves the Builder's alone")
		}
	})
}
