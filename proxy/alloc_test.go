package proxy

import (
	"io"
	"net"
	"strings"
	"testing"

	"lbnode/state"
)

// A request allocates nothing, as long as its connections last.
func TestRequestsAllocateNothing(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	b, _ := startRaw(t, "b", func(conn net.Conn, _ string) { answerAll(conn) })
	watched := poolOf(state.DefaultPool, b)
	watched.Limits.Failures, watched.Outlier = 5, state.Outlier{Consecutive: 5, SuccessRate: 10}
	for name, pool := range map[string]*state.Pool{"plain": poolOf(state.DefaultPool, b), "watched": watched} {
		t.Run(name, func(t *testing.T) { allocatesNothing(t, pool) })
	}
}

func allocatesNothing(t *testing.T, pool *state.Pool) {
	_, url := startProxyWith(t, Config{}, viewOf(nil, pool))
	conn := dial(t, url)
	for name, request := range map[string]string{
		"GET":  "GET /path?query HTTP/1.1\r\nHost: a.example\r\nUser-Agent: x\r\nAccept: */*\r\n\r\n",
		"POST": "POST /path HTTP/1.1\r\nHost: a.example\r\nContent-Length: 1000\r\n\r\n" + strings.Repeat("x", 1000),
	} {
		out, in := []byte(request), make([]byte, 4096)
		exchange := func() {
			if _, err := conn.Write(out); err != nil {
				t.Fatal(err)
			}
			if _, err := conn.Read(in); err != nil {
				t.Fatal(err)
			}
		}
		exchange()
		if got := testing.AllocsPerRun(1000, exchange); got > 0 {
			t.Errorf("%s: got %v allocations for each request, want 0", name, got)
		}
	}
}

var answer = []byte("HTTP/1.1 200 OK\r\nDate: then\r\nContent-Length: 5\r\n\r\nhello")

// answerAll answers a request that was read, and each that comes in one piece.
func answerAll(conn net.Conn) {
	in := make([]byte, 16<<10)
	for err := error(nil); err == nil; _, err = conn.Read(in) {
		if _, err := conn.Write(answer); err != nil {
			return
		}
	}
	io.Copy(io.Discard, conn)
}
