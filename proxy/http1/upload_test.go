package http1

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// A backend that answers at once, and reads on, gets all of the body, and the client the
// answer while it still sends. Then both connections go on.
func TestUploadGoesOnAfterTheAnswer(t *testing.T) {
	const parts, size = 4, 5000
	length := fmt.Sprintf("Content-Length: %d\r\n", parts*size)
	for _, test := range []struct {
		name, fields, answer string
		chunked, stays       bool
	}{
		{"length", length, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", false, true},
		{"chunks", "Transfer-Encoding: chunked\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", true, true},
		{"a refusal", length, "HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nok", false, true},
		{"the client closes", length + "Connection: close\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", false, false},
		{"an old backend", length, "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", false, true},
	} {
		for name, on := range map[string]func(testing.TB) net.Listener{"": listen, " plain": listenPlain} {
			t.Run(test.name+name, func(t *testing.T) {
				h := startHall(t, on(t), Config{})
				got := make(chan string, 2)
				h.backed(t, func(conn *net.TCPConn, in *bufio.Reader) {
					for {
						req, err := http.ReadRequest(in)
						if err != nil {
							return
						}
						io.WriteString(conn, test.answer)
						body, err := io.ReadAll(req.Body)
						got <- fmt.Sprint(string(body), err)
						if strings.HasPrefix(test.answer, "HTTP/1.0") {
							return
						}
					}
				})
				conn, in := h.connect(t)
				tell(t, conn, "POST / HTTP/1.1\r\nHost: a\r\n"+test.fields+"\r\n")
				sent := ""
				for i := range parts {
					text := letters(i, size)
					sent += text
					if test.chunked {
						text = fmt.Sprintf("%x\r\n%s\r\n", size, text)
					}
					tell(t, conn, text)
					if i > 0 {
						continue
					}
					if res, body := readAnswer(t, in); body != "ok" || res.Close == test.stays {
						t.Fatalf("got %q and an end of the connection %t, want ok and %t", body, res.Close, !test.stays)
					}
				}
				if test.chunked {
					tell(t, conn, "0\r\n\r\n")
				}
				if got := <-got; got != sent+"<nil>" {
					t.Fatalf("the backend got %d bytes, want the %d that were sent", len(got), len(sent))
				}
				if account := <-h.ended; account.BytesIn != parts*size || account.BytesOut != 2 {
					t.Errorf("got %d bytes in and %d out, want %d and 2", account.BytesIn, account.BytesOut, parts*size)
				}
				if !test.stays {
					if _, err := in.ReadByte(); err != io.EOF {
						t.Errorf("got %v, want the end", err)
					}
					return
				}
				tell(t, conn, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx")
				if _, body := readAnswer(t, in); body != "ok" {
					t.Errorf("got %q to the next request, want ok", body)
				}
				if got := <-got; got != "x<nil>" {
					t.Errorf("the backend got %q as the next body, want x", got)
				}
			})
		}
	}
}

// The connection to a backend that has read all of a body after its answer serves the next request.
func TestUploadAfterTheAnswerLeavesTheConnection(t *testing.T) {
	h := startHall(t, listen(t), Config{})
	conns := make(chan string, 16)
	h.backed(t, func(conn *net.TCPConn, in *bufio.Reader) {
		conns <- conn.RemoteAddr().String()
		for {
			req, err := http.ReadRequest(in)
			if err != nil {
				return
			}
			io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
			io.Copy(io.Discard, req.Body)
		}
	})
	conn, in := h.connect(t)
	for range 5 {
		tell(t, conn, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 20000\r\n\r\n")
		readAnswer(t, in)
		tell(t, conn, letters(0, 20000))
		<-h.ended
	}
	if got := len(conns); got != 1 {
		t.Errorf("got %d connections to the backend, want 1", got)
	}
}

// The upload ends with the backend: one that closes, or asks to, takes no more.
func TestUploadEndsWithTheBackend(t *testing.T) {
	const upload = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n"
	for _, test := range []struct {
		name, fields, answer string
		closes, told         bool // the backend does; the client is told
	}{
		{"it closes", "", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", true, false},
		{"it asks to", "", "HTTP/1.1 413 Content Too Large\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", false, true},
		{"its end is the answer's", "", "HTTP/1.1 200 OK\r\n\r\nok", true, false},
		{"it did not ask for the body", "Expect: 100-continue\r\n", "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n", false, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			h := startHall(t, listen(t), Config{})
			h.backed(t, func(conn *net.TCPConn, in *bufio.Reader) {
				req, err := http.ReadRequest(in)
				if err != nil {
					return
				}
				io.WriteString(conn, test.answer)
				if !test.closes {
					io.Copy(io.Discard, in)
				}
				io.CopyN(io.Discard, req.Body, 5000) // or it would be a reset
			})
			conn, in := h.connect(t)
			tell(t, conn, upload+test.fields+"\r\n")
			if test.fields == "" {
				tell(t, conn, letters(0, 5000))
			}
			res, _ := readAnswer(t, in)
			if res.Close != test.told {
				t.Errorf("got the end told %t, want %t", res.Close, test.told)
			}
			if _, err := in.ReadByte(); err != io.EOF {
				t.Errorf("got %v, want the connection to end", err)
			}
			<-h.ended
		})
	}
}

// A body that stops after the answer is not waited for longer than others.
func TestUploadAfterTheAnswerMakesProgress(t *testing.T) {
	t.Parallel()
	h := startHall(t, listen(t), Config{})
	h.progress = 2 * time.Second
	h.backed(t, func(conn *net.TCPConn, in *bufio.Reader) {
		http.ReadRequest(in)
		io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
		io.Copy(io.Discard, in)
	})
	conn, in := h.connect(t)
	tell(t, conn, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n"+letters(0, 5000))
	readAnswer(t, in)
	if _, err := in.ReadByte(); err != io.EOF {
		t.Errorf("got %v, want the connection to end", err)
	}
	if account := <-h.ended; account.BytesIn != 5000 {
		t.Errorf("got %d bytes in, want 5000", account.BytesIn)
	}
}

// A body whose framing turns out to be wrong after the answer ends both connections.
func TestUploadThatIsWrongAfterTheAnswer(t *testing.T) {
	h := startHall(t, listen(t), Config{})
	ended := make(chan error, 1)
	h.backed(t, func(conn *net.TCPConn, in *bufio.Reader) {
		req, err := http.ReadRequest(in)
		if err != nil {
			return
		}
		io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
		_, err = io.Copy(io.Discard, req.Body)
		ended <- err
	})
	conn, in := h.connect(t)
	tell(t, conn, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
	readAnswer(t, in)
	tell(t, conn, "x\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n")
	if rest, err := io.ReadAll(in); err != nil || len(rest) > 0 {
		t.Errorf("got %q, %v; want the end", rest, err)
	}
	if err := <-ended; err == nil {
		t.Error("the backend saw a body that ends, want it cut short")
	}
}

// An answer that lasts until the end of the connection is not whole because of a reset, which
// only who sends the body may have heard of.
func TestResetDuringAnUploadIsNoEnd(t *testing.T) {
	h := startHall(t, listen(t), Config{})
	h.backed(t, func(conn *net.TCPConn, in *bufio.Reader) {
		req, err := http.ReadRequest(in)
		if err != nil {
			return
		}
		io.WriteString(conn, "HTTP/1.1 200 OK\r\n\r\nsome")
		io.CopyN(io.Discard, req.Body, 200_000)
		reset(conn)
	})
	for range 100 {
		conn, in := h.connect(t)
		tell(t, conn, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
		wrote := make(chan struct{})
		go func() {
			defer close(wrote)
			for chunk := "8000\r\n" + letters(0, 0x8000) + "\r\n"; ; {
				if _, err := io.WriteString(conn, chunk); err != nil {
					return
				}
			}
		}()
		res, err := http.ReadResponse(in, nil)
		if err == nil {
			_, err = io.Copy(io.Discard, res.Body)
		}
		if err == nil {
			t.Fatal("got an answer that is whole")
		}
		conn.Close()
		<-wrote
		<-h.ended
	}
}

// startPiped begins an upload of a body of ten bytes, all of which the client has sent, to a
// backend that takes only what is read at the other end.
func startPiped(t *testing.T) (x *Exchange, u *upstream, backend net.Conn) {
	t.Helper()
	client, here := net.Pipe()
	there, backend := net.Pipe()
	for _, conn := range []net.Conn{client, here, there, backend} {
		t.Cleanup(func() { conn.Close() })
	}
	limits := DefaultLimits()
	server := &Server{config: Config{Limits: limits}}
	x = &Exchange{session: &session{server: server, conn: here}, out: []byte("POST / HTTP/1.1\r\n\r\n")}
	x.session.in.open(here, smallBuffer)
	x.source.begin(&x.session.in, byCount, 10, &limits)
	u = newUpstream(there, NewBackend(BackendConfig{}))
	x.startUpload(u)
	if _, err := io.ReadFull(backend, make([]byte, len(x.out))); err != nil {
		t.Fatal(err)
	}
	tell(t, client, "0123456789")
	eventually(t, "the upload has all", x.upload.whole.Load)
	return x, u, backend
}

// A backend that gives no answer need not take the last of a body either.
func TestUploadWithoutAnAnswerIsNotWaitedFor(t *testing.T) {
	x, u, _ := startPiped(t)
	ended := make(chan bool, 1)
	go func() { ended <- x.endUpload(u, false) }()
	select {
	case sent := <-ended:
		if sent {
			t.Error("got a body that was sent, want one that was not")
		}
	case <-time.After(wait / 12):
		t.Error("the upload is waited for")
	}
}

// A connection on which an upload was to end at once keeps that time, and serves nobody else.
func TestStoppedUploadLeavesNoConnection(t *testing.T) {
	x, u, backend := startPiped(t)
	go io.Copy(io.Discard, backend)
	<-x.upload.done
	x.upload.whole.Store(false) // as if the last piece had come just now
	if x.endUpload(u, true) {
		t.Error("got a connection that may be used again, want none with a deadline")
	}
}
