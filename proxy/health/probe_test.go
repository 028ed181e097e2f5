package health

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/pires/go-proxyproto"

	"lbnode/state"
)

// listen serves each connection with handle, once the request's header is read.
func listen(t *testing.T, handle func(conn *net.TCPConn, head string)) *state.Backend {
	t.Helper()
	return listenRaw(t, func(conn net.Conn) { handle(conn.(*net.TCPConn), readHead(conn)) })
}

// listenRaw serves one connection after the other with handle.
func listenRaw(t *testing.T, handle func(conn net.Conn)) *state.Backend {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			handle(conn)
			conn.Close()
		}
	}()
	t.Cleanup(func() { listener.Close(); <-done })
	return backendAt(t, "http", listener.Addr().String())
}

func readHead(conn net.Conn) string {
	var head strings.Builder
	lines := bufio.NewScanner(conn)
	for lines.Scan() && lines.Text() != "" {
		fmt.Fprintln(&head, lines.Text())
	}
	return head.String()
}

// untilClosed waits for the prober to give up.
func untilClosed(conn net.Conn) { io.Copy(io.Discard, conn) }

func backendAt(t *testing.T, protocol, addr string) *state.Backend {
	t.Helper()
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	number, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	return &state.Backend{ID: "1", Name: "web-1", Protocol: protocol, Host: host, Port: number}
}

func checkedBy(kind string, timeout time.Duration) *state.Pool {
	check := state.DefaultHealthCheck()
	check.Type, check.Timeout = kind, state.Duration(timeout)
	return &state.Pool{Settings: state.Settings{HealthCheck: check}}
}

// found is what a probe finds where no agent speaks.
func found(passed, connected bool, reason string) result {
	return result{passed: passed, connected: connected, reason: reason}
}

// plain is a result without the time that an answer took.
func plain(r result) result {
	r.reason = regexp.MustCompile(` in \d+ ms$`).ReplaceAllString(r.reason, " in N ms")
	return r
}

