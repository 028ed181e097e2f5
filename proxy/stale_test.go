package proxy

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"lbnode/state"
)

// racer is a backend that answers the first request of each connection, and ends the
// connection just as the second one comes.
type racer struct {
	state.Backend
	asked atomic.Int64
}

func startRacer(t *testing.T, name string, end func(net.Conn)) *racer {
	t.Helper()
	r := &racer{}
	addr := serveConns(t, func(conn net.Conn) {
		in := bufio.NewReader(conn)
		for first := true; ; first = false {
			head := readHead(in)
			if head == "" {
				return
			}
			r.asked.Add(1)
			if !first {
				end(conn)
				return
			}
			if strings.Contains(head, "Content-Length: 5\r\n") {
				io.CopyN(io.Discard, in, 5)
			}
			io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX-Backend: "+name+"\r\n\r\n")
		}
	})
	r.Backend = backendAt(name, addr)
	return r
}

// serveConns gives each connection to a listener of its own to serve, and closes it then.
func serveConns(t *testing.T, serve func(net.Conn)) net.Addr {
	t.Helper()
	listener := listenAlone(t)
	var running sync.WaitGroup
	running.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			running.Go(func() {
				defer conn.Close()
				conn.SetDeadline(time.Now().Add(patience))
				serve(conn)
			})
		}
	})
	t.Cleanup(func() { listener.Close(); running.Wait() })
	return listener.Addr()
}

// ends are ways in which a connection ends, of which an earlier request knew nothing.
var ends = map[string]func(net.Conn){
	"closed": func(conn net.Conn) { conn.Close() },
	"reset":  reset,
	"408": func(conn net.Conn) {
		io.WriteString(conn, "HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
	},
}

func do(t *testing.T, web *http.Client, method, url, body string) *http.Response {
	t.Helper()
	req, err := http.NewRequest(method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	res, err := web.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	io.Copy(io.Discard, res.Body)
	res.Body.Close()
	return res
}

// A backend ends an idle connection just as a request comes over it. What may be sent twice
// goes once more, over a new connection, also where all idle connections are as stale.
func TestStaleConnectionCostsNoRequest(t *testing.T) {
	for _, test := range []struct {
		method, body string
		again        bool
	}{
		{"GET", "", true}, {"HEAD", "", true}, {"DELETE", "", true}, {"PUT", "hello", true},
		{"POST", "", false}, {"POST", "hello", false}, {"PATCH", "hello", false},
	} {
		for how, end := range ends {
			for _, backends := range []int{1, 3} {
				t.Run(test.method+" "+test.body+" "+how+" of "+string(rune('0'+backends)), func(t *testing.T) {
					var all []*racer
					pool := poolOf(state.DefaultPool)
					pool.Limits.Connections, pool.Limits.Failures = 1, 1
					for i := range backends {
						r := startRacer(t, string(rune('a'+i)), end)
						all, pool.Backends = append(all, r), append(pool.Backends, new(r.Backend))
					}
					counts := newTally()
					p, url := startProxyWith(t, Config{Recorder: counts}, viewOf(nil, pool))
					web := client(t)
					for range backends { // so that each has an idle connection
						mustGet(t, web, url, http.StatusOK)
					}
					want, asked := http.StatusOK, backends+2
					if !test.again {
						want, asked = http.StatusBadGateway, backends+1
						if how == "408" {
							want = http.StatusRequestTimeout
						}
					}
					if got := do(t, web, test.method, url, test.body).StatusCode; got != want {
						t.Errorf("got %d, want %d", got, want)
					}
					got := 0
					for _, r := range all {
						got += int(r.asked.Load())
					}
					if got != asked {
						t.Errorf("got %d requests at the backends, want %d", got, asked)
					}
					if got := counts.get("retry default stale"); got != asked-backends-1 {
						t.Errorf("got %d retries counted for a stale connection, want %d", got, asked-backends-1)
					}
					if got := p.OpenCircuits(); test.again && len(got) > 0 {
						t.Errorf("got the circuits %v open for a connection that was stale", got)
					}
				})
			}
		}
	}
}

// A client that is kept at a backend stays there: that is well, only the connection was not.
func TestStaleConnectionMovesNoStickyClient(t *testing.T) {
	pool := poolOf(state.DefaultPool)
	for _, name := range []string{"a", "b", "c"} {
		pool.Backends = append(pool.Backends, new(startRacer(t, name, reset).Backend))
	}
	pool.Sticky.Cookie = "at"
	_, url := startProxyWith(t, Config{CookieKeys: func() [][]byte { return [][]byte{make([]byte, 32)} }}, viewOf(nil, pool))
	web := client(t)
	first := do(t, web, "GET", url, "")
	for range 3 {
		req, _ := http.NewRequest("GET", url, nil)
		req.AddCookie(first.Cookies()[0])
		res, err := web.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if got, want := res.Header.Get("X-Backend"), first.Header.Get("X-Backend"); res.StatusCode != http.StatusOK || got != want {
			t.Errorf("got %d of %s, want 200 of %s", res.StatusCode, got, want)
		}
	}
}

// One that has ended before anything was sent costs nothing, whatever the request.
func TestEndedConnectionIsNotUsed(t *testing.T) {
	b := startServer(t, "b", nil)
	_, url := startProxy(t, Config{}, b.backend())
	web := client(t)
	mustGet(t, web, url, http.StatusOK)
	b.CloseClientConnections()
	if got := do(t, web, "POST", url, "hello").StatusCode; got != http.StatusOK || b.hits.Load() != 2 {
		t.Errorf("got %d and %d requests at the backend, want 200 and 2", got, b.hits.Load())
	}
}
