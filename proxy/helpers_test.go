package proxy

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"lbnode/state"
	"math/rand/v2"
	"runtime"
)

const patience = 5 * time.Second

// server is a backend that can die at once, like a process that is killed.
type server struct {
	*httptest.Server
	name string
	hits atomic.Int64

	mu    sync.Mutex
	conns map[net.Conn]bool
}

// startServer starts a backend; without a handler it answers with its name.
func startServer(t testing.TB, name string, handler http.HandlerFunc) *server {
	t.Helper()
	s := &server{name: name, conns: map[net.Conn]bool{}}
	s.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.hits.Add(1)
		if handler != nil {
			handler(w, r)
			return
		}
		io.Copy(io.Discard, r.Body)
		io.WriteString(w, name)
	}))
	s.Listener.Close()
	s.Listener = listenAlone(t)
	s.Config.ConnState = func(conn net.Conn, state http.ConnState) {
		s.mu.Lock()
		defer s.mu.Unlock()
		if state == http.StateClosed {
			delete(s.conns, conn)
		} else {
			s.conns[conn] = true
		}
	}
	s.Start()
	t.Cleanup(s.kill)
	return s
}

// listenAlone listens on a loopback address of its own, whose port nobody else gets
// once the listener is closed.
func listenAlone(t testing.TB) net.Listener {
	t.Helper()
	host := "127.0.0.1"
	if runtime.GOOS == "linux" { // where all of 127/8 is there
		host = fmt.Sprintf("127.%d.%d.%d", 1+rand.IntN(254), rand.IntN(256), 1+rand.IntN(254))
	}
	listener, err := net.Listen("tcp", host+":0")
	if err != nil {
		t.Fatal(err)
	}
	return listener
}

// kill closes the listener and resets every connection.
func (s *server) kill() { s.close(reset) }

// end closes the listener and every connection, as the system does for a process
// that had nothing left to read.
func (s *server) end() { s.close(func(conn net.Conn) { conn.Close() }) }

func (s *server) close(each func(net.Conn)) {
	s.Listener.Close()
	s.mu.Lock()
	conns := maps.Clone(s.conns)
	s.mu.Unlock()
	for conn := range conns {
		each(conn)
	}
}

func (s *server) backend() state.Backend { return backendAt(s.name, s.Listener.Addr()) }

func backendAt(name string, addr net.Addr) state.Backend {
	host, port, _ := net.SplitHostPort(addr.String())
	number, _ := strconv.Atoi(port)
	return state.Backend{
		ID: "id-" + name, Name: name, Protocol: "http", Host: host, Port: number,
		Weight: 1, Admin: state.Ready, Health: state.Healthy,
	}
}

// startRaw starts a backend that gives each connection to handle, after the head
// of the first request was read.
func startRaw(t testing.TB, name string, handle func(conn net.Conn, head string)) (state.Backend, *atomic.Int64) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var hits atomic.Int64
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
				head := readHead(bufio.NewReader(conn))
				if head != "" {
					hits.Add(1)
					handle(conn, head)
				}
			})
		}
	})
	t.Cleanup(func() { listener.Close(); running.Wait() })
	return backendAt(name, listener.Addr()), &hits
}

func readHead(r *bufio.Reader) string {
	head := ""
	for {
		line, err := r.ReadString('\n')
		head += line
		if err != nil || line == "\r\n" {
			return head
		}
	}
}

func reset(conn net.Conn) {
	conn.(*net.TCPConn).SetLinger(0)
	conn.Close()
}

// refusing gives a backend at an address where nothing listens.
func refusing(t testing.TB, name string) state.Backend {
	t.Helper()
	listener := listenAlone(t)
	defer listener.Close()
	return backendAt(name, listener.Addr())
}

