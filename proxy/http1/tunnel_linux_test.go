package http1

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"syscall"
	"testing"
	"time"
)

const (
	askTunnel  = "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
	giveTunnel = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
)

// dig opens a tunnel. It gives the client's end, with the reader of it, and the backend's.
func (h *hall) dig(t *testing.T) (client *net.TCPConn, in *bufio.Reader, backend *net.TCPConn) {
	t.Helper()
	ends, over := make(chan *net.TCPConn), make(chan struct{})
	h.backed(t, func(conn *net.TCPConn, in *bufio.Reader) {
		if _, err := http.ReadRequest(in); err == nil {
			io.WriteString(conn, giveTunnel)
			ends <- conn
			<-over
		}
	})
	t.Cleanup(func() { close(over) })
	client, in = h.connect(t)
	tell(t, client, askTunnel)
	res, err := http.ReadResponse(in, nil)
	if err != nil || res.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("got %v, %v; want 101", res, err)
	}
	return client, in, <-ends
}

func (h *hall) over(t *testing.T) {
	t.Helper()
	eventually(t, "the tunnel is over", func() bool { return h.server.Active() == 0 && h.open.Load() == 0 })
}

// The end of one direction is passed on, and the other one is carried on for a while.
func TestTunnelPassesHalfClosesOn(t *testing.T) {
	for _, first := range []string{"client", "backend"} {
		t.Run(first, func(t *testing.T) {
			h := startHall(t, listen(t), Config{})
			client, in, backend := h.dig(t)
			ends, goesOn, reads, other := client, backend, io.Reader(in), io.Reader(backend)
			if first == "backend" {
				ends, goesOn, reads, other = backend, client, backend, in
			}
			tell(t, ends, "last words")
			ends.CloseWrite()
			if got, err := io.ReadAll(other); string(got) != "last words" || err != nil {
				t.Fatalf("got %q, %v; want all and the end", got, err)
			}
			for i := range 20 {
				tell(t, goesOn, letters(i, 100_000))
				if n, err := io.CopyN(io.Discard, reads, 100_000); err != nil {
					t.Fatalf("got %d bytes of the other direction, then %v", n, err)
				}
			}
			goesOn.CloseWrite()
			if _, err := io.Copy(io.Discard, reads); err != nil {
				t.Errorf("got %v, want the end", err)
			}
			h.over(t)
		})
	}
}

// fill writes to the backend's end of a tunnel until the proxy holds what the client does not take.
func (h *hall) fill(t *testing.T, backend *net.TCPConn) {
	t.Helper()
	var u *upstream
	h.server.mu.Lock()
	for s := range h.server.sessions {
		u = s.upstream.Load()
	}
	h.server.mu.Unlock()
	for held := 0; held < 100; {
		if !holds(u) {
			held = 0
			tell(t, backend, letters(0, 16<<10))
		}
		<-time.After(time.Millisecond)
		held++
	}
}

// A tunnel of which one side has ended does not last for as long as the other one likes.
func TestTunnelEndsInTime(t *testing.T) {
	for _, test := range []struct {
		name   string
		full   bool // the client reads nothing
		closes func(client, backend *net.TCPConn)
	}{
		{"the backend closes", false, func(_, backend *net.TCPConn) { backend.Close() }},
		{"the backend ends its direction", false, func(_, backend *net.TCPConn) { backend.CloseWrite() }},
		{"the client ends its direction", false, func(client, _ *net.TCPConn) { client.CloseWrite() }},
		{"the backend closes before the client has read", true, func(_, backend *net.TCPConn) { backend.CloseWrite() }},
	} {
		t.Run(test.name, func(t *testing.T) {
			h := startHall(t, listen(t), Config{})
			client, _, backend := h.dig(t)
			over := func() bool { return h.server.Active() == 0 }
			if h.hurry(15*time.Second, over) {
				t.Fatal("it ended while both sides were there")
			}
			if test.full {
				client.SetReadBuffer(4096)
				h.fill(t, backend)
			}
			test.closes(client, backend)
			if !h.hurry(time.Minute, over) {
				t.Error("it did not end")
			}
			eventually(t, "the connection is over", func() bool { return h.open.Load() == 0 })
		})
	}
}

