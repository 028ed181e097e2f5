package health

import (
	"context"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"runtime"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"lbnode/state"
)

// TestMain runs one thread at a time: with more, the race detector crashes now
// and then when several goroutines of a synctest bubble wait for timers that are
// due at once (golang.org/issue/78156). It finds races without parallelism too.
func TestMain(m *testing.M) {
	runtime.GOMAXPROCS(1)
	os.Exit(m.Run())
}

const second = time.Second

// facts is a cluster's log, from which views come.
type facts struct {
	t       *testing.T
	machine *state.Machine
	index   uint64
}

func newFacts(t *testing.T) *facts { return &facts{t: t, machine: state.NewMachine()} }

func (f *facts) do(op state.Op) *state.View {
	f.t.Helper()
	f.index++
	data, err := state.Command{Op: op}.Encode()
	if err != nil {
		f.t.Fatal(err)
	}
	result, err := f.machine.Apply(f.index, data)
	if err != nil || result.Err != nil {
		f.t.Fatalf("cannot apply %#v: %v %v", op, err, result.Err)
	}
	return f.machine.View()
}

// add adds n backends with the ids 1, 2, … and the given health.
func (f *facts) add(n int, health state.Health) *state.View {
	f.t.Helper()
	for i := 1; i <= n; i++ {
		id := strconv.Itoa(i)
		b := state.Backend{ID: id, Name: "web-" + id, Protocol: "http", Host: "10.0.0.1", Port: 1000 + i}
		f.do(&state.AddBackend{Pool: state.DefaultPool, Backend: b})
		if health != state.Starting {
			f.judge(id, health)
		}
	}
	return f.machine.View()
}

func (f *facts) judge(id string, health state.Health) *state.View {
	f.t.Helper()
	b := f.machine.View().Pool(state.DefaultPool).Backend("web-" + id)
	return f.do(&state.SetHealth{Verdicts: []state.Verdict{{BackendID: id, URL: b.URL(), Health: health}}})
}

func (f *facts) check(h state.HealthCheck) *state.View {
	f.t.Helper()
	return f.do(&state.UpdatePool{Pool: state.Pool{Name: state.DefaultPool, Settings: state.Settings{HealthCheck: h}}})
}

func (f *facts) patch(id string, patch state.Backend) *state.View {
	f.t.Helper()
	return f.do(&state.UpdateBackend{Pool: state.DefaultPool, Name: "web-" + id, Patch: patch})
}

func all(string) bool  { return true }
func none(string) bool { return false }

// told is one call of the sink, with the time since the test began.
type told struct {
	what string // "up", "down": Reachable; "healthy", "unhealthy": Judged
	id   string
	at   time.Duration
}

// lab is a Checker whose probes are answered by the test, in virtual time.
type lab struct {
	*Checker
	began time.Time

	mu       sync.Mutex
	answer   func(b *state.Backend) result
	takes    time.Duration
	starts   map[string][]time.Duration // by backend id
	calls    []told
	failures map[string]int // failed probes by backend name
	places   []string       // that were told
}

var (
	passes  = result{passed: true, connected: true, reason: "200 OK"}
	fails   = result{connected: true, reason: "503 Service Unavailable"}
	refused = result{reason: "connection refused"}
)

func newLab() *lab {
	l := &lab{began: time.Now(), starts: make(map[string][]time.Duration)}
	l.always(passes)
	l.Checker = New(Config{Sink: l, Log: slog.New(slog.NewTextHandler(io.Discard, nil))})
	l.Checker.probe = l.fakeProbe
	return l
}

func (l *lab) always(r result) { l.answerWith(func(*state.Backend) result { return r }) }

func (l *lab) answerWith(answer func(*state.Backend) result) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.answer = answer
}

func (l *lab) fakeProbe(ctx context.Context, _ *state.Pool, b *state.Backend, _ netip.Addr) result {
	l.mu.Lock()
	l.starts[b.ID] = append(l.starts[b.ID], time.Since(l.began))
	takes := l.takes
	l.mu.Unlock()
	if takes > 0 {
		select {
		case <-time.After(takes):
		case <-ctx.Done():
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.answer(b)
}

func (l *lab) Reachable(id string, ok bool) {
	l.hear(id, map[bool]string{true: "up", false: "down"}[ok])
}

func (l *lab) Judged(o Observation) {
	l.hear(o.BackendID, map[bool]string{true: "healthy", false: "unhealthy"}[o.Healthy])
}

func (l *lab) Placed(id, _ string, at netip.Addr) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.places = append(l.places, id+" at "+at.String())
}

func (l *lab) Failed(_, backend string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.failures == nil {
		l.failures = map[string]int{}
	}
	l.failures[backend]++
}

func (l *lab) hear(id, what string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.calls = append(l.calls, told{what, id, time.Since(l.began)})
}

// heard returns what the sink was told since the last call of heard.
func (l *lab) heard() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	list := []string{}
	for _, c := range l.calls {
		list = append(list, c.what)
	}
	l.calls = nil
	return list
}

// probes returns how many probes of a backend began since the last call.
func (l *lab) probes(id string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := len(l.starts[id])
	delete(l.starts, id)
	return n
}

func (l *lab) begun(id string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.starts[id])
}

// pass lets virtual time go by and everything due in it happen.
func pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}
