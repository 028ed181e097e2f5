package proxy

import (
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"lbnode/proxy/balance"
	"lbnode/state"
)

func TestCircuitOpensAndCloses(t *testing.T) {
	t.Parallel()
	var broken atomic.Bool
	broken.Store(true)
	hold := make(chan bool)
	bad, hits := startRaw(t, "bad", func(conn net.Conn, head string) {
		if broken.Load() {
			return // closed without an answer
		}
		if strings.HasPrefix(head, "GET /hold") {
			<-hold
		}
		io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nbad")
	})
	good := startServer(t, "good", nil)
	pool := poolOf(state.DefaultPool, bad, good.backend())
	pool.Limits = state.Limits{Failures: 3, Open: state.Duration(2 * time.Second)}
	var log lockedBuilder
	p, url := startProxyWith(t, Config{Log: slog.New(slog.NewTextHandler(&log, nil))}, viewOf(nil, pool))
	web := client(t)
	for range 40 {
		mustGet(t, web, url, http.StatusOK)
	}
	if got := hits.Load(); got != 3 {
		t.Errorf("got %d requests at the backend before its circuit opened, want 3", got)
	}
	if got := p.OpenCircuits(); len(got) != 1 || got["id-bad"] != bad.URL() {
		t.Errorf("got the circuits %v open, want that of %s", got, bad.URL())
	}
	eventually(t, "a trial fails", func() bool { mustGet(t, web, url, http.StatusOK); return hits.Load() == 4 })
	for range 40 {
		mustGet(t, web, url, http.StatusOK)
	}
	if got := hits.Load(); got != 4 {
		t.Errorf("got %d requests at the backend after a trial failed, want 4", got)
	}
	broken.Store(false)
	trial := make(chan string)
	go func() {
		for {
			if _, body, err := get(web, url+"/hold"); body == "bad" || err != nil {
				trial <- body
				return
			}
		}
	}()
	eventually(t, "another trial is under way", func() bool { return hits.Load() == 5 })
	for range 20 { // meanwhile nothing else goes there
		if got := mustGet(t, web, url, http.StatusOK); got == "bad" {
			t.Error("a second request was sent beside the trial")
		}
	}
	close(hold)
	if got := <-trial; got != "bad" {
		t.Errorf("got %q from the trial, want bad", got)
	}
	// The answer of the trial is out before what became of it is noted.
	eventually(t, "the circuit is closed", func() bool { return strings.Contains(log.String(), "requests from this node again") })
	if got := p.OpenCircuits(); len(got) > 0 {
		t.Errorf("got the circuits %v open after a trial that succeeded, want none", got)
	}
	got := answering(t, url)
	if got["bad"] != 6 || got["good"] != 6 {
		t.Errorf("got answers %v once the circuit is closed, want even shares", got)
	}
	if !strings.Contains(log.String(), "too many failed in a row") {
		t.Errorf("got the log %q", log.String())
	}
}

// A request that a trial turns away goes elsewhere, and no retry is paid for, as nothing
// was sent; but it goes to no more backends than any other.
func TestTurnedAwayIsFree(t *testing.T) {
	var backends []state.Backend
	for _, name := range []string{"a", "b", "c", "d"} {
		backends = append(backends, startServer(t, name, nil).backend())
	}
	dead := startServer(t, "dead", nil)
	dead.kill()
	for _, test := range []struct {
		first              state.Backend // of the pool
		trials             int           // how many backends are on trial
		code, again, spent int
	}{
		{backends[0], 0, http.StatusOK, 0, 0},
		{backends[0], 1, http.StatusOK, 1, 0},
		{backends[0], 2, http.StatusOK, 2, 0},
		{backends[0], 4, http.StatusServiceUnavailable, 2, 0},
		{dead.backend(), 0, http.StatusOK, 1, requestsPerRetry},
	} {
		pool := poolOf(state.DefaultPool, append([]state.Backend{test.first}, backends[1:]...)...)
		pool.Limits.Failures = 5
		counts := newTally()
		p, url := startProxyWith(t, Config{Recorder: counts}, viewOf(nil, pool))
		budget := p.table.Load().pool(state.DefaultPool).budget
		budget.paid.Store(99)
		for i := range test.trials {
			p.table.Load().pool(state.DefaultPool).targets[i].Trial.Store(balance.TrialRuns)
		}
		mustGet(t, client(t), url, test.code)
		if got := counts.get("retry default connect"); got != test.again {
			t.Errorf("%+v: got the request sent on %d times", test, got)
		}
		if got := 99 + 1 - int(budget.paid.Load()); got != test.spent {
			t.Errorf("%+v: got %d spent on retries", test, got)
		}
	}
}

