package http1

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"syscall"
	"testing"
	"time"
)

// carrier is a server before a backend that changes, which tells how exchanges ended.
type carrier struct {
	rig
	patience time.Duration
	ends     chan error
}

func startCarrier(t *testing.T, patience time.Duration) *carrier {
	t.Helper()
	c := &carrier{patience: patience, ends: make(chan error, 10)}
	server := NewServer(Config{
		Handler: c, Limits: DefaultLimits(), Header: time.Minute, Idle: time.Minute, Log: slog.New(slog.DiscardHandler),
	})
	listener := listen(t)
	c.addr = listener.Addr().String()
	var serving sync.WaitGroup
	serving.Go(func() { server.Serve(listener) })
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		server.Shutdown(ctx)
		serving.Wait()
	})
	return c
}

// Handle implements Handler.
func (c *carrier) Handle(x *Exchange) {
	err := x.Forward(context.Background(), c.backend.Load(), Patience{Try: c.patience, Progress: c.patience})
	if err != nil && x.Status() == 0 {
		x.Refuse(http.StatusBadGateway, "")
	}
	c.ends <- err
}

// dialNarrow connects with a window that takes little at once.
func (c *carrier) dialNarrow(t *testing.T) net.Conn {
	t.Helper()
	dialer := net.Dialer{Control: func(_, _ string, raw syscall.RawConn) error {
		return raw.Control(func(fd uintptr) {
			syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, 6<<10)
			syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_MAXSEG, 1400)
		})
	}}
	conn, err := dialer.Dial("tcp", c.addr)
	if err != nil {
		t.Fatal(err)
	}
	conn.SetDeadline(time.Now().Add(time.Minute))
	t.Cleanup(func() { conn.Close() })
	return conn
}

// untilTaken waits until the other end has all that was sent.
func untilTaken(t testing.TB, conn net.Conn) {
	t.Helper()
	deadline := time.After(time.Minute)
	for raw := rawConn(conn); queued(raw) > 0; {
		select {
		case <-deadline:
			t.Error("not within a minute: what was sent is taken")
			return
		case <-time.After(time.Millisecond):
		}
	}
}

