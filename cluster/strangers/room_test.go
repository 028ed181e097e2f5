package strangers

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// patience is far more than anything here takes.
const patience = 30 * time.Second

// conn is a connection from an address that may only be closed.
type conn struct {
	net.Conn
	from   string
	closed bool
}

func (c *conn) RemoteAddr() net.Addr {
	addr, _ := net.ResolveTCPAddr("tcp", c.from)
	return addr
}

func (c *conn) Close() error { c.closed = true; return nil }

// enter adds connections from so many ports of a host.
func enter(r *Room, host string, count int) (all []*conn) {
	for i := range count {
		c := &conn{from: net.JoinHostPort(host, fmt.Sprint(1000+i))}
		all = append(all, c)
		r.Enter(c)
	}
	return all
}

func closed(conns []*conn) (count int) {
	for _, c := range conns {
		if c.closed {
			count++
		}
	}
	return count
}

func newRoom(log *strings.Builder) *Room {
	return New(Config{Port: "raft port", Max: 8, MaxPeer: 4, MaxBusy: 2, Log: slog.New(slog.NewTextHandler(log, nil))})
}

func TestRoomIsBounded(t *testing.T) {
	var log strings.Builder
	r := newRoom(&log)
	one := enter(r, "192.0.2.1", 6)
	if closed(one) != 2 || !one[0].closed || !one[1].closed {
		t.Errorf("got %d of 6 closed, want the first 2: one peer may have 4", closed(one))
	}
	if !strings.Contains(log.String(), "raft port") || strings.Count(log.String(), "\n") != 1 {
		t.Errorf("got the log %q, want one line that names the port", log.String())
	}
	two, three := enter(r, "192.0.2.2", 3), enter(r, "2001:db8::1", 1)
	if closed(two)+closed(three) != 0 || closed(one) != 2 {
		t.Error("somebody was displaced although there was room")
	}
	same := enter(r, "2001:db8::2", 1) // the same /64
	if closed(one) != 3 || closed(two)+closed(three)+closed(same) != 0 {
		t.Errorf("got %d, %d, %d and %d closed, want one more of the peer that has most", closed(one), closed(two), closed(three), closed(same))
	}
	for range 100 { // one who comes again and again displaces only itself
		enter(r, "192.0.2.1", 4)
	}
	if closed(two)+closed(three)+closed(same) != 0 {
		t.Error("others were displaced by one who opens many")
	}
}

func TestRoomForgets(t *testing.T) {
	r := newRoom(&strings.Builder{})
	for range 100 {
		for _, c := range enter(r, "192.0.2.1", 3) {
			r.Leave(c)
			r.Leave(c) // does nothing
			if c.closed {
				t.Fatal("one was closed although there is room")
			}
		}
	}
	if len(r.inside)+len(r.peers)+len(r.busy) != 0 {
		t.Errorf("the room still has %v of %v", r.inside, r.peers)
	}
}

// server is an HTTP server whose connections are watched, and whose requests wait to be
// told to end.
func server(t *testing.T, r *Room) (addr string, begun chan bool, end chan struct{}) {
	t.Helper()
	begun, end = make(chan bool), make(chan struct{})
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
		if request.URL.Path == "/unknown" {
			return
		}
		ok := r.Begin(request.Context())
		begun <- ok
		<-end
	})}
	r.Watch(s)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() { s.Serve(listener) })
	t.Cleanup(func() { s.Close(); serving.Wait() })
	return listener.Addr().String(), begun, end
}

func dial(t *testing.T, addr string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(patience))
	return c
}

func ask(t *testing.T, c net.Conn, path string) {
	t.Helper()
	if _, err := io.WriteString(c, "GET "+path+" HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
}

// Requests are not displaced by silent connections, and are bounded by themselves; what
// is idle again is displaced.
func TestRequestsAreNoStrangers(t *testing.T) {
	r := newRoom(&strings.Builder{})
	addr, begun, end := server(t, r)
	first, second, third := dial(t, addr), dial(t, addr), dial(t, addr)
	for i, c := range []net.Conn{first, second, third} {
		ask(t, c, "/")
		if got, want := <-begun, i < 2; got != want {
			t.Errorf("request %d: got %t, want %t: 2 may be under way", i+1, got, want)
		}
	}
	for range 20 {
		dial(t, addr)
	}
	r.wait(t, func() bool { return r.closed >= 16 })
	end <- struct{}{}
	end <- struct{}{}
	end <- struct{}{}
	for _, c := range []net.Conn{first, second} {
		if _, err := c.Read(make([]byte, 1)); err != nil {
			t.Errorf("got %v, want an answer: it was asked for before", err)
		}
	}
	for range 20 {
		dial(t, addr)
	}
	if _, err := io.Copy(io.Discard, first); err != nil {
		t.Errorf("got %v for one that is idle, want it closed to make room", err)
	}
}

// Requests that are not let in leave their connection a stranger's.
func TestUnknownRequestsAreStrangers(t *testing.T) {
	r := newRoom(&strings.Builder{})
	addr, _, _ := server(t, r)
	c := dial(t, addr)
	ask(t, c, "/unknown")
	if _, err := c.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	for range 20 {
		dial(t, addr)
	}
	if _, err := io.Copy(io.Discard, c); err != nil {
		t.Errorf("got %v, want it closed to make room", err)
	}
}

// A connection that ends is forgotten, in a request, too.
func TestEndedConnectionsAreForgotten(t *testing.T) {
	r := newRoom(&strings.Builder{})
	addr, begun, end := server(t, r)
	silent, busy := dial(t, addr), dial(t, addr)
	ask(t, busy, "/")
	<-begun
	silent.Close()
	busy.Close()
	end <- struct{}{}
	r.wait(t, func() bool { return len(r.inside)+len(r.peers)+len(r.busy) == 0 })
}

// wait polls the room until ok holds.
func (r *Room) wait(t *testing.T, ok func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		r.mu.Lock()
		done := ok()
		r.mu.Unlock()
		if done {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatal("the room does not come to be as it should")
		}
	}
}
