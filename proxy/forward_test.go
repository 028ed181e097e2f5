package proxy

import (
	"bufio"
	"context"
	"crypto/x509"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"lbnode/state"
)

// withTimeout gives a view whose requests may be without progress for so long.
func withTimeout(limit time.Duration, backends ...state.Backend) *state.View {
	pool := poolOf(state.DefaultPool, backends...)
	pool.Timeouts.Request = state.Duration(limit)
	return viewOf(nil, pool)
}

func TestStreamsDown(t *testing.T) {
	next := make(chan string)
	b := startServer(t, "sse", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		for event := range next {
			io.WriteString(w, event)
			w.(http.Flusher).Flush()
		}
	})
	_, url := startProxy(t, Config{}, b.backend())
	go func() { next <- "data: 0\n" }()
	res, err := client(t).Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	lines := bufio.NewReader(res.Body)
	for i, want := range []string{"data: 0\n", "data: 1\n", "data: 2\n"} {
		if i > 0 {
			next <- want // the backend is not asked for more before the client has the last one
		}
		if got, err := lines.ReadString('\n'); got != want {
			t.Fatalf("got %q, %v; want %q", got, err, want)
		}
	}
	close(next)
	if rest, err := io.ReadAll(lines); len(rest) > 0 || err != nil {
		t.Errorf("got %q, %v; want a clean end", rest, err)
	}
}

func TestStreamsBothWays(t *testing.T) {
	b := startServer(t, "echo", func(w http.ResponseWriter, r *http.Request) {
		http.NewResponseController(w).EnableFullDuplex()
		buffer := make([]byte, 100)
		for {
			n, err := r.Body.Read(buffer)
			w.Write(buffer[:n])
			w.(http.Flusher).Flush()
			if err != nil {
				return
			}
		}
	})
	_, url := startProxy(t, Config{}, b.backend())
	body, up := io.Pipe()
	go up.Write([]byte("ping 0\n"))
	res, err := client(t).Post(url, "", body)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	lines := bufio.NewReader(res.Body)
	for _, want := range []string{"ping 0\n", "ping 1\n", "ping 2\n"} {
		if got, err := lines.ReadString('\n'); got != want {
			t.Fatalf("got %q, %v; want %q", got, err, want)
		}
		if want != "ping 2\n" {
			up.Write([]byte(strings.Replace("ping N\n", "N", string(want[5]+1), 1)))
		}
	}
	up.Close()
	if rest, err := io.ReadAll(lines); len(rest) > 0 || err != nil {
		t.Errorf("got %q, %v; want a clean end", rest, err)
	}
}