// A backend may break off behind much that the client, which is slower, does not have yet.
// The client gets all of that before the end, unless it would take that for the answer's.
func TestCutAnswerIsDelivered(t *testing.T) {
	part := bytes.Repeat([]byte("0123456789abcde\n"), 3<<20/16)
	chunk := append(fmt.Appendf(nil, "%x\r\n", len(part)), part...)
	const ok = "HTTP/1.1 200 OK\r\n"
	ends := map[string]func(net.Conn){
		"close": func(conn net.Conn) { conn.Close() },
		"reset": func(conn net.Conn) { untilTaken(t, conn); reset(conn) },
	}
	for name, test := range map[string]struct {
		client, head string
		body         []byte
		ends         []string
		want         error
	}{
		"length":                        {"1.1", "Content-Length: 5000000\r\n", part, []string{"close", "reset"}, io.ErrUnexpectedEOF},
		"length, HTTP/1.0":              {"1.0", "Content-Length: 5000000\r\n", part, []string{"close", "reset"}, io.ErrUnexpectedEOF},
		"chunks":                        {"1.1", "Transfer-Encoding: chunked\r\n", chunk, []string{"close", "reset"}, io.ErrUnexpectedEOF},
		"bad chunk":                     {"1.1", "Transfer-Encoding: chunked\r\n", append(bytes.Clone(chunk), "\r\nxyz\r\n"...), []string{"close"}, io.ErrUnexpectedEOF},
		"until close":                   {"1.1", "", part, []string{"reset"}, io.ErrUnexpectedEOF},
		"until close to HTTP/1.0":       {"1.0", "", part, []string{"reset"}, syscall.ECONNRESET},
		"chunks to HTTP/1.0":            {"1.0", "Transfer-Encoding: chunked\r\n", chunk, []string{"close", "reset"}, syscall.ECONNRESET},
		"bad chunk to HTTP/1.0":         {"1.0", "Transfer-Encoding: chunked\r\n", append(bytes.Clone(chunk), "\r\nxyz\r\n"...), []string{"close"}, syscall.ECONNRESET},
		"length, nothing more is asked": {"ended", "Content-Length: 5000000\r\n", part, []string{"close", "reset"}, io.ErrUnexpectedEOF},
		"length, and more is asked":     {"more", "Content-Length: 5000000\r\n", part, []string{"close", "reset"}, io.ErrUnexpectedEOF},
	} {
		for _, end := range test.ends {
			t.Run(name+"/"+end, func(t *testing.T) {
				c := startCarrier(t, time.Minute)
				asked := make(chan struct{})
				finish := c.use(t, func(conn net.Conn, _ int) {
					conn.SetDeadline(time.Now().Add(time.Minute))
					if _, err := http.ReadRequest(bufio.NewReader(conn)); err != nil {
						return
					}
					io.WriteString(conn, ok+test.head+"\r\n")
					<-asked
					conn.Write(test.body)
					ends[end](conn)
				})
				defer finish()
				conn := c.dialNarrow(t)
				version := "1.1"
				if test.client == "1.0" {
					version = "1.0"
				}
				fmt.Fprintf(conn, "GET / HTTP/%s\r\nHost: a\r\n\r\n", version)
				res, err := http.ReadResponse(bufio.NewReader(conn), nil)
				if err != nil {
					t.Fatal(err)
				}
				switch test.client {
				case "ended":
					conn.(*net.TCPConn).CloseWrite()
				case "more":
					io.WriteString(conn, "GET /more HTTP/1.1\r\nHost: a\r\n\r\n")
					untilTaken(t, conn)
				}
				close(asked)
				got, err := io.ReadAll(res.Body)
				if !errors.Is(err, test.want) {
					t.Errorf("got %v, want %v", err, test.want)
				}
				if test.want == io.ErrUnexpectedEOF && !bytes.Equal(got, part) {
					t.Errorf("got %d bytes, want all %d that the backend sent", len(got), len(part))
				}
				if end := <-c.ends; !errors.Is(end, ErrCut) {
					t.Errorf("the exchange ended with %v, want %v", end, ErrCut)
				}
			})
		}
	}
}

// An exchange is laid to the end that broke, also if its client has sent its last byte.
func TestBreakIsLaidToWhoBroke(t *testing.T) {
	for name, test := range map[string]struct {
		ends          bool // the client, with its request
		client        bool // breaks, and not the backend
		want, wantNot error
	}{
		"the backend":                     {false, false, ErrCut, ErrClientLeft},
		"the backend, nothing more comes": {true, false, ErrCut, ErrClientLeft},
		"the client":                      {false, true, ErrClientLeft, ErrCut},
		"the client, after its last byte": {true, true, ErrClientLeft, ErrCut},
	} {
		t.Run(name, func(t *testing.T) {
			c := startCarrier(t, time.Minute)
			reading := make(chan struct{})
			finish := c.use(t, func(conn net.Conn, _ int) {
				conn.SetDeadline(time.Now().Add(time.Minute))
				if _, err := http.ReadRequest(bufio.NewReader(conn)); err != nil {
					return
				}
				io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n")
				<-reading
				if test.client {
					io.Copy(conn, io.LimitReader(zeros{}, 100_000_000))
				} else {
					conn.Write(make([]byte, 1<<20))
					reset(conn)
				}
			})
			conn := c.dialNarrow(t)
			io.WriteString(conn, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
			if test.ends {
				conn.(*net.TCPConn).CloseWrite()
			}
			in := bufio.NewReader(conn)
			if _, err := http.ReadResponse(in, nil); err != nil {
				t.Fatal(err)
			}
			close(reading)
			if test.client {
				io.CopyN(io.Discard, in, 1<<20)
				reset(conn)
			} else {
				io.Copy(io.Discard, in)
			}
			if err := <-c.ends; !errors.Is(err, test.want) || errors.Is(err, test.wantNot) {
				t.Errorf("the exchange ended with %v, want %v", err, test.want)
			}
			finish()
		})
	}
}

// zeros is read without end.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}
