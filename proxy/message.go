package proxy

import (
	"bufio"
	"bytes"
	"io"
	"maps"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
)

// statusClientLeft stands in counts for an answer that nobody was there to get.
const statusClientLeft = 499

// requestBody is the client's request body on its way to a backend. It tells what
// was read of it, and can be taken away from an engine that still reads it.
type requestBody struct {
	watch  *watchdog
	state  atomic.Int32 // the bits below, known without waiting for a Read
	mu     sync.Mutex   // held during a Read; guards the fields below
	source io.ReadCloser
	err    error
}

const (
	bodyTouched = 1 << iota // a Read was begun
	bodyWaiting             // a Read is under way
	bodyDone                // the body was read to its end
	bodyFailed              // the body could not be read
)

// Read implements io.Reader.
func (b *requestBody) Read(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.err != nil {
		return 0, b.err
	}
	b.state.Or(bodyTouched | bodyWaiting)
	n, err := b.source.Read(p)
	b.state.And(^bodyWaiting)
	b.err = err
	switch err {
	case nil:
	case io.EOF:
		b.state.Or(bodyDone)
	default:
		b.state.Or(bodyFailed)
	}
	if n > 0 {
		b.watch.touch()
	}
	return n, err
}

// Close implements io.Closer. It leaves the body open: an attempt that fails closes
// its request's body, and the next one may need it.
func (b *requestBody) Close() error { return nil }

// touched says whether any of the body may have been read.
func (b *requestBody) touched() bool { return b != nil && b.state.Load()&bodyTouched != 0 }

// waiting says whether it is the client whose bytes are being waited for.
func (b *requestBody) waiting() bool { return b != nil && b.state.Load()&bodyWaiting != 0 }

// failed says whether the body could not be read.
func (b *requestBody) failed() bool { return b != nil && b.state.Load()&bodyFailed != 0 }

// done says whether the body was read to its end; no body is.
func (b *requestBody) done() bool { return b == nil || b.state.Load()&bodyDone != 0 }

// take makes every later Read fail and waits for one under way.
func (b *requestBody) take() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.err == nil {
		b.err = http.ErrBodyReadAfterClose
	}
}

// response is the answer on its way to the client.
type response struct {
	http.ResponseWriter
	body  *requestBody // nil if the request has none
	watch *watchdog    // nil if there is nothing to watch

	sent     atomic.Bool // something reached, or may have reached, the client
	code     int         // 0 until there is a final answer
	interim  int         // interim answers so far
	hijacked bool
}

// begun says whether anything was sent to the client, be it an interim answer.
func (w *response) begun() bool { return w.sent.Load() }

// WriteHeader implements http.ResponseWriter. Interim answers are no progress, or
// else a backend could hold a request for ever with them. A 100 is left to the
// server, which sends it when the body is read, so that the client gets one only.
func (w *response) WriteHeader(code int) {
	if code == http.StatusContinue {
		return
	}
	if code < 200 {
		if w.interim++; w.interim > maxInterim {
			return
		}
	}
	w.sent.Store(true)
	if code >= 200 {
		w.code = code
		w.touch()
		w.addNothing()
	}
	w.ResponseWriter.WriteHeader(code)
}

// addNothing keeps the server from adding to the backend's header, and has the
// connection closed where the rest of the request would stand in the way of the
// next one.
func (w *response) addNothing() {
	h := w.Header()
	for _, name := range []string{"Date", "Content-Type"} {
		if _, ok := h[name]; !ok {
			h[name] = nil
		}
	}
	if !w.body.done() {
		h.Set("Connection", "close")
	}
}

// dropTrailers removes from the backend's trailers what belongs in the header: a
// client that merges the two would take the answer for another.
func (w *response) dropTrailers() {
	maps.DeleteFunc(w.Header(), func(name string, _ []string) bool {
		field, isTrailer := strings.CutPrefix(name, http.TrailerPrefix)
		return isTrailer && headerOnly(field)
	})
}

// Write implements io.Writer.
func (w *response) Write(p []byte) (int, error) {
	w.touch()
	n, err := w.ResponseWriter.Write(p)
	w.touch()
	return n, err
}

func (w *response) touch() {
	if w.watch != nil {
		w.watch.touch()
	}
}

// Unwrap lets http.ResponseController reach the server's own methods.
func (w *response) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// Hijack implements http.Hijacker for protocols that take over the connection.
func (w *response) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := http.NewResponseController(w.ResponseWriter).Hijack()
	if err == nil {
		w.hijacked, w.code = true, http.StatusSwitchingProtocols
		w.sent.Store(true)
		conn = withEarly(conn, rw.Reader)
	}
	return conn, rw, err
}

// halfCloser is a connection that can end one direction.
type halfCloser interface {
	net.Conn
	CloseWrite() error
}

// earlyConn is a connection of which bytes were read ahead.
type earlyConn struct {
	halfCloser
	all io.Reader
}

// withEarly gives conn with the bytes that are buffered in front of it.
func withEarly(conn net.Conn, buffered *bufio.Reader) net.Conn {
	whole, ok := conn.(halfCloser)
	early, _ := buffered.Peek(buffered.Buffered())
	if !ok || len(early) == 0 {
		return conn
	}
	return &earlyConn{whole, io.MultiReader(bytes.NewReader(early), conn)}
}

// Read implements io.Reader.
func (c *earlyConn) Read(p []byte) (int, error) { return c.all.Read(p) }

// refuse answers with a short text instead of a backend's answer. It closes the
// connection, unless the next request on it may fare better and can be found.
func (w *response) refuse(code int, text string) {
	w.code = code
	w.sent.Store(true)
	h := w.Header()
	if keep := code == http.StatusNotFound || code == http.StatusBadGateway || code == http.StatusServiceUnavailable; !keep || !w.body.done() {
		h.Set("Connection", "close")
	}
	h.Set("Content-Type", "text/plain; charset=utf-8")
	h.Set("X-Content-Type-Options", "nosniff")
	w.ResponseWriter.WriteHeader(code)
	io.WriteString(w.ResponseWriter, text+"\n")
}
