package http1

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"net/netip"
	"testing"
	"time"
)

// An answer reaches a client that goes on sending: more than all buffers hold, and for longer than a second.
func TestEarlyAnswerReachesWhoStillSends(t *testing.T) {
	const upload = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 20000000\r\n\r\n"
	for _, test := range []struct {
		name, request, answer string
		want                  int
	}{
		{"backend", upload, "HTTP/1.1 413 Content Too Large\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", 413},
		{"backend that is gone", upload, "", 502},
		{"framing", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n", "", 400},
		{"no HTTP", "\x16\x03\x01", "", 400},
	} {
		for name, on := range map[string]func(testing.TB) net.Listener{"": listen, " plain": listenPlain} {
			for how, pause := range map[string]time.Duration{" at once": 0, " slowly": 60 * time.Millisecond} {
				t.Run(test.name+name+how, func(t *testing.T) {
					t.Parallel()
					h := startHall(t, on(t), Config{})
					h.backed(t, func(conn *net.TCPConn, in *bufio.Reader) {
						if _, err := http.ReadRequest(in); err == nil {
							io.WriteString(conn, test.answer)
						}
					})
					conn, in := h.connect(t)
					tell(t, conn, test.request)
					for i := range 25 { // 10 MB, or 1.5 s
						if pause > 0 {
							tell(t, conn, letters(i, 100))
							<-time.After(pause)
						} else {
							tell(t, conn, letters(i, 400_000))
						}
					}
					if res, _ := readAnswer(t, in); res.StatusCode != test.want {
						t.Errorf("got %d, want %d", res.StatusCode, test.want)
					}
					conn.CloseWrite()
					if _, err := in.ReadByte(); err != io.EOF {
						t.Errorf("got %v, want the end", err)
					}
					eventually(t, "the connection is over", func() bool { return h.open.Load() == 0 })
				})
			}
		}
	}
}

// refused opens connections that go on sending after they have been refused.
func (h *hall) refused(t *testing.T, count int) (conns []*net.TCPConn) {
	t.Helper()
	for range count {
		conn, in := h.connect(t)
		tell(t, conn, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\nmore")
		if res, _ := readAnswer(t, in); res.StatusCode != http.StatusBadRequest {
			t.Fatalf("got %d, want 400", res.StatusCode)
		}
		conns = append(conns, conn)
	}
	return conns
}

// A client that does nothing more is not waited for long.
func TestLingeringEndsInTime(t *testing.T) {
	h := startHall(t, listen(t), Config{})
	h.refused(t, 2)
	eventually(t, "both linger", func() bool { return h.lingering() == 2 })
	h.hurry(lingerQuiet/4, func() bool { return false })
	if got := h.lingering(); got != 2 {
		t.Errorf("got %d that linger, want 2", got)
	}
	if !h.hurry(2*lingerQuiet, func() bool { return h.open.Load() == 0 }) {
		t.Error("silent clients are waited for")
	}
}

// A client that goes on sending is not waited for without end, and while the server is shut down
// no longer than one that does not.
func TestLingeringIsBoundedInTime(t *testing.T) {
	for draining, want := range map[bool]time.Duration{false: lingerAll, true: lingerQuiet} {
		listener := listen(t)
		far, err := net.Dial("tcp", listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer far.Close()
		near, err := listener.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer near.Close()
		server := &Server{lingering: clients{maxLingeringOfClient, map[netip.Addr]int{}}}
		server.draining.Store(draining)
		s := newSession(server, near, addrOf(near.RemoteAddr()), 0)
		s.ending = discards
		over := make(chan struct{})
		go func() {
			s.linger()
			close(over)
		}()
		eventually(t, "it begins", func() bool { p, _ := s.watch.look(); return p == lingering })
		for at := time.Duration(0); at < want; at += time.Second {
			server.now.Store(at.Milliseconds())
			tell(t, far, "x")
			until := min(at+lingerQuiet, want).Milliseconds()
			eventually(t, "it goes on", func() bool { _, got := s.watch.look(); return got == until })
		}
		server.now.Store(want.Milliseconds())
		tell(t, far, "x")
		<-over
		if server.lingers > 0 || len(server.lingering.open) > 0 {
			t.Error("it was not counted out")
		}
	}
}

func (h *hall) lingering() int {
	h.server.mu.Lock()
	defer h.server.mu.Unlock()
	return h.server.lingers
}

// How many linger is bounded, in all and of one client.
func TestLingeringIsBounded(t *testing.T) {
	s := &Server{lingering: clients{maxLingeringOfClient, map[netip.Addr]int{}}}
	var all []*session
	for client := byte(0); ; client++ {
		of := 0
		for ; ; of++ {
			session := &session{addr: netip.AddrFrom4([4]byte{10, 0, 0, client})}
			if !s.linger(session) {
				break
			}
			all = append(all, session)
		}
		if of == 0 {
			break
		}
		if of > maxLingeringOfClient {
			t.Fatalf("got %d of one client, want %d at most", of, maxLingeringOfClient)
		}
	}
	if len(all) != maxLingering {
		t.Errorf("got %d in all, want %d", len(all), maxLingering)
	}
	for _, session := range all {
		s.lingered(session)
	}
	if !s.linger(all[0]) {
		t.Error("got no place when all had left")
	}
}

// Who was too slow is told so, though it goes on, and has not got long.
func TestSlowClientIsToldSo(t *testing.T) {
	h := startHall(t, listen(t), Config{Header: 300 * time.Millisecond})
	conn, in := h.connect(t)
	tell(t, conn, "GET / HTTP/1.1\r\nX: ")
	if _, err := in.Peek(1); err != nil {
		t.Fatalf("got no answer: %v", err)
	}
	for range 3 {
		tell(t, conn, "yyy")
		<-time.After(5 * time.Millisecond)
	}
	if res, _ := readAnswer(t, in); res.StatusCode != http.StatusRequestTimeout {
		t.Errorf("got %d, want 408", res.StatusCode)
	}
	go drip(conn, "y", 10*time.Millisecond, t.Context().Done())
	if !h.hurry(time.Second, func() bool { return h.open.Load() == 0 }) {
		t.Error("it is waited for")
	}
}

// A node that stops is held for a while by clients that go on sending, and no longer than it is told.
func TestShutdownIsNotHeldByWhoStillSends(t *testing.T) {
	h := startHall(t, listen(t), Config{})
	h.refused(t, 3)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := h.server.Shutdown(ctx); err != nil {
		t.Errorf("Shutdown: got %v, want nil, as nothing is under way", err)
	}
	if ctx.Err() == nil {
		t.Error("the clients were not waited for")
	}
	if got := h.open.Load(); got != 0 {
		t.Errorf("got %d connections after Shutdown, want 0", got)
	}
}
