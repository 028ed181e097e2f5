package proxy

import (
	"context"
	"errors"
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

func TestRetriesWhereNothingReachedTheClient(t *testing.T) {
	failures := map[string]func(conn net.Conn, head string){
		"reset":          func(conn net.Conn, _ string) { reset(conn) },
		"closed":         func(conn net.Conn, _ string) {},
		"closed in head": func(conn net.Conn, _ string) { io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Le") },
	}
	tests := []struct {
		method, body string
		again        bool // whether it may be sent twice
	}{
		{"GET", "", true}, {"HEAD", "", true}, {"OPTIONS", "", true}, {"TRACE", "", true}, {"PUT", "", true}, {"DELETE", "", true},
		{"POST", "", false}, {"PATCH", "", false}, {"FETCH", "", false},
		{"POST", "hello", false}, {"PUT", "hello", true},
	}
	for failure, fail := range failures {
		for _, test := range tests {
			t.Run(failure+" "+test.method+" "+test.body, func(t *testing.T) {
				bad, badHits := startRaw(t, "bad", fail)
				good := startServer(t, "good", nil)
				counts := newTally()
				p, url := startProxy(t, Config{Recorder: counts}, bad, good.backend())
				req, _ := http.NewRequest(test.method, url, strings.NewReader(test.body))
				req.Header.Set("Idempotency-Key", "which http.Transport takes as leave to repeat")
				res, err := client(t).Do(req)
				if err != nil {
					t.Fatal(err)
				}
				res.Body.Close()
				want, wantHits := http.StatusOK, int64(1)
				if !test.again {
					want, wantHits = http.StatusBadGateway, 0
				}
				if res.StatusCode != want || good.hits.Load() != wantHits || badHits.Load() != 1 {
					t.Errorf("got %d, sent to bad %d and good %d times; want %d, 1 and %d", res.StatusCode, badHits.Load(), good.hits.Load(), want, wantHits)
				}
				if got := counts.get("retry default reset"); got != int(wantHits) {
					t.Errorf("got %d retries counted, want %d", got, wantHits)
				}
				eventually(t, "no attempt is under way", func() bool { return p.InFlight()["id-bad"]+p.InFlight()["id-good"] == 0 })
			})
		}
	}
}

func TestRefusedIsRetriedWhateverTheMethod(t *testing.T) {
	suspects := make(chan string, 10)
	good := startServer(t, "good", func(w http.ResponseWriter, r *http.Request) { io.Copy(w, r.Body) })
	counts := newTally()
	_, url := startProxy(t, Config{Recorder: counts, Suspect: func(id string) { suspects <- id }}, refusing(t, "gone"), good.backend())
	c := client(t)
	for range 4 {
		res, err := c.Post(url, "text/plain", strings.NewReader("hello"))
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(res.Body)
		res.Body.Close()
		if res.StatusCode != http.StatusOK || string(body) != "hello" {
			t.Errorf("got %d %q, want the whole body from the other backend", res.StatusCode, body)
		}
	}
	if got := counts.get("retry default connect"); got != 1 {
		t.Errorf("got %d retries, want 1: the backend was to be avoided afterwards", got)
	}
	if got := counts.get("attempt default gone 0"); got != 1 {
		t.Errorf("got %d attempts at the dead backend, want 1", got)
	}
	if len(suspects) != 1 || <-suspects != "id-gone" {
		t.Error("want one suspicion, of id-gone")
	}
}

// The only backend that a node can reach fails a request, while another is well again
// and the node does not know yet.
func TestUnreachableIsTheLastResort(t *testing.T) {
	resets, _ := startRaw(t, "resets", func(conn net.Conn, _ string) { reset(conn) })
	good := startServer(t, "good", nil)
	p, url := startProxy(t, Config{}, resets, good.backend())
	p.SetReachable("id-good", false)
	if got := mustGet(t, client(t), url, http.StatusOK); got != "good" {
		t.Errorf("got %q, want good", got)
	}
}

func TestStatusWhenAllAttemptsFail(t *testing.T) {
	hung, _ := startRaw(t, "hung", func(conn net.Conn, _ string) { io.Copy(io.Discard, conn) })
	shut, _ := startRaw(t, "shut", func(conn net.Conn, _ string) {})
	tests := map[string]struct {
		backends []state.Backend
		want     int
	}{
		"none":            {nil, http.StatusServiceUnavailable},
		"refused":         {[]state.Backend{refusing(t, "a"), refusing(t, "b")}, http.StatusBadGateway},
		"closed":          {[]state.Backend{shut}, http.StatusBadGateway},
		"does not answer": {[]state.Backend{hung}, http.StatusGatewayTimeout},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			_, url := startProxyWith(t, Config{}, withTimeout(500*time.Millisecond, test.backends...))
			mustGet(t, client(t), url, test.want)
		})
	}
}