func TestLargeBodies(t *testing.T) {
	const size = 32 << 20
	b := startServer(t, "echo", func(w http.ResponseWriter, r *http.Request) {
		n, _ := io.Copy(io.Discard, r.Body)
		io.CopyN(w, zeros{}, n)
	})
	_, url := startProxy(t, Config{}, b.backend())
	res, err := client(t).Post(url, "", io.LimitReader(zeros{}, size))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if got, err := io.Copy(io.Discard, res.Body); got != size || err != nil {
		t.Errorf("got %d bytes, %v; want %d", got, err, size)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// An upload must flow before it has ended, or it would have to fit in memory.
func TestUploadIsNotHeldBack(t *testing.T) {
	arrived := make(chan string, 1)
	b := startServer(t, "b", func(_ http.ResponseWriter, r *http.Request) {
		buffer := make([]byte, 5)
		io.ReadFull(r.Body, buffer)
		arrived <- string(buffer)
		io.Copy(io.Discard, r.Body)
	})
	_, url := startProxy(t, Config{}, b.backend())
	body, up := io.Pipe()
	go func() {
		io.WriteString(up, "first")
		if got := <-arrived; got != "first" {
			t.Errorf("the backend got %q, want first", got)
		}
		up.Close()
	}()
	res, err := client(t).Post(url, "", body)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
}

func TestUpgrade(t *testing.T) {
	b, _ := startRaw(t, "ws", func(conn net.Conn, head string) {
		io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
		io.Copy(conn, conn)
	})
	counts := newTally()
	const limit = 50 * time.Millisecond
	p, url := startProxyWith(t, Config{Recorder: counts}, withTimeout(limit, b))
	conn := dial(t, url)
	io.WriteString(conn, "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
	r := bufio.NewReader(conn)
	if head := readHead(r); !strings.HasPrefix(head, "HTTP/1.1 101") {
		t.Fatalf("got %q, want 101", head)
	}
	for range 3 {
		<-time.After(limit) // a silent WebSocket is not a stalled request
		io.WriteString(conn, "ping\n")
		if got, err := r.ReadString('\n'); got != "ping\n" {
			t.Fatalf("got %q, %v; want the echo", got, err)
		}
	}
	if got := p.InFlight()["id-ws"]; got != 1 {
		t.Errorf("got %d in flight, want 1", got)
	}
	conn.Close()
	eventually(t, "the exchange ends with the client", func() bool { return p.server.Active() == 0 })
	eventually(t, "it is counted", func() bool {
		return counts.get("request default GET HTTP/1.1 101") == 1 && counts.get("connections http") == 0
	})
}

func TestUpgradeThatNobodyAskedFor(t *testing.T) {
	tests := map[string]struct{ ask, answer string }{
		"not asked":        {"", "Connection: Upgrade\r\nUpgrade: websocket\r\n"},
		"not asked, bare":  {"", ""},
		"another protocol": {"Connection: Upgrade\r\nUpgrade: websocket\r\n", "Connection: Upgrade\r\nUpgrade: h2c\r\n"},
		"no protocol":      {"Connection: Upgrade\r\nUpgrade: websocket\r\n", ""},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			b, hits := startRaw(t, "b", func(conn net.Conn, _ string) {
				io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\n"+test.answer+"\r\n")
			})
			other := startServer(t, "other", nil)
			_, url := startProxy(t, Config{}, b, other.backend())
			got := talk(t, url, "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"+test.ask+"\r\n")
			if !strings.HasPrefix(got, "HTTP/1.1 502") || hits.Load() != 1 || other.hits.Load() != 0 {
				t.Errorf("got %q, sent %d and %d times; want 502 and once", got, hits.Load(), other.hits.Load())
			}
		})
	}
}

func TestSlowButProgressingLives(t *testing.T) {
	t.Parallel()
	const limit, steps = 300 * time.Millisecond, 8
	b := startServer(t, "slow", func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Length", "8")
		for range steps {
			io.WriteString(w, "x")
			w.(http.Flusher).Flush()
			<-time.After(limit / 3)
		}
	})
	_, url := startProxyWith(t, Config{}, withTimeout(limit, b.backend()))
	body, up := io.Pipe()
	go func() {
		for range steps {
			io.WriteString(up, "y")
			<-time.After(limit / 3)
		}
		up.Close()
	}()
	res, err := client(t).Post(url, "", body)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if got, err := io.ReadAll(res.Body); res.StatusCode != http.StatusOK || len(got) != steps || err != nil {
		t.Errorf("got %d %q, %v; want 200 and %d bytes", res.StatusCode, got, err, steps)
	}
}

