package admin

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

func TestListenErrors(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for _, test := range []struct{ addr, want string }{
		{taken.Addr().String(), "cannot listen for admin on " + taken.Addr().String() + ": address already in use; stop the other process or choose another with -admin"},
		{"8404", "cannot listen for admin on 8404: address 8404: missing port in address; give host:port with -admin"},
		{"192.0.2.1:0", "cannot listen for admin on 192.0.2.1:0: cannot assign requested address; choose an address of this machine with -admin"},
	} {
		_, err := New(Config{Cluster: newFakeCluster()}).Listen(test.addr)
		if err == nil || err.Error() != test.want {
			t.Errorf("got  %v\nwant %s", err, test.want)
		}
	}
	_, err = New(Config{Cluster: newFakeCluster()}).Listen(taken.Addr().String())
	if !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("got %v, want it to wrap EADDRINUSE", err)
	}
}

func TestShutdownWithoutListen(t *testing.T) {
	if err := New(Config{Cluster: newFakeCluster()}).Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestShutdownCutsOffWhatDoesNotEnd(t *testing.T) {
	c := newFakeCluster()
	c.hang = make(chan struct{})
	s := New(Config{Cluster: c, Local: c.Local, Observed: c.Observed, Ready: c.Ready})
	addr, err := s.Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("tcp", addr.String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte("GET /cluster HTTP/1.1\r\nHost: localhost\r\n\r\n")); err != nil {
		t.Fatal(err)
	}
	<-c.hang // the request is under way
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	begun := time.Now()
	if err := s.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want deadline exceeded", err)
	}
	if took := time.Since(begun); took > statusTimeout/2 {
		t.Errorf("shutdown took %v, want about 50ms", took)
	}
}

func TestProbes(t *testing.T) {
	c := webPool(t)
	addr := serve(t, c, Config{Version: "v1.2.3"})
	check := func(path string, status int, in string) {
		t.Helper()
		if got := ask(t, "GET", "http://"+addr+path, ""); got.status != status || !strings.Contains(got.body, in) {
			t.Errorf("%s: got %d %q, want %d and %q", path, got.status, got.body, status, in)
		}
	}
	check("/livez", 200, "ok")
	check("/livez?verbose", 200, "v1.2.3")
	check("/readyz", 200, "ok")
	check("/readyz?verbose", 200, "view 4 "+c.View().Digest())
	c.change(func() { c.notReady = errTest })
	check("/livez", 200, "ok")
	check("/readyz", 503, "not ready: test failure")
	check("/readyz?verbose", 503, "not ready: test failure")
}

func TestLogTellsWritesAndNoReads(t *testing.T) {
	var log lockedBuffer
	addr := serve(t, webPool(t), Config{Log: slog.New(slog.NewTextHandler(&log, nil))})
	ask(t, "GET", "http://"+addr+"/v1/pools", "")
	ask(t, "DELETE", "http://"+addr+"/v1/pools/nothing", "")
	ask(t, "DELETE", "http://"+addr+"/v1/pools/idle", "")
	got := log.String()
	if strings.Count(got, "\n") != 1 || !strings.Contains(got, "method=DELETE path=/v1/pools/idle index=6") {
		t.Errorf("log: got %q, want one line on the deletion that happened", got)
	}
}

func TestRawRequests(t *testing.T) {
	addr := serve(t, webPool(t), Config{})
	for _, test := range []struct{ name, request, want string }{
		{"old client without a host", "GET /livez HTTP/1.0\r\n\r\n", "HTTP/1.0 200"},
		{"old client reads the cluster", "GET /cluster HTTP/1.0\r\n\r\n", "HTTP/1.0 200"},
		{"no host", "GET /cluster HTTP/1.1\r\n\r\n", "HTTP/1.1 400"},
		{"large header", "GET /cluster HTTP/1.1\r\nHost: localhost\r\nX: " + strings.Repeat("x", 32<<10) + "\r\n\r\n", "HTTP/1.1 431"},
		{"connect", "CONNECT localhost:80 HTTP/1.1\r\nHost: localhost\r\n\r\n", "HTTP/1.1 404"},
		{"path that climbs", "DELETE /v1/../v1/pools/idle HTTP/1.1\r\nHost: localhost\r\n\r\n", "HTTP/1.1 307"},
		{"two lengths", "POST /v1/leave HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", "HTTP/1.1 400"},
		{"not HTTP", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", "HTTP/1.1 400"},
	} {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		conn.SetDeadline(time.Now().Add(5 * time.Second))
		if _, err := conn.Write([]byte(test.request)); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, len(test.want))
		if _, err := conn.Read(got); err != nil || string(got) != test.want {
			t.Errorf("%s: got %q, %v, want %q", test.name, got, err, test.want)
		}
		conn.Close()
	}
}

// lockedBuffer is a bytes.Buffer that may be written and read concurrently.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}