// What has not ended is carried on, but not for ever.
func TestTunnelThatTricklesEnds(t *testing.T) {
	h := startHall(t, listen(t), Config{})
	client, in, backend := h.dig(t)
	backend.CloseWrite()
	if _, err := in.ReadByte(); err != io.EOF {
		t.Fatalf("got %v, want the end", err)
	}
	for at := time.Duration(0); at <= lingerAll+lingerQuiet; at += time.Second {
		client.Write([]byte("x"))
		if _, err := backend.Read(make([]byte, 1)); err != nil {
			if at < lingerAll-lingerQuiet {
				t.Fatalf("got %v after %s, want what was sent", err, at)
			}
			h.over(t)
			return
		}
		h.server.sweep(h.server.now.Load() + at.Milliseconds())
	}
	t.Fatal("it goes on and on")
}

// A reset of one side is one for the other.
func TestTunnelPassesResetsOn(t *testing.T) {
	for _, first := range []string{"client", "backend"} {
		for _, half := range []bool{false, true} {
			t.Run(fmt.Sprint(first, " half ", half), func(t *testing.T) {
				h := startHall(t, listen(t), Config{})
				client, in, backend := h.dig(t)
				resets, other, reads := client, backend, io.Reader(backend)
				if first == "backend" {
					resets, other, reads = backend, client, in
				}
				tell(t, resets, "x")
				if _, err := io.ReadFull(reads, make([]byte, 1)); err != nil {
					t.Fatal(err)
				}
				if half { // the other has ended its direction before
					other.CloseWrite()
					if _, err := resets.Read(make([]byte, 1)); err != io.EOF {
						t.Fatalf("got %v, want the end", err)
					}
				}
				reset(resets)
				if _, err := io.ReadAll(reads); !errors.Is(err, syscall.ECONNRESET) {
					t.Errorf("got %v, want a reset", err)
				}
				h.over(t)
			})
		}
	}
}

// A client that goes on talking to a backend that has closed gets all that was on its way.
func TestTunnelDeliversWhatABackendSentLast(t *testing.T) {
	h := startHall(t, listen(t), Config{})
	client, in, backend := h.dig(t)
	const size = 1 << 20
	tell(t, backend, letters(0, size))
	backend.CloseWrite()
	raw := rawConn(backend)
	eventually(t, "the end has come", func() (acknowledged bool) {
		const finWait2 = 5
		raw.Control(func(fd uintptr) { acknowledged = infoOf(fd).state == finWait2 })
		return acknowledged
	})
	tell(t, client, "ping")
	if !waitsFor(raw) {
		t.Fatal("the backend did not get what was sent after its end")
	}
	backend.Close() // by a reset, since something is unread
	for range 10 {
		tell(t, client, "ping")
		<-time.After(time.Millisecond)
	}
	if n, err := io.Copy(io.Discard, in); n != size || err != nil {
		t.Errorf("got %d bytes of %d, then %v", n, size, err)
	}
	client.Close()
	h.over(t)
}

// waitsFor waits until something can be read.
func waitsFor(raw syscall.RawConn) bool {
	err := raw.Read(func(fd uintptr) bool {
		var one [1]byte
		n, _, _ := syscall.Recvfrom(int(fd), one[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		return n > 0
	})
	return err == nil
}

// A reset is not taken for an end, whichever direction hears of it.
func TestTunnelPassesResetsOnWhileBothTalk(t *testing.T) {
	for range 50 {
		h := startHall(t, listen(t), Config{})
		client, in, backend := h.dig(t)
		wrote := make(chan error)
		go func() {
			_, err := io.Copy(client, endless{})
			wrote <- err
		}()
		go io.Copy(backend, endless{})
		if _, err := io.CopyN(io.Discard, in, 100_000); err != nil {
			t.Fatal(err)
		}
		reset(backend)
		_, err := io.Copy(io.Discard, in)
		if also := <-wrote; !errors.Is(err, syscall.ECONNRESET) && !errors.Is(also, syscall.ECONNRESET) { // one is told
			t.Fatalf("got %v and %v, want a reset", err, also)
		}
		h.over(t)
	}
}

// endless can be read for ever.
type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

// A node that stops waits for no longer than for others.
func TestShutdownIsNotHeldByTunnelsThatEnd(t *testing.T) {
	h := startHall(t, listen(t), Config{})
	_, _, backend := h.dig(t)
	backend.Close()
	stopped := make(chan error)
	go func() { stopped <- h.server.Shutdown(t.Context()) }()
	if !h.hurry(lingerQuiet*4, func() bool { return h.server.Active() == 0 }) {
		t.Error("it did not end")
	}
	if err := <-stopped; err != nil {
		t.Error(err)
	}
}
