package admin

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"runtime"
	"testing"
	"time"
)

// patience is far more than anything here takes.
const patience = 30 * time.Second

// connect opens a connection and sends something over it.
func connect(t *testing.T, addr, send string) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(patience))
	io.WriteString(conn, send) // may fail: it may be closed to make room
	return conn
}

// Connections over which nothing is asked that may be answered are bounded, whatever
// they are used for, and keep nobody out; reads that wait are not displaced by them.
func TestConnectionsOfStrangersAreBounded(t *testing.T) {
	t.Parallel()
	const token, most, idle = "0123456789abcdef", 48, 12
	c := newFakeCluster()
	s := New(Config{Cluster: c, Local: c.Local, Observed: c.Observed, Ready: c.Ready, Token: token, MaxConnections: most})
	listening, err := s.Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Shutdown(t.Context())
	addr := listening.String()
	ours := "Host: x\r\nAuthorization: Bearer " + token + "\r\n\r\n"
	waiting := connect(t, addr, "GET /v1/pools?index=4&wait=5s HTTP/1.1\r\n"+ours)
	for began := time.Now(); len(s.blocked) == 0; runtime.Gosched() { // until then it is a stranger's
		if time.Since(began) > patience {
			t.Fatal("the read does not begin to wait")
		}
	}
	ended := make(chan struct{}, 1000)
	const strangers = 200
	for i := range strangers {
		conn := connect(t, addr, []string{
			"", "GET /clu", "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n", "GET /cluster HTTP/1.1\r\nHost: x\r\n\r\n",
			"GET /v1/pools HTTP/1.1\r\n" + ours,
		}[i%5])
		go func() {
			io.Copy(io.Discard, conn)
			ended <- struct{}{}
		}()
	}
	for i := range strangers - idle/2 {
		select {
		case <-ended:
		case <-time.After(patience):
			t.Fatalf("%d connections are still open, want at most %d", strangers-i, idle/2)
		}
	}
	if a := ask(t, "GET", "http://"+addr+"/v1/pools", "", "Authorization", "Bearer "+token); a.status != http.StatusOK {
		t.Errorf("got %d %s, want an answer to who has the token", a.status, a.body)
	}
	response, err := http.ReadResponse(bufio.NewReader(waiting), nil)
	if err != nil || response.StatusCode != http.StatusOK {
		t.Errorf("got %v, %v for a read that waited, want an answer", response, err)
	}
}

// Requests that may be answered are bounded too; one too many is told so.
func TestRequestsAreBounded(t *testing.T) {
	t.Parallel()
	c := newFakeCluster()
	c.hang = make(chan struct{})
	addr := serve(t, c, Config{MaxConnections: 8})
	for range 6 {
		conn := connect(t, addr, "GET /cluster HTTP/1.1\r\nHost: localhost\r\n\r\n")
		<-c.hang // it is under way
		defer conn.Close()
	}
	a := ask(t, "GET", "http://"+addr+"/v1/pools", "")
	if p := a.problem(t); a.status != http.StatusServiceUnavailable || p.Hint == "" {
		t.Errorf("got %d %s, want 503 and what to do", a.status, a.body)
	}
	if a := ask(t, "GET", "http://"+addr+"/livez", ""); a.status != http.StatusOK {
		t.Errorf("got %d from /livez, want 200 all the same", a.status)
	}
}
