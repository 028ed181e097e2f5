package proxy

import (
	"bufio"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"lbnode/proxy/balance"
	"lbnode/state"
)

var everyStrategy = []string{state.RoundRobin, state.Random, state.LeastConnections, state.P2C, state.LeastTime, state.Hash}

// balanced is the default pool with a strategy.
func balanced(strategy, hashOn string, backends ...state.Backend) *state.Pool {
	pool := poolOf(state.DefaultPool, backends...)
	pool.Strategy, pool.HashOn = strategy, hashOn
	return pool
}

// What the cluster lets a pool name must be there, or else it would be round robin.
func TestEveryStrategyIsThere(t *testing.T) {
	for _, name := range everyStrategy {
		if _, err := balance.New(name, 0); err != nil {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func TestEveryStrategyCarriesRequests(t *testing.T) {
	for _, name := range everyStrategy {
		t.Run(name, func(t *testing.T) {
			broken := refusing(t, "broken")
			pool := balanced(name, "query:k", startServer(t, "a", nil).backend(), broken, startServer(t, "b", nil).backend())
			p, url := startProxyWith(t, Config{}, viewOf(nil, pool))
			web, seen := client(t), map[string]int{}
			for i := range 200 {
				seen[mustGet(t, web, fmt.Sprintf("%s/?k=%d", url, i), http.StatusOK)]++
			}
			if name != state.LeastTime && name != state.P2C && (seen["a"] < 30 || seen["b"] < 30) {
				t.Errorf("got answers %v, want some of both", seen)
			}
			eventually(t, "nothing is in flight", func() bool { return inFlight(p) == 0 })
		})
	}
}

func TestStrategiesAllocateNothing(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	for _, test := range [][2]string{
		{state.Random}, {state.LeastConnections}, {state.P2C}, {state.LeastTime}, {state.Hash},
		{state.Hash, "path"}, {state.Hash, "header:X-A-Header-With-A-Name-That-Is-Rather-Long"}, {state.Hash, "cookie:session"}, {state.Hash, "query:q"},
	} {
		t.Run(strings.Join(test[:], " "), func(t *testing.T) {
			var backends []state.Backend
			for i := range 3 {
				b, _ := startRaw(t, fmt.Sprint("b", i), func(conn net.Conn, _ string) { answerAll(conn) })
				backends = append(backends, b)
			}
			_, url := startProxyWith(t, Config{}, viewOf(nil, balanced(test[0], test[1], backends...)))
			conn := dial(t, url)
			out := []byte("GET /path?a=1&q=2 HTTP/1.1\r\nHost: a.example\r\nX-A-Header-With-A-Name-That-Is-Rather-Long: 1\r\nCookie: a=b; session=xyz\r\n\r\n")
			in := make([]byte, 4096)
			exchange := func() {
				if _, err := conn.Write(out); err != nil {
					t.Fatal(err)
				}
				if _, err := conn.Read(in); err != nil {
					t.Fatal(err)
				}
			}
			for range 100 { // until each backend has a connection
				exchange()
			}
			if got := testing.AllocsPerRun(500, exchange); got > 0 {
				t.Errorf("got %v allocations for each request, want 0", got)
			}
		})
	}
}

// TestKeys sends requests that have something in common, and others that do not.
func TestKeys(t *testing.T) {
	var backends []state.Backend
	for i := range 10 {
		backends = append(backends, startServer(t, fmt.Sprint("b", i), nil).backend())
	}
	type request struct{ target, fields string }
	for _, test := range []struct {
		hashOn string
		same   request // %d is any number
		other  request // %d makes the difference
	}{
		{"path", request{"/p?x=%d", "Cookie: s=%d\r\n"}, request{"/%d?x", ""}},
		{"header:X-User", request{"/%d", "x-user: me\r\nX-Users: %d\r\n"}, request{"/", "X-USER: %d\r\n"}},
		{"cookie:s", request{"/%d", "Cookie: S=%d; s=me; t=%d\r\n"}, request{"/", "Cookie: a=b;s=%d\r\n"}},
		{"query:k", request{"/%d?kk=%d&k=me&x=%d", ""}, request{"/?a&k=%d", ""}},
		{"query:k", request{"/%d", "X: %d\r\n"}, request{"http://a/?k=%d", ""}},
		{"header:x", request{"/%d?x=%d", "X:\r\n"}, request{"/", "X: %d\r\n"}},
		{"", request{"/%d?x=%d", "Cookie: s=%d\r\n"}, request{}},
		{"something:new", request{"/%d?x=%d", "Cookie: s=%d\r\n"}, request{}},
	} {
		t.Run(test.hashOn+" "+test.same.target, func(t *testing.T) {
			_, url := startProxyWith(t, Config{}, viewOf(nil, balanced(state.Hash, test.hashOn, backends...)))
			conn := dial(t, url)
			count := func(r request) int {
				seen := map[string]bool{}
				for i := range 40 {
					text := "GET " + r.target + " HTTP/1.1\r\nHost: a\r\n" + r.fields + "\r\n"
					fmt.Fprint(conn, strings.ReplaceAll(text, "%d", fmt.Sprint(i)))
					res, err := http.ReadResponse(bufio.NewReader(conn), nil)
					if err != nil {
						t.Fatal(err)
					}
					body, _ := io.ReadAll(res.Body)
					seen[string(body)] = true
				}
				return len(seen)
			}
			if got := count(test.same); got != 1 {
				t.Errorf("requests with the same key went to %d backends, want 1", got)
			}
			if test.other.target == "" {
				return
			}
			if got := count(test.other); got < 6 {
				t.Errorf("requests with 40 keys went to %d of 10 backends, want most", got)
			}
		})
	}
}

// The client is whom the access log names: that of a PROXY header, if there is one.
func TestKeyOfTheClient(t *testing.T) {
	var backends []state.Backend
	for i := range 10 {
		backends = append(backends, startServer(t, fmt.Sprint("b", i), nil).backend())
	}
	_, url := startProxyWith(t, Config{ProxyProtocol: loopback}, viewOf(nil, balanced(state.Hash, "", backends...)))
	ask := func(client string) string {
		answer := talk(t, url, "PROXY TCP4 "+client+" 10.0.0.1 56324 80\r\nGET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
		return answer[strings.LastIndex(answer, "\r\n")+2:]
	}
	seen := map[string]bool{}
	for i := range 40 {
		client := fmt.Sprint("192.0.2.", i)
		first := ask(client)
		seen[first] = true
		if again := ask(client); again != first {
			t.Errorf("client %s came to %s and then to %s", client, first, again)
		}
	}
	if len(seen) < 6 {
		t.Errorf("40 clients came to %d of 10 backends, want most", len(seen))
	}
}

// What is found out about backends and what is under way outlive a change of strategy.
func TestStrategyChangesUnderWay(t *testing.T) {
	hold, held := make(chan bool), make(chan bool, 1)
	slow := startServer(t, "slow", func(w http.ResponseWriter, r *http.Request) {
		held <- true
		<-hold
		io.WriteString(w, "slow")
	})
	p, url := startProxyWith(t, Config{}, viewOf(nil, balanced(state.LeastTime, "", slow.backend())))
	answer := make(chan string)
	go func() {
		_, body, _ := get(client(t), url)
		answer <- body
	}()
	<-held
	fast := startServer(t, "fast", nil)
	for _, spec := range [][2]string{{state.Hash}, {state.Hash, "path"}, {state.P2C}, {"by_magic"}, {state.LeastConnections}} {
		p.SetView(viewOf(nil, balanced(spec[0], spec[1], slow.backend(), fast.backend())))
	}
	for range 20 {
		eventually(t, "one request is in flight", func() bool { return inFlight(p) == 1 })
		if got := mustGet(t, client(t), url, http.StatusOK); got != "fast" {
			t.Errorf("got an answer of %s, want all of the one that has nothing to do", got)
		}
	}
	close(hold)
	if got := <-answer; got != "slow" {
		t.Errorf("got %q for the request that was under way, want slow", got)
	}
	eventually(t, "nothing is in flight", func() bool { return inFlight(p) == 0 })
}

// A change of what to hash on takes effect, with the same strategy.
func TestKeyChanges(t *testing.T) {
	var backends []state.Backend
	for i := range 10 {
		backends = append(backends, startServer(t, fmt.Sprint("b", i), nil).backend())
	}
	p, url := startProxyWith(t, Config{}, viewOf(nil, balanced(state.Hash, "", backends...)))
	before := p.table.Load().pools[state.DefaultPool].strategy
	for _, test := range []struct {
		hashOn string
		many   bool
	}{{"", false}, {"path", true}, {"header:none", false}} {
		p.SetView(viewOf(nil, balanced(state.Hash, test.hashOn, backends...)))
		seen := map[string]bool{}
		for i := range 30 {
			seen[mustGet(t, client(t), fmt.Sprint(url, "/", i), http.StatusOK)] = true
		}
		if got := len(seen) > 1; got != test.many {
			t.Errorf("hash on %q: paths went to %d backends", test.hashOn, len(seen))
		}
	}
	if p.table.Load().pools[state.DefaultPool].strategy != before {
		t.Error("another key made another strategy")
	}
}

func TestUnknownStrategyIsRoundRobin(t *testing.T) {
	var log lockedBuilder
	pool := balanced("by_magic", "", startServer(t, "a", nil).backend(), startServer(t, "b", nil).backend())
	_, url := startProxyWith(t, Config{Log: slog.New(slog.NewTextHandler(&log, nil))}, viewOf(nil, pool))
	if got := answering(t, url); got["a"] != 6 || got["b"] != 6 {
		t.Errorf("got answers %v, want even shares", got)
	}
	if !strings.Contains(log.String(), "strategy unknown") {
		t.Errorf("got the log %q", log.String())
	}
}

// witnessed is a strategy that keeps what it is told.
type witnessed struct {
	balance.Strategy
	told chan balance.Attempt
}

func (w *witnessed) Observe(_ *balance.Target, a balance.Attempt) { w.told <- a }

// TestObserve has requests end in many ways, and looks at what the strategy hears of them.
func TestObserve(t *testing.T) {
	const pause = 150 * time.Millisecond
	answer := func(status int) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(status) }
	}
	leave := func(t *testing.T, url string) {
		conn := dial(t, url)
		io.WriteString(conn, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		<-time.After(pause)
		reset(conn)
	}
	ask := func(t *testing.T, url string) { talk(t, url, "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n") }
	for name, test := range map[string]struct {
		handler     http.HandlerFunc
		ask         func(t *testing.T, url string)
		told        bool
		failed      bool
		least, most time.Duration
	}{
		"an answer":           {answer(200), ask, true, false, 0, pause},
		"not found":           {answer(404), ask, true, false, 0, pause},
		"not implemented":     {answer(501), ask, true, false, 0, pause},
		"unavailable":         {answer(503), ask, true, true, 0, pause},
		"none":                {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, ask, true, true, 0, pause},
		"a slow answer":       {func(http.ResponseWriter, *http.Request) { <-time.After(pause) }, ask, true, false, pause, time.Minute},
		"the client left":     {func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, leave, false, false, 0, 0},
		"a body that is slow": {slowBody(pause), ask, true, false, 0, pause},
		"cut in the body":     {cutBody, ask, true, true, 0, pause},
		"a client that uploads": {answer(200), func(t *testing.T, url string) {
			conn := dial(t, url)
			io.WriteString(conn, "POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 5\r\n\r\n")
			<-time.After(pause)
			io.WriteString(conn, "hello")
			io.ReadAll(conn)
		}, false, false, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			handler := func(w http.ResponseWriter, r *http.Request) { io.Copy(io.Discard, r.Body); test.handler(w, r) }
			p, url := startProxyWith(t, Config{}, viewOf(nil, poolOf(state.DefaultPool, startServer(t, "b", handler).backend())))
			pool := p.table.Load().pools[state.DefaultPool]
			w := &witnessed{pool.strategy, make(chan balance.Attempt, 1)}
			pool.observer = w
			test.ask(t, url)
			eventually(t, "nothing is in flight", func() bool { return inFlight(p) == 0 })
			select {
			case got := <-w.told:
				if !test.told || got.Failed != test.failed || got.Latency < test.least || got.Latency >= test.most || got.Queue != 0 {
					t.Errorf("got %+v, want told %v, failed %v, %s to %s", got, test.told, test.failed, test.least, test.most)
				}
			default:
				if test.told {
					t.Error("the strategy was told nothing")
				}
			}
		})
	}
}

func slowBody(pause time.Duration) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.(http.Flusher).Flush()
		<-time.After(pause)
	}
}