func TestAtMostThreeAttempts(t *testing.T) {
	var backends []state.Backend
	var total atomic.Int64
	for _, name := range []string{"a", "b", "c", "d", "e"} {
		b, _ := startRaw(t, name, func(conn net.Conn, _ string) { total.Add(1) })
		backends = append(backends, b)
	}
	_, url := startProxy(t, Config{}, backends...)
	mustGet(t, client(t), url, http.StatusBadGateway)
	if got := total.Load(); got != 3 {
		t.Errorf("got %d attempts, want 3", got)
	}
}

func TestNoRetryOnceAnInterimAnswerWasRelayed(t *testing.T) {
	bad, _ := startRaw(t, "bad", func(conn net.Conn, _ string) {
		io.WriteString(conn, "HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n")
	})
	good := startServer(t, "good", nil)
	_, url := startProxy(t, Config{}, bad, good.backend())
	mustGet(t, client(t), url, http.StatusBadGateway)
	if good.hits.Load() != 0 {
		t.Error("sent again after something had reached the client")
	}
}

func TestRetryBudget(t *testing.T) {
	b := newBudget()
	drawn := 0
	now := time.Unix(1000, 0)
	for b.withdraw(now) {
		drawn++
	}
	if drawn != burst+alwaysPerSecond {
		t.Errorf("got a burst of %d retries, want %d", drawn, burst+alwaysPerSecond)
	}
	for range 10 {
		now = now.Add(time.Second)
		for drawn = 0; b.withdraw(now); {
			drawn++
		}
		if drawn != alwaysPerSecond {
			t.Errorf("got %d retries in a second without requests, want %d", drawn, alwaysPerSecond)
		}
	}
	drawn = 0
	for range 1000 {
		b.deposit()
		if b.withdraw(now) {
			drawn++
		}
	}
	if drawn != 200 {
		t.Errorf("got %d retries of 1000 requests, want 200", drawn)
	}
	for range 2 * burst * requestsPerRetry {
		b.deposit()
	}
	if got := b.paid.Load(); got != burst*requestsPerRetry {
		t.Errorf("got %d saved up, want no more than %d", got, burst*requestsPerRetry)
	}
}

func TestRetryBudgetIsExactWhenConcurrent(t *testing.T) {
	b := newBudget()
	var drawn atomic.Int64
	var running sync.WaitGroup
	for range 8 {
		running.Go(func() {
			for range burst {
				if b.withdraw(time.Unix(1000, 0)) {
					drawn.Add(1)
				}
			}
		})
	}
	running.Wait()
	if got := drawn.Load(); got != burst+alwaysPerSecond {
		t.Errorf("got %d retries, want %d", got, burst+alwaysPerSecond)
	}
}

// Killing a backend under load must cost no GET, whatever state its connections
// were in.
func TestKillUnderLoadFailsNoRequest(t *testing.T) {
	const clients = 64
	working := func(w http.ResponseWriter, _ *http.Request) { // so that requests are under way when it dies
		<-time.After(2 * time.Millisecond)
		io.WriteString(w, "x")
	}
	a, b, c := startServer(t, "a", working), startServer(t, "b", working), startServer(t, "c", working)
	counts := newTally()
	_, url := startProxy(t, Config{Recorder: counts}, a.backend(), b.backend(), c.backend())
	var done, failed atomic.Int64
	ctx, stop := context.WithCancel(t.Context())
	var running sync.WaitGroup
	web := client(t)
	for range clients {
		running.Go(func() {
			for ctx.Err() == nil {
				code, body, err := get(web, url)
				if err != nil || code != http.StatusOK || len(body) != 1 {
					failed.Add(1)
					t.Errorf("got %d %q, %v; want 200", code, body, err)
					return
				}
				done.Add(1)
			}
		})
	}
	eventually(t, "load runs", func() bool { return done.Load() > 400 })
	a.kill()
	before := done.Load()
	eventually(t, "load goes on", func() bool { return failed.Load() > 0 || done.Load() > before+400 })
	b.end()
	before = done.Load()
	eventually(t, "load goes on with one", func() bool { return failed.Load() > 0 || done.Load() > before+400 })
	stop()
	running.Wait()
	t.Logf("%d requests, retries: %d reset, %d connect", done.Load(), counts.get("retry default reset"), counts.get("retry default connect"))
}

