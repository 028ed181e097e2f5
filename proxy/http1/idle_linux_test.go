package http1

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"syscall"
	"testing"
	"time"
)

const askAll = "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n"

// Empty lines are no request: who sends nothing else is not told that a request came late.
// The connection ends silently, after the time for that of connections without a request.
func TestEmptyLinesAreNoRequest(t *testing.T) {
	const idle = 1500 * time.Millisecond // more than a second, after which a connection rests
	for name, on := range map[string]func(testing.TB) net.Listener{"": listen, "plain ": listenPlain} {
		for _, test := range []struct {
			name         string
			asks         string
			first, later string
		}{
			{"nothing", "", "", ""},
			{"a line at first", "", "\r\n", ""},
			{"half a line", "", "\r", "\n\r"},
			{"after a request", askAll, "\r\n", ""},
			{"after a body", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody", "\r\n", ""},
			{"again and again", askAll, "\r\n", "\r\n"},
			{"more than a buffer", askAll, "", crlfs(smallBuffer/2 + 1)},
		} {
			t.Run(name+test.name, func(t *testing.T) {
				t.Parallel()
				h := startHall(t, on(t), Config{Header: 300 * time.Millisecond, Idle: idle})
				h.backed(t, func(conn *net.TCPConn, in *bufio.Reader) {
					http.ReadRequest(in)
					io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
				})
				conn, in := h.connect(t)
				began := time.Now()
				tell(t, conn, test.asks+test.first)
				if test.asks != "" {
					readAnswer(t, in)
				}
				over := make(chan struct{})
				defer close(over)
				if test.later != "" {
					go drip(conn, test.later, 400*time.Millisecond, over)
				}
				rest, err := io.ReadAll(in)
				if test.later != "" && errors.Is(err, syscall.ECONNRESET) {
					err = nil // it was sending just then
				}
				if len(rest) > 0 || err != nil {
					t.Errorf("got %q, %v; want the end alone", rest, err)
				}
				if took := time.Since(began); took < idle-tick {
					t.Errorf("it ended after %s, want %s", took, idle)
				}
			})
		}
	}
}

func crlfs(count int) string {
	all := ""
	for range count {
		all += "\r\n"
	}
	return all
}

// drip sends the text again and again.
func drip(conn net.Conn, text string, every time.Duration, over <-chan struct{}) {
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			io.WriteString(conn, text)
		case <-over:
			return
		}
	}
}

// A request may follow empty lines, however they come.
func TestRequestAfterEmptyLines(t *testing.T) {
	for name, on := range map[string]func(testing.TB) net.Listener{"": listen, "plain ": listenPlain} {
		for _, first := range []string{"\r\n", "\r", "\r\n\r\n\r", crlfs(smallBuffer)} {
			t.Run(name+first[:min(len(first), 5)], func(t *testing.T) {
				h := startHall(t, on(t), Config{})
				conn, in := h.connect(t)
				for range 3 {
					tell(t, conn, first)
					<-time.After(20 * time.Millisecond)
					rest := askAll
					if first[len(first)-1] == '\r' {
						rest = "\n" + rest
					}
					tell(t, conn, rest)
					if res, _ := readAnswer(t, in); res.StatusCode != http.StatusOK {
						t.Fatalf("got %d, want 200", res.StatusCode)
					}
				}
			})
		}
	}
}

// A client that sends its last byte with a request gets the end with the answer.
func TestEndComesWithTheAnswer(t *testing.T) {
	for name, before := range map[string]int{"first": 0, "later": 3} {
		t.Run(name, func(t *testing.T) {
			h := startHall(t, listen(t), Config{})
			fastest := time.Hour
			for range 3 {
				conn, in := h.connect(t)
				for range before {
					tell(t, conn, askAll)
					readAnswer(t, in)
				}
				began := time.Now()
				cork(t, conn)
				tell(t, conn, askAll)
				conn.CloseWrite()
				readAnswer(t, in)
				if _, err := in.ReadByte(); err != io.EOF {
					t.Fatalf("got %v, want the end", err)
				}
				fastest = min(fastest, time.Since(began))
			}
			if fastest > restAfter/2 {
				t.Errorf("got the end after %s at best, want it at once", fastest)
			}
		})
	}
}

// cork has what is written go out with the end of the connection.
func cork(t *testing.T, conn *net.TCPConn) {
	t.Helper()
	raw, err := conn.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	raw.Control(func(fd uintptr) {
		err = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_CORK, 1)
	})
	if err != nil {
		t.Fatal(err)
	}
}