func poolOf(name string, backends ...state.Backend) *state.Pool {
	return &state.Pool{
		Name: name, Settings: state.Settings{Strategy: state.RoundRobin, HealthCheck: state.DefaultHealthCheck(),
			Timeouts: state.DefaultTimeouts(), WhenAllDown: state.Reject,
		}, Backends: copies(backends),
	}
}

// copies are backends of a pool's own, which may be changed.
func copies[B state.Backend | *state.Backend](backends []B) (list []*state.Backend) {
	for _, b := range backends {
		var made state.Backend
		switch b := any(b).(type) {
		case state.Backend:
			made = b
		case *state.Backend:
			made = *b
		}
		list = append(list, &made)
	}
	return list
}

func viewOf(routes []state.Route, pools ...*state.Pool) *state.View {
	v := state.EmptyView()
	v.Routes, v.Pools = routes, pools
	return v
}

// startProxy starts a proxy that serves the backends as the default pool.
func startProxy(t testing.TB, config Config, backends ...state.Backend) (*Proxy, string) {
	t.Helper()
	return startProxyWith(t, config, viewOf(nil, poolOf(state.DefaultPool, backends...)))
}

func startProxyWith(t testing.TB, config Config, v *state.View) (*Proxy, string) {
	t.Helper()
	p := New(config)
	if v != nil {
		p.SetView(v)
	}
	addr, err := p.Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { shutdownNow(p) })
	return p, "http://" + addr.String()
}

// client returns a client that keeps many connections and adds nothing.
func client(t testing.TB) *http.Client {
	transport := &http.Transport{MaxIdleConnsPerHost: 256, DisableCompression: true}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: 2 * patience}
}

// get returns the status and body of an answer, or the error.
func get(c *http.Client, url string) (int, string, error) {
	res, err := c.Get(url)
	if err != nil {
		return 0, "", err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	return res.StatusCode, string(body), err
}

func mustGet(t testing.TB, c *http.Client, url string, want int) string {
	t.Helper()
	code, body, err := get(c, url)
	if err != nil || code != want {
		t.Fatalf("GET %s: got %d %q, %v; want %d", url, code, body, err, want)
	}
	return body
}

// eventually polls until the condition holds.
func eventually(t testing.TB, what string, condition func() bool) {
	t.Helper()
	deadline := time.After(patience)
	for !condition() {
		select {
		case <-deadline:
			t.Fatalf("not within %s: %s", patience, what)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// talk sends raw bytes on a connection of its own and returns all that comes back.
func talk(t testing.TB, url, request string) string {
	t.Helper()
	conn := dial(t, url)
	if _, err := io.WriteString(conn, request); err != nil {
		t.Fatal(err)
	}
	answer, _ := io.ReadAll(conn)
	return string(answer)
}

func dial(t testing.TB, url string) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", url[len("http://"):])
	if err != nil {
		t.Fatal(err)
	}
	conn.SetDeadline(time.Now().Add(patience))
	t.Cleanup(func() { conn.Close() })
	return conn
}

// tally is a Recorder.
type tally struct {
	mu     sync.Mutex
	counts map[string]int
}

func newTally() *tally { return &tally{counts: map[string]int{}} }

func (c *tally) add(n int, format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.counts[fmt.Sprintf(format, args...)] += n
}

func (c *tally) get(key string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.counts[key]
}

func (c *tally) Request(pool, method, protocol string, code int, _ time.Duration) {
	c.add(1, "request %s %s %s %d", pool, method, protocol, code)
}
func (c *tally) Attempt(pool, backend string, code int, _ time.Duration) {
	c.add(1, "attempt %s %s %d", pool, backend, code)
}
func (c *tally) Retry(pool, reason string)              { c.add(1, "retry %s %s", pool, reason) }
func (c *tally) Reject(reason string)                   { c.add(1, "reject %s", reason) }
func (c *tally) Connections(listener string, delta int) { c.add(delta, "connections %s", listener) }

// shutdownNow stops a proxy without waiting for its requests.
func shutdownNow(p *Proxy) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	p.Shutdown(ctx)
}
