package apiserver_test

import (
	"net"
	"testing"
	"time"

	"minato/internal/cluster/apiserver/apiservertest"
)

// In a takeover the port goes on, and nobody accepts there before this process has ended. Who still asks does not wait.
func TestNobodyOfThisProcessWaitsForItsSuccessor(t *testing.T) {
	cfg := apiservertest.Config(t, t.TempDir())
	l := cfg.Listeners[0].(*net.TCPListener)
	kept, err := l.File() // what the successor has
	if err != nil {
		t.Fatal(err)
	}
	defer kept.Close()
	s := apiservertest.StartWith(t, cfg)
	before, after := apiservertest.ClientFor(t, s.Privileged()), apiservertest.ClientFor(t, s.Privileged())
	if _, err := before.Discovery().ServerVersion(); err != nil {
		t.Fatal(err)
	}
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	if c, err := net.Dial("tcp", l.Addr().String()); err != nil {
		t.Fatalf("the port is closed: %v", err)
	} else {
		c.Close()
	}
	const soon = 5 * time.Second // TLS waits 10 s, a request for ever
	began := time.Now()
	if _, err := before.Discovery().ServerVersion(); err == nil {
		t.Error("who has asked before is answered")
	}
	if _, err := after.Discovery().ServerVersion(); err == nil {
		t.Error("who has not asked before is answered")
	}
	if took := time.Since(began); took > soon {
		t.Errorf("they waited for %v", took)
	}
}