func TestBackendConnectionLimit(t *testing.T) {
	release := make(chan bool)
	busy := startServer(t, "busy", func(w http.ResponseWriter, r *http.Request) { <-release; io.WriteString(w, "busy") })
	pool := poolOf(state.DefaultPool, busy.backend())
	pool.Limits = state.Limits{Connections: 2, Pending: 1}
	_, url := startProxyWith(t, Config{}, viewOf(nil, pool))
	web, answers := client(t), make(chan int, 4)
	for range 4 { // two are sent, one waits, one is refused
		go func() {
			code, _, _ := get(web, url)
			answers <- code
		}()
	}
	if got := <-answers; got != http.StatusServiceUnavailable {
		t.Errorf("got %d for one request too many, want 503", got)
	}
	close(release)
	for range 3 {
		if got := <-answers; got != http.StatusOK {
			t.Errorf("got %d for a request that there is room for, want 200", got)
		}
	}
	if got := busy.hits.Load(); got != 3 {
		t.Errorf("got %d requests at the backend, want 3", got)
	}
	busy.mu.Lock()
	defer busy.mu.Unlock()
	if got := len(busy.conns); got > 2 {
		t.Errorf("got %d connections, want 2 at most", got)
	}
}

// A backend that does not begin its answer in time is given up where the request can
// be repeated, and waited for where not.
func TestTry(t *testing.T) {
	t.Parallel()
	slow := startServer(t, "slow", func(w http.ResponseWriter, r *http.Request) {
		<-time.After(1200 * time.Millisecond)
		io.WriteString(w, "slow")
	})
	good := startServer(t, "good", nil)
	pool := poolOf(state.DefaultPool, slow.backend(), good.backend())
	pool.Timeouts.Try = state.Duration(500 * time.Millisecond)
	counts := newTally()
	_, url := startProxyWith(t, Config{Recorder: counts}, viewOf(nil, pool))
	for range 4 {
		if got := mustGet(t, client(t), url, http.StatusOK); got != "good" {
			t.Errorf("got %q, want good", got)
		}
	}
	if got := counts.get("retry default timeout"); got == 0 {
		t.Error("no retry for a timeout was counted")
	}
	answers := map[string]int{}
	for range 4 {
		res, err := client(t).Post(url, "text/plain", strings.NewReader("x"))
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(res.Body)
		res.Body.Close()
		answers[string(body)]++
	}
	if answers["slow"] != 2 || answers["good"] != 2 {
		t.Errorf("got answers %v to POST, want 2 of each", answers)
	}
}

// Where no other backend can be tried, or nobody has paid for it, the one that has the request
// is waited for: a pool that is slow as a whole would answer nobody.
func TestTryWithNowhereToGo(t *testing.T) {
	t.Parallel()
	const try, slow = 200 * time.Millisecond, 700 * time.Millisecond
	idle := func(name string) state.Backend {
		return startServer(t, name, func(w http.ResponseWriter, r *http.Request) {
			<-time.After(slow)
			io.WriteString(w, name)
		}).backend()
	}
	one, two := poolOf(state.DefaultPool, idle("a")), poolOf(state.DefaultPool, idle("a"), idle("b"))
	for _, test := range []struct {
		name  string
		pool  *state.Pool
		spent bool
		tries int
	}{
		{"one backend", one, false, 1},
		{"two that are slow", two, false, 2},
		{"the budget is spent", two, true, 1},
	} {
		test.pool.Timeouts.Try = state.Duration(try)
		counts := newTally()
		p, url := startProxyWith(t, Config{Recorder: counts}, viewOf(nil, test.pool))
		budget := p.table.Load().pool(state.DefaultPool).budget
		if test.spent {
			budget.paid.Store(0)
		}
		before, began := budget.paid.Load(), time.Now()
		mustGet(t, client(t), url, http.StatusOK)
		if took, least := time.Since(began), slow+time.Duration(test.tries-1)*try; took < least {
			t.Errorf("%s: got the answer after %s, want %s at least", test.name, took, least)
		}
		if got := counts.get("retry default timeout"); got != test.tries-1 {
			t.Errorf("%s: got %d retries, want %d", test.name, got, test.tries-1)
		}
		want := before
		if want += 1 - int64(test.tries-1)*requestsPerRetry; before == burst*requestsPerRetry {
			want-- // no more is paid in than that
		}
		if got := budget.paid.Load(); got != want {
			t.Errorf("%s: got %d left in the budget, want %d: what is not needed is given back", test.name, got, want)
		}
	}
}

// lockedBuilder is a strings.Builder for several goroutines.
type lockedBuilder struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *lockedBuilder) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuilder) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
