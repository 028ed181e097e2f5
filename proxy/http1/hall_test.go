package http1

import (
	"bufio"
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// wait is longer than anything here takes on a slow machine.
const wait = time.Minute

// hall is a server with one backend, for tests of how exchanges and connections end.
type hall struct {
	rig
	server   *Server
	open     atomic.Int64
	progress time.Duration
	ended    chan Account
}

func startHall(t *testing.T, on net.Listener, config Config) *hall {
	t.Helper()
	h := &hall{progress: wait, ended: make(chan Account, 64)}
	config.Handler, config.Limits, config.Log = h, DefaultLimits(), slog.New(slog.DiscardHandler)
	if config.Header == 0 {
		config.Header = wait
	}
	if config.Idle == 0 {
		config.Idle = wait
	}
	h.addr, h.server = on.Addr().String(), NewServer(config)
	served := make(chan error, 1)
	go func() { served <- h.server.Serve(on) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		h.server.Shutdown(ctx)
		<-served
	})
	return h
}

// Handle implements Handler.
func (h *hall) Handle(x *Exchange) {
	if x.Last() {
		x.Reply()
		return
	}
	err := x.Forward(context.Background(), h.backend.Load(), Patience{Try: h.progress, Progress: h.progress})
	if err != nil && x.Status() == 0 {
		x.Refuse(http.StatusBadGateway, "")
	}
	h.ended <- x.Account()
}

func (h *hall) Connections(delta int) { h.open.Add(int64(delta)) }

// connect connects as a client, whose reader is that of answers.
func (h *hall) connect(t *testing.T) (*net.TCPConn, *bufio.Reader) {
	t.Helper()
	conn, err := net.Dial("tcp", h.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(wait))
	return conn.(*net.TCPConn), bufio.NewReader(conn)
}

// backed gives the hall a backend: each of its connections is served by serve, and closed then.
func (h *hall) backed(t *testing.T, serve func(conn *net.TCPConn, in *bufio.Reader)) {
	t.Helper()
	finish := h.use(t, func(conn net.Conn, _ int) {
		conn.SetDeadline(time.Now().Add(wait))
		serve(conn.(*net.TCPConn), bufio.NewReader(conn))
	})
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		h.server.Shutdown(ctx) // so that no exchange is under way
		finish()
	})
}

// hurry lets the time go on that the sweeper sees, up to that much, until the condition holds.
func (h *hall) hurry(by time.Duration, condition func() bool) bool {
	for at := time.Duration(0); at <= by; at += tick {
		h.server.sweep(h.server.now.Load() + at.Milliseconds())
		for range 5 {
			if condition() {
				return true
			}
			runtime.Gosched()
		}
		<-time.After(time.Millisecond)
	}
	return condition()
}

// eventually polls until the condition holds.
func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for deadline := time.After(wait); !condition(); {
		select {
		case <-deadline:
			t.Fatalf("not within %s: %s", wait, what)
		case <-time.After(2 * time.Millisecond):
		}
	}
}

// tell writes all, or the test fails.
func tell(t *testing.T, to io.Writer, text string) {
	t.Helper()
	if _, err := io.WriteString(to, text); err != nil {
		t.Fatalf("cannot send: %v", err)
	}
}

// answer reads the head and the body of an answer.
func readAnswer(t *testing.T, in *bufio.Reader) (*http.Response, string) {
	t.Helper()
	res, err := http.ReadResponse(in, nil)
	if err != nil {
		t.Fatalf("got no answer: %v", err)
	}
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatalf("got %q of an answer, then %v", body, err)
	}
	return res, string(body)
}

// letters are a piece of a body, of which no two alike follow each other.
func letters(i, size int) string { return strings.Repeat(string(rune('a'+i%26)), size) }