func cutBody(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Length", "10")
	io.WriteString(w, "half")
	w.(http.Flusher).Flush()
	panic(http.ErrAbortHandler)
}

// Of two attempts at once, the one that was given up after the other has told at least
// how slow it is.
func TestObserveHedge(t *testing.T) {
	given := make(chan string, 1)
	slow := startServer(t, "slow", after(time.Minute, "slow", given))
	fast := startServer(t, "fast", nil)
	p, url := startProxyWith(t, Config{}, viewOf(nil, hedged(100*time.Millisecond, slow, fast)))
	pool := p.table.Load().pools[state.DefaultPool]
	w := &witnessed{pool.strategy, make(chan balance.Attempt, 2)}
	pool.observer = w
	if got := mustGet(t, client(t), url, http.StatusOK); got != "fast" {
		t.Fatalf("got %s, want fast", got)
	}
	if got := <-w.told; got.Latency < 100*time.Millisecond || got.Failed {
		t.Errorf("got %+v of the one that was given up, want 100 ms at least, not failed", got)
	}
	if got := <-w.told; got.Latency >= 100*time.Millisecond || got.Failed {
		t.Errorf("got %+v of the one that answered, want less than 100 ms", got)
	}
}

// A backend that answers at once that it cannot must not look fast.
func TestLeastTimeShunsWhatFailsFast(t *testing.T) {
	for _, strategy := range []string{state.LeastTime, state.P2C} {
		bad := startServer(t, "bad", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) })
		good := startServer(t, "good", func(w http.ResponseWriter, _ *http.Request) {
			<-time.After(5 * time.Millisecond)
			io.WriteString(w, "good")
		})
		_, url := startProxyWith(t, Config{}, viewOf(nil, balanced(strategy, "", bad.backend(), good.backend())))
		web, failed := client(t), 0
		for range 200 {
			if code, _, _ := get(web, url); code != http.StatusOK {
				failed++
			}
		}
		if failed > 100 { // of one that looks fast it would be all; on a crowded machine the good one may be slow at times
			t.Errorf("%s: got %d of 200 answers of a backend that fails at once, want few", strategy, failed)
		}
	}
}

func TestQueryValue(t *testing.T) {
	for _, test := range []struct{ query, name, want string }{
		{"", "a", ""}, {"a", "a", ""}, {"a=1", "a", "1"}, {"b=1&a=2&a=3", "a", "2"}, {"a=1=2", "a", "1=2"},
		{"aa=1&&a=%20", "a", "%20"}, {"A=1", "a", ""}, {"%61=1", "a", ""},
	} {
		if got := string(queryValue([]byte(test.query), test.name)); got != test.want {
			t.Errorf("%s of %q: got %q, want %q", test.name, test.query, got, test.want)
		}
	}
}