func TestConnectFailuresThatSayNothingAboutTheBackend(t *testing.T) {
	// A listener that takes no more connections: connecting hangs.
	full := saturated(t)
	good := startServer(t, "good", nil)
	pool := poolOf(state.DefaultPool, full)
	pool.Timeouts.Request = state.Duration(50 * time.Millisecond)
	pool.Timeouts.Connect = state.Duration(time.Hour)
	var suspected atomic.Int64
	p, url := startProxyWith(t, Config{Suspect: func(string) { suspected.Add(1) }}, viewOf(nil, pool))
	mustGet(t, client(t), url, http.StatusGatewayTimeout)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	req, _ := http.NewRequestWithContext(ctx, "GET", url, nil)
	if res, err := client(t).Do(req); err == nil {
		res.Body.Close()
		t.Error("got an answer, want none before the client leaves")
	}
	eventually(t, "requests end", func() bool { return p.server.Active() == 0 })
	if suspected.Load() != 0 {
		t.Error("a request that was given up condemned its backend")
	}

	pool = poolOf(state.DefaultPool, full, good.backend())
	pool.Timeouts.Connect = state.Duration(300 * time.Millisecond)
	p.SetView(viewOf(nil, pool))
	for range 3 {
		mustGet(t, client(t), url, http.StatusOK)
	}
	if suspected.Load() != 1 {
		t.Errorf("got %d suspicions of a backend that takes no connections, want 1", suspected.Load())
	}
}

// A backend that does not take a connection within half a second is avoided from then on,
// by whoever comes, though who came first still waits. When it takes one it gets requests
// again.
func TestSlowToConnectIsAvoided(t *testing.T) {
	full, good, again := saturated(t), startServer(t, "good", nil), make(chan string, 1)
	pool := poolOf(state.DefaultPool, full, good.backend())
	pool.Timeouts.Connect = state.Duration(time.Hour)
	p, url := startProxyWith(t, Config{Suspect: func(id string) { again <- id }}, viewOf(nil, pool))
	var waiting sync.WaitGroup
	ctx, cancel := context.WithCancel(t.Context())
	defer waiting.Wait()
	defer cancel()
	for range 2 { // one of them comes to it
		waiting.Go(func() {
			req, _ := http.NewRequestWithContext(ctx, "GET", url, nil)
			if res, err := http.DefaultClient.Do(req); err == nil {
				res.Body.Close()
			}
		})
	}
	select {
	case id := <-again:
		if want := "id-full"; id != want {
			t.Errorf("got %s suspected, want %s", id, want)
		}
	case <-time.After(patience):
		t.Fatal("got nobody suspected")
	}
	if got := p.Unreachable(); len(got) != 1 || got["id-full"] != full.URL() {
		t.Errorf("got %v unreachable, want the one that takes no connection", got)
	}
	for range 4 {
		mustGet(t, client(t), url, http.StatusOK)
	}
	if got := p.InFlight()["id-full"]; got != 1 {
		t.Errorf("got %d requests that wait for it, want the first alone", got)
	}
	p.SetReachable("id-full", true)
	if got := p.Unreachable(); len(got) != 0 {
		t.Errorf("got %v unreachable once one can be connected to, want none", got)
	}
}

// saturated gives a backend whose backlog is full.
func saturated(t *testing.T) state.Backend {
	t.Helper()
	b, listen := fullBacklog(t)
	for range 64 {
		conn, err := net.DialTimeout("tcp", listen, 50*time.Millisecond)
		var timeout net.Error
		if errors.As(err, &timeout) && timeout.Timeout() {
			return b
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
	}
	t.Skip("this system does not bound the backlog of a listener")
	return b
}

// A body that the client is still sending cannot be sent again, so that its backend has all the
// time that requests have.
func TestTryEndsNothingThatCannotGoElsewhere(t *testing.T) {
	goOn := make(chan struct{})
	slow := func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		<-goOn
	}
	a, b := startServer(t, "a", slow), startServer(t, "b", slow)
	pool := poolOf(state.DefaultPool, a.backend(), b.backend())
	pool.Timeouts.Try = state.Duration(100 * time.Millisecond)
	_, url := startProxyWith(t, Config{}, viewOf(nil, pool))
	answer := make(chan int, 1)
	go func() {
		answer <- do(t, client(t), "PUT", url, strings.Repeat("x", 100_000)).StatusCode
	}()
	select {
	case <-time.After(time.Second): // ten times as long as another would be given up after
		close(goOn)
	case got := <-answer:
		close(goOn)
		t.Fatalf("got %d before the backend answered", got)
	}
	if got := <-answer; got != http.StatusOK {
		t.Errorf("got %d, want 200", got)
	}
}
