package store

import (
	"errors"
	"log/slog"
	"testing"
)

func start(t *testing.T, dir string) *Store {
	t.Helper()
	s, err := Start(t.Context(), Config{Dir: dir, Log: slog.New(slog.NewTextHandler(t.Output(), nil))})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestWhatIsWrittenIsThereAfterARestart(t *testing.T) {
	dir := t.TempDir()
	s := start(t, dir)
	client := s.NewClient()
	if _, err := client.Put(t.Context(), "key", "value"); err != nil {
		t.Fatal(err)
	}
	client.Close()
	s.Stop()

	s = start(t, dir)
	defer s.Stop()
	client = s.NewClient()
	defer client.Close()
	got, err := client.Get(t.Context(), "key")
	if err != nil || len(got.Kvs) != 1 || string(got.Kvs[0].Value) != "value" {
		t.Errorf("got %v, %v", got, err)
	}
}

func TestClientsSeeEachOthersWrites(t *testing.T) {
	s := start(t, t.TempDir())
	defer s.Stop()
	reader, writer := s.NewClient(), s.NewClient()
	defer reader.Close()
	defer writer.Close()
	watch := reader.Watch(t.Context(), "key")
	if _, err := writer.Put(t.Context(), "key", "value"); err != nil {
		t.Fatal(err)
	}
	if got := <-watch; got.Err() != nil || string(got.Events[0].Kv.Value) != "value" {
		t.Errorf("got %v, %v", got.Events, got.Err())
	}
}

func TestStoreHasOneOwner(t *testing.T) {
	dir := t.TempDir()
	s := start(t, dir)
	if _, err := Start(t.Context(), Config{Dir: dir, Log: slog.Default()}); !errors.Is(err, ErrLocked) {
		t.Errorf("got error %v, want %v", err, ErrLocked)
	}
	s.Stop()
	start(t, dir).Stop()
}