func TestHTTPProbe(t *testing.T) {
	const slow, patient = 100 * time.Millisecond, 5 * time.Second
	for _, test := range []struct {
		name    string
		answer  string
		hang    bool // keep the connection open after the answer
		timeout time.Duration
		passed  bool
		reason  string
	}{
		{"200", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", true, patient, true, "200 OK"},
		{"204", "HTTP/1.1 204 No Content\r\n\r\n", true, patient, true, "204 No Content"},
		{"302 is not followed", "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n", true, patient, true, "302 Found"},
		{"404", "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", true, patient, false, "404 Not Found in N ms"},
		{"500", "HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n", true, patient, false, "500 Internal Server Error in N ms"},
		{"own phrase is not repeated", "HTTP/1.1 299 <script>\r\nContent-Length: 0\r\n\r\n", true, patient, true, "299"},
		{"HTTP/1.0, to the end", "HTTP/1.0 200 OK\r\n\r\nhello", false, patient, true, "200 OK"},
		{"chunked", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", true, patient, true, "200 OK"},
		{"interim answers", strings.Repeat("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n", 9) + "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", true, patient, true, "200 OK"},
		{"101 that nobody asked for", "HTTP/1.1 101 Switching Protocols\r\n\r\n", true, patient, false, "101 Switching Protocols in N ms"},
		{"interim for ever", strings.Repeat("HTTP/1.1 103 Early Hints\r\n\r\n", 5000), true, patient, false, "header over 64 KiB"},
		{"big header", "HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 70_000) + "\r\n\r\n", true, patient, false, "header over 64 KiB"},
		{"big body", "HTTP/1.1 200 OK\r\n\r\n" + strings.Repeat("x", 200_000), true, patient, true, "200 OK"},
		{"big body in small chunks", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + strings.Repeat("1\r\nx\r\n", 40_000), true, patient, true, "200 OK"},
		{"no answer", "", true, slow, false, "timeout after 100ms"},
		{"hangs in the header", "HTTP/1.1 200 OK\r\nX: ", true, slow, false, "timeout after 100ms"},
		{"hangs in the body", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel", true, slow, false, "timeout after 100ms"},
		{"closed without an answer", "", false, patient, false, "connection closed before the end of the answer"},
		{"body cut short", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel", false, patient, false, "connection closed before the end of the answer"},
		{"not HTTP", "220 mail.example.com ESMTP\r\n", false, patient, false, "not an HTTP/1 answer"},
		{"status of two digits", "HTTP/1.1 20 OK\r\n\r\n", false, patient, false, "not an HTTP/1 answer"},
	} {
		t.Run(test.name, func(t *testing.T) {
			b := listen(t, func(conn *net.TCPConn, _ string) {
				io.WriteString(conn, test.answer)
				if test.hang {
					untilClosed(conn)
				}
			})
			got := plain(prober{}.probe(t.Context(), checkedBy("http", test.timeout), b))
			if want := found(test.passed, true, test.reason); got != want {
				t.Errorf("got %+v, want %+v", got, want)
			}
		})
	}
}

func TestProbeRequest(t *testing.T) {
	heads := make(chan string, 1)
	b := listen(t, func(conn *net.TCPConn, head string) {
		heads <- head
		io.WriteString(conn, "HTTP/1.1 204 No Content\r\n\r\n")
	})
	pool := checkedBy("http", 5*time.Second)
	pool.HealthCheck.Path = "//up%2f?deep=1;x=%zz"
	prober{}.probe(t.Context(), pool, b)
	want := "GET //up%2f?deep=1;x=%zz HTTP/1.1\nHost: " + b.Addr() + "\nAccept: */*\nUser-Agent: lbnode-health\nConnection: close\n"
	if got := <-heads; got != want {
		t.Errorf("got request %q, want %q", got, want)
	}
}

func TestProbeReset(t *testing.T) {
	b := listen(t, func(conn *net.TCPConn, _ string) { conn.SetLinger(0) })
	got := prober{}.probe(t.Context(), checkedBy("http", 5*time.Second), b)
	if want := found(false, true, "connection reset by peer"); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestProbeRefused(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b := backendAt(t, "http", listener.Addr().String())
	listener.Close()
	for _, kind := range []string{"http", "tcp"} {
		got := prober{}.probe(t.Context(), checkedBy(kind, 5*time.Second), b)
		if want := (result{reason: "connection refused"}); got != want {
			t.Errorf("%s: got %+v, want %+v", kind, got, want)
		}
	}
}

func TestProbeOfUnknownName(t *testing.T) {
	b := &state.Backend{Protocol: "http", Host: "no-such-host.invalid", Port: 80}
	got := prober{}.probe(t.Context(), checkedBy("http", 5*time.Second), b)
	if got.passed || got.connected || strings.Contains(got.reason, "lookup") {
		t.Errorf("got %+v, want a failed connection and a short reason", got)
	}
}

func TestTCPProbe(t *testing.T) {
	b := listen(t, func(*net.TCPConn, string) {})
	got := prober{}.probe(t.Context(), checkedBy("tcp", 5*time.Second), b)
	if want := found(true, true, "connected"); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestTLSProbe(t *testing.T) {
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "ok") }))
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)
	server.StartTLS()
	defer server.Close()
	roots := x509.NewCertPool()
	roots.AddCert(server.Certificate())
	b := backendAt(t, "https", server.Listener.Addr().String())

	got := prober{tls: &tls.Config{RootCAs: roots}}.probe(t.Context(), checkedBy("http", 5*time.Second), b)
	if want := found(true, true, "200 OK"); got != want {
		t.Errorf("trusted: got %+v, want %+v", got, want)
	}
	got = prober{}.probe(t.Context(), checkedBy("http", 5*time.Second), b)
	if got.passed || got.connected || !strings.Contains(got.reason, "certificate") {
		t.Errorf("not trusted: got %+v, want a failure that names the certificate", got)
	}
}

// A backend that demands a PROXY header is told that the probe is nobody's.
func TestProbeWithProxyHeader(t *testing.T) {
	for protocol, want := range map[string]byte{state.ProxyV1: 1, state.ProxyV2: 2} {
		for _, secure := range []bool{false, true} {
			headers := make(chan *proxyproto.Header, 1)
			server := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
			server.Listener = &proxyproto.Listener{Listener: server.Listener, ValidateHeader: func(h *proxyproto.Header) error {
				headers <- h
				return nil
			}, ConnPolicy: func(proxyproto.ConnPolicyOptions) (proxyproto.Policy, error) { return proxyproto.REQUIRE, nil }}
			b := backendAt(t, "http", server.Listener.Addr().String())
			p := prober{}
			if secure {
				server.StartTLS()
				p.tls = &tls.Config{RootCAs: x509.NewCertPool()}
				p.tls.RootCAs.AddCert(server.Certificate())
				b.Protocol = "https"
			} else {
				server.Start()
			}
			pool := checkedBy("http", 5*time.Second)
			pool.ProxyProtocol = protocol
			got := p.probe(t.Context(), pool, b)
			if want := found(true, true, "200 OK"); got != want {
				t.Errorf("%s, TLS %t: got %+v, want %+v", protocol, secure, got, want)
			}
			if h := <-headers; h.Version != want || !h.Command.IsLocal() {
				t.Errorf("%s, TLS %t: got header %+v, want one of version %d that names nobody", protocol, secure, h, want)
			}
			server.Close()
		}
	}
}

func TestTLSHandshakeTimeout(t *testing.T) {
	b := listen(t, func(conn *net.TCPConn, _ string) { untilClosed(conn) })
	b.Protocol = "https"
	got := prober{}.probe(t.Context(), checkedBy("http", 100*time.Millisecond), b)
	if want := (result{reason: "timeout after 100ms"}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

// TestStopEndsProbesUnderWay stops a Checker whose probe hangs, and counts the
// goroutines that are left.
func TestStopEndsProbesUnderWay(t *testing.T) {
	asked := make(chan struct{}, 1)
	b := listen(t, func(conn *net.TCPConn, _ string) {
		asked <- struct{}{}
		untilClosed(conn)
	})
	before := runtime.NumGoroutine()
	f, l := newFacts(t), newLab()
	c := New(Config{Sink: l, Log: slog.New(slog.DiscardHandler)})
	f.do(&state.AddBackend{Pool: state.DefaultPool, Backend: *b})
	c.Update(f.check(state.HealthCheck{Interval: state.Duration(time.Hour), Timeout: state.Duration(time.Hour)}), all)
	<-asked
	c.Stop()
	c.Stop()
	if got := l.heard(); len(got) != 0 {
		t.Errorf("the sink heard %v of a probe that was cut off, want nothing", got)
	}
	for deadline := time.Now().Add(5 * time.Second); runtime.NumGoroutine() > before; {
		if time.Now().After(deadline) {
			t.Fatalf("got %d goroutines after Stop, want %d", runtime.NumGoroutine(), before)
		}
		runtime.Gosched()
	}
}
