package proxy

import (
	"errors"
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"time"
)

// errClientSilent says that the client has stopped in the middle of a body.
var errClientSilent = errors.New("the client sent nothing for too long")

// requestBody is a client's body, with a bound on silence and, where the Ingress has one, on size. A Transport reads
// it while the exchange goes on.
type requestBody struct {
	io.ReadCloser
	control *http.ResponseController
	limit   time.Duration
	reading atomic.Bool
	end     atomic.Pointer[error] // how it ended: io.EOF, or what was wrong with it
}

func newRequestBody(w http.ResponseWriter, r *http.Request, maxBytes int64, limit time.Duration) *requestBody {
	b := &requestBody{ReadCloser: r.Body, control: http.NewResponseController(w), limit: limit}
	if maxBytes > 0 {
		b.ReadCloser = http.MaxBytesReader(w, r.Body, maxBytes)
	}
	if r.ProtoMajor == 1 {
		// Without it the server would read the rest of the body before it lets a response begin.
		_ = b.control.EnableFullDuplex() // an error says that the protocol is so anyway
	}
	return b
}

func (b *requestBody) Read(p []byte) (int, error) {
	_ = b.control.SetReadDeadline(time.Now().Add(b.limit)) // an error shows in Read
	b.reading.Store(true)
	n, err := b.ReadCloser.Read(p)
	b.reading.Store(false)
	if err == nil {
		return n, nil
	}
	if timeout := net.Error(nil); errors.As(err, &timeout) && timeout.Timeout() {
		err = errClientSilent
	}
	b.end.CompareAndSwap(nil, &err)
	_ = b.control.SetReadDeadline(time.Time{}) // the server goes on reading the connection by its own times
	return n, err
}

// Close ends a Read that waits for a client whose request was answered already. It does not close the body, which is
// the server's and may be needed for another backend. It may be called on nil.
func (b *requestBody) Close() error {
	if b != nil && b.reading.Load() {
		return b.control.SetReadDeadline(time.Now())
	}
	return nil
}

// failure is what was wrong with the body, nil when nothing is. It may be called on nil.
func (b *requestBody) failure() error {
	if b == nil {
		return nil
	}
	if end := b.end.Load(); end != nil && !errors.Is(*end, io.EOF) {
		return *end
	}
	return nil
}

// whole reports whether the body was read to its end. What follows one that was not must never be taken for another
// request: http.Server does so after a malformed chunk if the handler has asked for full duplex. It may be called on nil.
func (b *requestBody) whole() bool {
	if b == nil {
		return true
	}
	end := b.end.Load()
	return end != nil && errors.Is(*end, io.EOF)
}
