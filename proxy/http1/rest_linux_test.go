package http1

import (
	"bufio"
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync/atomic"
	"testing"
	"time"
)

// restHouse is a server whose connections rest, and how many are open.
type restHouse struct {
	rig
	server *Server
	open   atomic.Int64
}

func (h *restHouse) Connections(delta int) { h.open.Add(int64(delta)) }

func startRestHouse(t *testing.T, idle time.Duration) *restHouse {
	t.Helper()
	h, listener := &restHouse{}, listen(t)
	h.addr = listener.Addr().String()
	h.server = NewServer(Config{Handler: h, Limits: DefaultLimits(), Header: time.Minute, Idle: idle, Log: slog.New(slog.DiscardHandler)})
	served := make(chan error, 1)
	go func() { served <- h.server.Serve(listener) }()
	t.Cleanup(func() {
		if err := h.server.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
		<-served
	})
	return h
}

// guest is a connection of a client.
type guest struct {
	net.Conn
	in *bufio.Reader
}

func (h *restHouse) connect(t *testing.T) guest {
	t.Helper()
	conn, err := net.Dial("tcp", h.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(time.Minute))
	return guest{conn, bufio.NewReader(conn)}
}

// ask sends parts of a request, one after the other, and wants a good answer.
func (g guest) ask(t *testing.T, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if _, err := io.WriteString(g, part); err != nil {
			t.Fatal(err)
		}
	}
	res, err := http.ReadResponse(g.in, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		t.Fatalf("got %s, want 200 OK", res.Status)
	}
}

func (p *restingPlace) count() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.sessions)
}

func (h *restHouse) eventually(t *testing.T, what string, resting, open int) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; {
		r, o := h.server.resting.count(), int(h.open.Load())
		if r == resting && o == open {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: got %d resting connections of %d, want %d of %d", what, r, o, resting, open)
		}
		<-time.After(5 * time.Millisecond)
	}
}

const askServer = "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n"

func TestRestedConnectionGoesOn(t *testing.T) {
	h := startRestHouse(t, time.Minute)
	guests := make([]guest, 20)
	for i := range guests {
		guests[i] = h.connect(t)
	}
	for range 3 {
		h.eventually(t, "idle for a second", len(guests), len(guests)) // at first before any request
		for _, g := range guests {
			g.ask(t, askServer)
			g.ask(t, "OPTIONS * HT", "TP/1.1\r\nHost: a\r\n\r\n")
		}
	}
	h.eventually(t, "idle for a second", len(guests), len(guests))
	for i, g := range guests {
		if i%2 == 0 {
			reset(g.Conn)
		} else {
			g.Close()
		}
	}
	h.eventually(t, "all clients are gone", 0, 0)
}

func TestRestEndsInTime(t *testing.T) {
	const idle = 3 * time.Second
	h := startRestHouse(t, idle)
	g := h.connect(t)
	g.ask(t, askServer)
	began := time.Now()
	h.eventually(t, "idle for a second", 1, 1)
	if _, err := g.in.ReadByte(); err != io.EOF {
		t.Errorf("got %v, want the end of the connection", err)
	}
	if took := time.Since(began); took < idle-2*tick {
		t.Errorf("the connection was closed after %s, want %s", took, idle)
	}
	h.eventually(t, "closed", 0, 0)
}

func TestRestEndsWithTheServer(t *testing.T) {
	h := startRestHouse(t, time.Hour)
	g := h.connect(t)
	h.eventually(t, "idle for a second", 1, 1)
	if err := h.server.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := g.in.ReadByte(); err != io.EOF {
		t.Errorf("got %v, want the end of the connection", err)
	}
	h.eventually(t, "shut down", 0, 0)
}

// Whoever comes first, the sweeper, the client or the shutdown, a connection ends once:
// were it twice, the count of sessions would panic.
func TestRestEndsOnce(t *testing.T) {
	const idle = restAfter + tick // it expires as it begins to rest
	h := startRestHouse(t, idle)
	for i := range 300 {
		g := h.connect(t)
		time.AfterFunc(idle, func() {
			if i%2 == 0 {
				g.Close()
			} else {
				io.WriteString(g, askServer)
			}
		})
	}
	h.eventually(t, "idle", 0, 0)
}
