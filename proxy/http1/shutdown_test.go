package http1

import (
	"bufio"
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"
)

// lateListener accepts one connection at the very moment when it is closed.
type lateListener struct {
	net.Listener
	closed chan struct{}
	once   sync.Once
	late   chan net.Conn
}

func (l *lateListener) Accept() (net.Conn, error) {
	<-l.closed
	select {
	case conn := <-l.late:
		return conn, nil
	default:
		return nil, net.ErrClosed
	}
}

func (l *lateListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

// Who has connected in time gets an answer, though the server is shut down before it has
// seen the connection or the request.
func TestShutdownServesWhoHasConnected(t *testing.T) {
	real := listen(t)
	client, err := net.Dial("tcp", real.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	client.SetDeadline(time.Now().Add(time.Minute))
	conn, err := real.Accept()
	if err != nil {
		t.Fatal(err)
	}
	listener := &lateListener{Listener: real, closed: make(chan struct{}), late: make(chan net.Conn, 1)}
	listener.late <- conn
	server := NewServer(Config{Handler: &rig{}, Limits: DefaultLimits(), Header: time.Minute, Idle: time.Minute, Log: slog.New(slog.DiscardHandler)})
	served, ended := make(chan error, 1), make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	for listening := false; !listening; {
		server.mu.Lock()
		listening = len(server.listeners) > 0
		server.mu.Unlock()
	}
	if _, err := client.Write([]byte("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n")); err != nil {
		t.Fatal(err)
	}
	go func() { ended <- server.Shutdown(t.Context()) }()
	res, err := http.ReadResponse(bufio.NewReader(client), nil)
	if err != nil {
		t.Fatalf("got %v from a server that has accepted the connection, want an answer", err)
	}
	if !res.Close {
		t.Error("got an answer that does not say that the connection ends")
	}
	if err := <-ended; err != nil {
		t.Errorf("Shutdown: got %v, want nil", err)
	}
	if err := <-served; err != net.ErrClosed {
		t.Errorf("Serve: got %v, want %v", err, net.ErrClosed)
	}
	if err := server.Serve(listen(t)); err != net.ErrClosed {
		t.Errorf("Serve after Shutdown: got %v, want %v", err, net.ErrClosed)
	}
}

// A connection without a request is not closed in the first second of its life, and after
// that at once.
func TestDrainLeavesTimeForTheFirstRequest(t *testing.T) {
	server := NewServer(Config{Handler: &rig{}, Limits: DefaultLimits(), Header: time.Minute, Idle: time.Minute, Log: slog.New(slog.DiscardHandler)})
	defer server.Shutdown(t.Context())
	near, far := net.Pipe()
	defer near.Close()
	defer far.Close()
	s := newSession(server, near, addrOf(near.RemoteAddr()), 0)
	server.draining.Store(true)
	if !s.idle() {
		t.Fatal("got no time for a first request")
	}
	_, until := s.watch.look()
	began := until - time.Minute.Milliseconds()
	for _, test := range []struct {
		after time.Duration
		want  bool
	}{{0, false}, {restAfter, false}, {restAfter + tick, true}} {
		s.sweep(began+test.after.Milliseconds(), true)
		if got := s.watch.hasExpired(); got != test.want {
			t.Errorf("after %s: got it closed %v, want %v", test.after, got, test.want)
		}
	}
	s.asked = true
	if s.idle() {
		t.Error("got time for another request while the server is shut down")
	}
}

// late is a handler that goes on with a request once it may.
type late struct {
	*hall
	stall         bool // an attempt before has taken too long
	reached, goOn chan struct{}
}

// Handle implements Handler.
func (l *late) Handle(x *Exchange) {
	if l.stall {
		x.Forward(context.Background(), l.backend.Load(), Patience{Try: tick, Progress: tick})
	}
	close(l.reached)
	<-l.goOn
	l.hall.Handle(x)
}

// A server that is cut waits for no exchange that was about to begin, or to begin again.
func TestCutEndsWhatIsAboutToBegin(t *testing.T) {
	for name, stall := range map[string]bool{"first attempt": false, "second attempt": true} {
		t.Run(name, func(t *testing.T) {
			h := &hall{progress: wait, ended: make(chan Account, 1)}
			l := &late{hall: h, stall: stall, reached: make(chan struct{}), goOn: make(chan struct{})}
			on := listen(t)
			h.addr = on.Addr().String()
			h.server = NewServer(Config{Handler: l, Limits: DefaultLimits(), Header: wait, Idle: wait, Log: slog.New(slog.DiscardHandler)})
			var serving sync.WaitGroup
			serving.Go(func() { h.server.Serve(on) })
			h.backed(t, func(_ *net.TCPConn, in *bufio.Reader) { io.Copy(io.Discard, in) })
			conn, _ := h.connect(t)
			tell(t, conn, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
			<-l.reached
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			over := make(chan error, 1)
			go func() { over <- h.server.Shutdown(ctx) }()
			eventually(t, "the server is cut", func() bool {
				h.server.mu.Lock()
				defer h.server.mu.Unlock()
				for s := range h.server.sessions {
					return s.cut.Load()
				}
				return false
			})
			close(l.goOn)
			select {
			case err := <-over:
				if err == nil {
					t.Error("got nil, want an error that tells of the request")
				}
			case <-time.After(wait / 2):
				t.Error("the server waits for an answer that does not come")
			}
			serving.Wait()
		})
	}
}
