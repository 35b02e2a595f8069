package apiserver

import (
	"errors"
	"net"
	"testing"
)

func TestJoinedListenersEndTogether(t *testing.T) {
	var all []net.Listener
	for range 2 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, l)
	}
	l := join(all)
	for _, one := range all {
		conn, err := net.Dial("tcp", one.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		got, err := l.Accept()
		if err != nil || got.RemoteAddr().String() != conn.LocalAddr().String() {
			t.Errorf("accepted %v, %v", got, err)
		}
		conn.Close()
		got.Close()
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("after Close: got error %v", err)
	}
	if _, err := net.Dial("tcp", all[1].Addr().String()); err == nil {
		t.Error("the second listener still listens")
	}
}