func TestStalledExchanges(t *testing.T) {
	t.Parallel()
	const head = "HTTP/1.1 200 OK\r\nDate: then\r\nContent-Length: 10\r\n\r\nhalf"
	hang := func(conn net.Conn, _ string) { io.Copy(io.Discard, conn) }
	tests := map[string]struct {
		backend    func(conn net.Conn, head string)
		send, want string
	}{
		"no answer":              {hang, "GET / HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP/1.1 504"},
		"no answer after a body": {hang, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi", "HTTP/1.1 504"},
		"no end of the body":     {hang, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 20\r\n\r\nhi", "HTTP/1.1 408"},
		"half an answer": {func(conn net.Conn, _ string) { io.WriteString(conn, head); io.Copy(io.Discard, conn) },
			"GET / HTTP/1.1\r\nHost: a\r\n\r\n", head},
		"endless interim answers": {func(conn net.Conn, _ string) {
			for _, err := error(nil), error(nil); err == nil; <-time.After(10 * time.Millisecond) {
				_, err = io.WriteString(conn, "HTTP/1.1 103 Early Hints\r\n\r\n")
			}
		}, "GET / HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP/1.1 103"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b, _ := startRaw(t, "b", test.backend)
			p, url := startProxyWith(t, Config{}, withTimeout(100*time.Millisecond, b))
			began := time.Now()
			got := talk(t, url, test.send) // reads until the proxy closes
			if !strings.HasPrefix(got, test.want) || test.want == head && got != head {
				t.Errorf("got %q, want %s", got, test.want)
			}
			if took := time.Since(began); took > 2*time.Second {
				t.Errorf("took %s, want little more than the timeout", took)
			}
			eventually(t, "the exchange is over", func() bool { return p.server.Active() == 0 })
		})
	}
}

func TestClientThatDoesNotReadIsCut(t *testing.T) {
	t.Parallel()
	b := startServer(t, "b", func(w http.ResponseWriter, _ *http.Request) { io.Copy(w, zeros{}) })
	p, url := startProxyWith(t, Config{}, withTimeout(100*time.Millisecond, b.backend()))
	io.WriteString(dial(t, url), "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	eventually(t, "the exchange begins", func() bool { return p.server.Active() == 1 })
	eventually(t, "the exchange is cut", func() bool { return p.server.Active() == 0 })
}

func TestAnswerCutShortNeverEndsCleanly(t *testing.T) {
	tests := map[string]func(conn net.Conn, _ string){
		"length": func(conn net.Conn, _ string) {
			io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
		},
		"length, reset": func(conn net.Conn, _ string) {
			io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
			reset(conn)
		},
		"chunk": func(conn net.Conn, _ string) {
			io.WriteString(conn, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n8\r\nhalf")
		},
		"last chunk": func(conn net.Conn, _ string) {
			io.WriteString(conn, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n")
		},
	}
	for name, backend := range tests {
		t.Run(name, func(t *testing.T) {
			b, hits := startRaw(t, "b", backend)
			other := startServer(t, "other", nil)
			_, url := startProxy(t, Config{}, b, other.backend())
			res, err := client(t).Get(url)
			if err == nil {
				var body []byte
				body, err = io.ReadAll(res.Body)
				res.Body.Close()
				if err == nil {
					t.Errorf("got %d %q and a clean end, want an error", res.StatusCode, body)
				}
			}
			if hits.Load() != 1 || other.hits.Load() != 0 {
				t.Errorf("sent %d and %d times, want once", hits.Load(), other.hits.Load())
			}
		})
	}
}

func TestBrokenRequestBody(t *testing.T) {
	tests := map[string]struct{ send, want string }{
		"bad chunk":       {"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "HTTP/1.1 400"},
		"bad later chunk": {"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\nzz\r\n", "HTTP/1.1 400"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			b := startServer(t, "b", nil)
			var suspected atomic.Bool
			_, url := startProxy(t, Config{Suspect: func(string) { suspected.Store(true) }}, b.backend())
			if got := talk(t, url, test.send); !strings.HasPrefix(got, test.want) || suspected.Load() {
				t.Errorf("got %q, suspected %v; want %s and no suspicion", got, suspected.Load(), test.want)
			}
		})
	}
}

// An answer before the end of the upload: the client gets it, and what is left of
// the upload is not taken for another request.
func TestEarlyAnswer(t *testing.T) {
	t.Parallel()
	b, hits := startRaw(t, "b", func(conn net.Conn, _ string) {
		io.WriteString(conn, "HTTP/1.1 413 Content Too Large\r\nContent-Length: 2\r\n\r\nno")
		io.Copy(io.Discard, conn)
	})
	_, url := startProxy(t, Config{}, b)
	conn := dial(t, url)
	io.WriteString(conn, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nbegin")
	r := bufio.NewReader(conn)
	res, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatal(err)
	}
	if body, err := io.ReadAll(res.Body); res.StatusCode != 413 || string(body) != "no" || err != nil {
		t.Errorf("got %d %q, %v; want 413", res.StatusCode, body, err)
	}
	io.WriteString(conn, "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n")
	if rest, _ := io.ReadAll(r); len(rest) > 0 || hits.Load() != 1 {
		t.Errorf("got %q and %d requests at the backend, want the connection closed and 1", rest, hits.Load())
	}
}

func TestExpectContinue(t *testing.T) {
	b := startServer(t, "b", func(w http.ResponseWriter, r *http.Request) { io.Copy(w, r.Body) })
	_, url := startProxy(t, Config{}, refusing(t, "gone"), b.backend())
	conn := dial(t, url)
	io.WriteString(conn, "POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n")
	r := bufio.NewReader(conn)
	if head := readHead(r); !strings.HasPrefix(head, "HTTP/1.1 100") {
		t.Fatalf("got %q, want 100", head)
	}
	io.WriteString(conn, "hello")
	answer, _ := io.ReadAll(r)
	if got := string(answer); !strings.HasPrefix(got, "HTTP/1.1 200") || !strings.Contains(got, "hello") {
		t.Errorf("got %q, want one final answer with the body", got)
	}
	if got := talk(t, url, "GET / HTTP/1.1\r\nHost: a\r\nExpect: magic\r\n\r\n"); !strings.HasPrefix(got, "HTTP/1.1 417") {
		t.Errorf("got %q for an unknown expectation, want 417", got)
	}
}

func TestClientThatLeavesCancelsTheBackend(t *testing.T) {
	entered, left := make(chan bool, 1), make(chan bool, 1)
	b := startServer(t, "b", func(_ http.ResponseWriter, r *http.Request) {
		entered <- true
		<-r.Context().Done()
		left <- true
	})
	counts := newTally()
	_, url := startProxy(t, Config{Recorder: counts}, b.backend())
	ctx, cancel := context.WithCancel(t.Context())
	req, _ := http.NewRequestWithContext(ctx, "GET", url, nil)
	go func() { <-entered; cancel() }()
	if res, err := client(t).Do(req); err == nil {
		res.Body.Close()
		t.Error("got an answer, want none")
	}
	select {
	case <-left:
	case <-time.After(patience):
		t.Error("the backend was not told that the client left")
	}
	eventually(t, "it is counted", func() bool { return counts.get("request default GET HTTP/1.1 499") == 1 })
}

func TestHTTPSBackend(t *testing.T) {
	secure := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.Proto) }))
	secure.Config.ErrorLog = log.New(io.Discard, "", 0)
	secure.StartTLS()
	defer secure.Close()
	b := backendAt("secure", secure.Listener.Addr())
	b.Protocol = "https"
	suspects := make(chan string, 1)
	_, url := startProxy(t, Config{Suspect: func(id string) { suspects <- id }}, b)
	mustGet(t, client(t), url, http.StatusBadGateway) // its certificate is not of a known authority
	if got := <-suspects; got != "id-secure" {
		t.Errorf("suspected %s, want id-secure", got)
	}
	p, url := startProxyWith(t, Config{}, nil)
	p.tls.RootCAs = x509.NewCertPool()
	p.tls.RootCAs.AddCert(secure.Certificate())
	p.SetView(viewOf(nil, poolOf(state.DefaultPool, b)))
	if got := mustGet(t, client(t), url, http.StatusOK); got != "HTTP/1.1" {
		t.Errorf("got %s to the backend, want HTTP/1.1", got)
	}
}

func TestKeepsConnectionsToBackends(t *testing.T) {
	b := startServer(t, "b", nil)
	_, url := startProxy(t, Config{}, b.backend())
	web := client(t)
	for range 50 {
		mustGet(t, web, url, http.StatusOK)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if got := len(b.conns); got > 2 {
		t.Errorf("got %d connections for 50 requests one after the other, want them reused", got)
	}
}

func TestOwnFault(t *testing.T) {
	for number, want := range map[syscall.Errno]bool{
		syscall.EMFILE: true, syscall.EADDRNOTAVAIL: true,
		syscall.ECONNREFUSED: false, syscall.EHOSTUNREACH: false, syscall.ETIMEDOUT: false,
	} {
		err := &net.OpError{Op: "dial", Err: os.NewSyscallError("connect", number)}
		if got := ownFault(err); got != want {
			t.Errorf("%v: got our own fault %v, want %v", err, got, want)
		}
	}
}
