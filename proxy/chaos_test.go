package proxy

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"lbnode/state"
)

var chaos = flag.Int("chaos", 5, "how often each fault befalls a backend; 200 is the long form")

// mood is what a backend does with requests.
type mood int32

const (
	well   mood = iota
	dead        // it takes no connections, and those there were are reset
	hung        // it answers nothing
	resets      // it resets the connection instead of answering every other request
	slow        // it answers after some time, in two parts
)

// moodyBackend notes which requests it got.
type moodyBackend struct {
	t    *testing.T
	addr net.Addr
	mood atomic.Int32
	got  *sync.Map // of *atomic.Int32, by the request's id; of all backends

	mu       sync.Mutex
	listener net.Listener
	conns    map[net.Conn]bool
	running  sync.WaitGroup
}

func startMoody(t *testing.T, got *sync.Map) *moodyBackend {
	t.Helper()
	b := &moodyBackend{t: t, got: got, conns: map[net.Conn]bool{}}
	first := listenAlone(t)
	b.addr = first.Addr()
	first.Close()
	b.listen(b.addr.String())
	t.Cleanup(func() { b.kill(); b.running.Wait() })
	return b
}

func (b *moodyBackend) listen(addr string) {
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		b.t.Error(err)
		return
	}
	b.mu.Lock()
	b.listener = listener
	b.mu.Unlock()
	b.running.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			b.mu.Lock()
			b.conns[conn] = true
			b.mu.Unlock()
			b.running.Go(func() { b.serve(conn) })
		}
	})
}

func (b *moodyBackend) kill() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.listener.Close()
	for conn := range b.conns {
		reset(conn)
	}
}

func (b *moodyBackend) serve(conn net.Conn) {
	defer func() {
		b.mu.Lock()
		delete(b.conns, conn)
		b.mu.Unlock()
		conn.Close()
	}()
	in := bufio.NewReader(conn)
	for {
		r, err := http.ReadRequest(in)
		if err != nil {
			return
		}
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		count, _ := b.got.LoadOrStore(r.Header.Get("X-Id"), &atomic.Int32{})
		count.(*atomic.Int32).Add(1)
		if !b.answer(conn, string(body)) {
			return
		}
	}
}

func (b *moodyBackend) answer(conn net.Conn, body string) bool {
	head, rest := fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", len(body)+2), body+"ok"
	switch mood(b.mood.Load()) {
	case hung:
		for mood(b.mood.Load()) == hung {
			<-time.After(5 * time.Millisecond)
		}
	case resets:
		if rand.IntN(2) == 0 {
			reset(conn)
			return false
		}
	case slow:
		<-time.After(30 * time.Millisecond)
		io.WriteString(conn, head)
		<-time.After(10 * time.Millisecond)
		head = ""
	}
	_, err := io.WriteString(conn, head+rest)
	return err == nil
}

// be puts the backend in a mood for a while.
func (b *moodyBackend) be(m mood, length time.Duration) {
	b.mood.Store(int32(m))
	if m == dead {
		b.kill()
	}
	<-time.After(length)
	if m == dead {
		b.listen(b.addr.String())
	}
	b.mood.Store(int32(well))
}

// Whatever befalls a backend, no idempotent request fails and no other is sent twice.
func TestFaultyBackendsUnderLoad(t *testing.T) {
	for name, m := range map[string]mood{"killed": dead, "hung": hung, "reset": resets, "slow": slow} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var got sync.Map
			backends := []*moodyBackend{startMoody(t, &got), startMoody(t, &got), startMoody(t, &got)}
			pool := poolOf(state.DefaultPool)
			for i, b := range backends {
				pool.Backends = append(pool.Backends, new(backendAt(fmt.Sprint(i), b.addr)))
			}
			if m == hung { // others are never waited for so long, unless the machine is crowded
				pool.Timeouts.Request = state.Duration(300 * time.Millisecond)
			}
			p, url := startProxyWith(t, Config{}, viewOf(nil, pool))
			ctx, cancel := context.WithCancel(t.Context())
			var running sync.WaitGroup
			var load chaosLoad
			web := client(t)
			for i := range 16 {
				running.Go(func() { load.run(ctx, t, web, url, fmt.Sprint(name, i)) })
			}
			for range 4 {
				running.Go(func() { rude(ctx, url) })
			}
			for range *chaos {
				before := load.done.Load()
				backends[rand.IntN(len(backends))].be(m, time.Duration(20+rand.IntN(600))*time.Millisecond)
				for i := range backends { // as probes would
					p.SetReachable("id-"+fmt.Sprint(i), true)
				}
				eventually(t, "requests go on", func() bool { return load.done.Load() > before+50 })
			}
			cancel()
			running.Wait()
			twice := 0
			got.Range(func(id, count any) bool {
				if n := count.(*atomic.Int32).Load(); strings.HasPrefix(id.(string), "POST") && n > 1 {
					twice++
				}
				return true
			})
			t.Logf("%d times: %d requests, of %d POST %d failed", *chaos, load.done.Load(), load.posts.Load(), load.failedPosts.Load())
			if twice > 0 {
				t.Errorf("%d POST requests were sent twice", twice)
			}
		})
	}
}

// rude clients reset the connection anywhere in a request or an answer.
func rude(ctx context.Context, url string) {
	requests := []string{
		"GET / HTTP/1.1\r\nHost: a\r\nX-Id: rude\r\n\r\n",
		"PUT / HTTP/1.1\r\nHost: a\r\nX-Id: rude\r\nContent-Length: 5\r\n\r\nhello",
		"PUT / HTTP/1.1\r\nHost: a\r\nX-Id: rude\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
		"PUT / HTTP/1.1\r\nHost: a\r\nX-Id: rude\r\nContent-Length: 100000\r\n\r\n" + strings.Repeat("x", 100000),
	}
	for ctx.Err() == nil {
		conn, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
		if err != nil {
			return
		}
		for range rand.IntN(4) {
			io.WriteString(conn, requests[rand.IntN(2)])
		}
		request := requests[rand.IntN(len(requests))]
		io.WriteString(conn, request[:rand.IntN(len(request)+1)])
		conn.SetReadDeadline(time.Now().Add(time.Duration(rand.IntN(20)) * time.Millisecond))
		io.CopyN(io.Discard, conn, int64(rand.IntN(500)))
		reset(conn)
	}
}

type chaosLoad struct{ done, posts, failedPosts atomic.Int64 }

func (l *chaosLoad) run(ctx context.Context, t *testing.T, web *http.Client, url, name string) {
	for i := 0; ctx.Err() == nil; i++ {
		method, body := "GET", ""
		switch i % 4 {
		case 1:
			method, body = "PUT", "put"
		case 2:
			method, body = "POST", "post"
		}
		req, _ := http.NewRequest(method, url, strings.NewReader(body))
		req.Header.Set("X-Id", fmt.Sprint(method, "-", name, "-", i))
		res, err := web.Do(req)
		code := 0
		if err == nil {
			code = res.StatusCode
			var all []byte
			if all, err = io.ReadAll(res.Body); err == nil && code == http.StatusOK && string(all) != body+"ok" {
				t.Errorf("%s: got %q, want %q", method, all, body+"ok")
			}
			res.Body.Close()
		}
		l.done.Add(1)
		switch {
		case method == "POST":
			l.posts.Add(1)
			if err != nil || code != http.StatusOK {
				l.failedPosts.Add(1)
			}
		case err != nil || code != http.StatusOK:
			t.Errorf("%s: got %d, %v; want 200", method, code, err)
		}
	}
}
