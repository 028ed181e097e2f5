package proxy

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"lbnode/proxy/balance"
	"lbnode/proxy/http1"
	"lbnode/state"
)

// A backend that answers 500 to everything is ejected, comes back, and is ejected for
// longer; once it is well it stays.
func TestOutlierIsEjectedAndComesBack(t *testing.T) {
	t.Parallel()
	var broken atomic.Bool
	broken.Store(true)
	bad := startServer(t, "bad", func(w http.ResponseWriter, r *http.Request) {
		if broken.Load() {
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		io.WriteString(w, "bad")
	})
	pool := poolOf(state.DefaultPool, bad.backend(), startServer(t, "good", nil).backend(), startServer(t, "fine", nil).backend())
	pool.Outlier = state.Outlier{Consecutive: 3, Time: state.Duration(500 * time.Millisecond)}
	var log lockedBuilder
	var told atomic.Int32
	p, url := startProxyWith(t, Config{Log: slog.New(slog.NewTextHandler(&log, nil)), Ejected: func() { told.Add(1) }}, viewOf(nil, pool))
	web := client(t)
	ask := func(n int) {
		for range n {
			if _, _, err := get(web, url); err != nil {
				t.Fatal(err)
			}
		}
	}
	ask(30)
	if got := bad.hits.Load(); got != 3 {
		t.Errorf("got %d requests at the backend before it was ejected, want 3", got)
	}
	if got := p.Ejections(); len(got) != 1 || !strings.HasPrefix(got["id-bad"], "http://") {
		t.Errorf("got ejections %v, want that of bad with its URL", got)
	}
	eventually(t, "it is asked again and ejected again", func() bool { ask(3); return strings.Contains(log.String(), "for=1s") })
	if got := bad.hits.Load(); got != 6 {
		t.Errorf("got %d requests at the backend, want 6: three for each time", got)
	}
	broken.Store(false)
	eventually(t, "it is taken back", func() bool { return len(p.Ejections()) == 0 })
	if got := answering(t, url); got["bad"] != 4 || got["good"] != 4 || got["fine"] != 4 {
		t.Errorf("got answers %v once it is back, want even shares", got)
	}
	if got := told.Load(); got != 4 {
		t.Errorf("got %d changes told, want 4: out, back, out, back", got)
	}
}

// However many fail, no more than the share of the pool is ejected.
func TestShareOfEjectedIsNeverExceeded(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ backends, bad, share, want int }{
		{10, 3, 20, 2},
		{10, 3, 0, 3},
		{3, 1, 30, 0},
		{2, 1, 0, 1},
		{5, 2, 100, 2},
	} {
		pool := poolOf(state.DefaultPool)
		pool.Outlier = state.Outlier{Consecutive: 2, MaxShare: test.share}
		for i := range test.backends {
			code := http.StatusOK
			if i < test.bad {
				code = http.StatusServiceUnavailable
			}
			s := startServer(t, fmt.Sprint(i), func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(code) })
			pool.Backends = append(pool.Backends, new(s.backend()))
		}
		p, url := startProxyWith(t, Config{}, viewOf(nil, pool))
		web := client(t)
		for range 20 * test.backends {
			if _, _, err := get(web, url); err != nil {
				t.Fatal(err)
			}
			if got := len(p.Ejections()); got > test.want {
				t.Fatalf("%+v: got %d ejected", test, got)
			}
		}
		if got := len(p.Ejections()); got != test.want {
			t.Errorf("%+v: got %d ejected", test, got)
		}
	}
}

// A node to which every backend of a pool fails ejects none, and says so once.
func TestNodeThatIsAloneInItsTroubleEjectsNone(t *testing.T) {
	t.Parallel()
	for _, weights := range [][]int{{1}, {1, 1}, {1, 1, 1, 1, 1}, {50, 1, 1}} {
		pool := poolOf(state.DefaultPool)
		pool.Outlier = state.Outlier{Consecutive: 5, MaxShare: 100}
		for i, weight := range weights {
			b := startServer(t, fmt.Sprint(i), func(w http.ResponseWriter, r *http.Request) { panic(http.ErrAbortHandler) }).backend()
			b.Weight = weight
			pool.Backends = append(pool.Backends, new(b))
		}
		var log lockedBuilder
		p, url := startProxyWith(t, Config{Log: slog.New(slog.NewTextHandler(&log, nil))}, viewOf(nil, pool))
		web := client(t)
		for range 200 {
			if _, _, err := get(web, url); err != nil {
				t.Fatal(err)
			}
		}
		if got := p.Ejections(); len(got) != 0 {
			t.Errorf("weights %v: got ejections %v, want none", weights, got)
		}
		if got := strings.Count(log.String(), "takes the fault for its own"); got != 1 {
			t.Errorf("weights %v: got it said %d times, want once:\n%s", weights, got, log.String())
		}
	}
}

// outliers gives a proxy a pool of that many backends, without traffic.
func outliers(p *Proxy, count int, rules state.Outlier) []*balance.Target {
	pool := poolOf(state.DefaultPool)
	for i := range count {
		id := fmt.Sprint(i)
		pool.Backends = append(pool.Backends, &state.Backend{
			ID: id, Name: id, Protocol: "http", Host: "b" + id, Port: 80, Weight: 1, Admin: state.Ready, Health: state.Healthy,
		})
	}
	pool.Outlier = rules
	p.SetView(viewOf(nil, pool))
	return p.table.Load().pool(state.DefaultPool).targets
}

func (p *Proxy) ended(t *balance.Target, code int, err error) {
	p.settle(p.table.Load().pool(state.DefaultPool), t, code, err)
}

func TestEjectionsGrow(t *testing.T) {
	p := idle(t)
	synctest.Test(t, func(t *testing.T) {
		targets := outliers(p, 4, state.Outlier{Consecutive: 1})
		lasts := func(i int) time.Duration {
			p.ended(targets[i], http.StatusBadGateway, nil)
			began := time.Now()
			for synctest.Wait(); len(p.Ejections()) > 0; synctest.Wait() {
				time.Sleep(time.Second)
			}
			return time.Since(began)
		}
		for i := range 12 {
			if got, want := lasts(0), time.Duration(min(i+1, 10))*10*time.Second; got != want {
				t.Errorf("ejection %d: got it last %s, want %s", i+1, got, want)
			}
			time.Sleep(99 * time.Second)
		}
		if got := lasts(1); got != 10*time.Second {
			t.Errorf("another backend: got it last %s, want 10s", got)
		}
		time.Sleep(101 * time.Second)
		if got := lasts(0); got != 10*time.Second {
			t.Errorf("after it was well for long: got it last %s, want 10s", got)
		}
	})
}

// An ejection that is over is none, though its timer has not gone off.
func TestEjectionIsOverInTime(t *testing.T) {
	p := idle(t)
	synctest.Test(t, func(t *testing.T) {
		targets := outliers(p, 4, state.Outlier{Consecutive: 1})
		p.ended(targets[0], http.StatusBadGateway, nil)
		for _, after := range []time.Duration{0, 10*time.Second - 1, 10 * time.Second} {
			p.mu.Lock()
			f := p.findings["0"]
			f.back = time.Now().Add(10*time.Second - after)
			p.mu.Unlock()
			if got, want := len(p.Ejections()) == 1, after < 10*time.Second; got != want || f.ejected() != want {
				t.Errorf("after %s: got it told %t and ejected %t, want %t", after, got, f.ejected(), want)
			}
		}
	})
}

func TestWhatCountsAsAFailure(t *testing.T) {
	p := idle(t)
	synctest.Test(t, func(t *testing.T) {
		targets := outliers(p, 4, state.Outlier{Consecutive: 2})
		for _, test := range []struct {
			name  string
			code  int
			err   error
			fails bool
		}{
			{"ok", 200, nil, false},
			{"not found", 404, nil, false},
			{"internal error", 500, nil, true},
			{"odd status", 599, nil, true},
			{"a method that it does not know", 501, nil, false},
			{"a version that it does not know", 505, nil, false},
			{"no connection", 0, &http1.ConnectError{Err: errors.New("refused")}, true},
			{"reset", 0, http1.ErrLost, true},
			{"timeout", 0, http1.ErrBackendStalled, true},
			{"client left", 0, http1.ErrClientLeft, false},
			{"no room", 0, http1.ErrFull, false},
			{"this process was stopped", 0, errStoodStill, false},
		} {
			for range 5 {
				p.ended(targets[0], test.code, test.err)
			}
			if got := len(p.Ejections()) == 1; got != test.fails {
				t.Errorf("%s: got it ejected %v, want %v", test.name, got, test.fails)
			}
			time.Sleep(time.Hour)
			synctest.Wait()
			p.ended(targets[0], 200, nil)
		}
		for range 10 { // not in a row
			p.ended(targets[0], 500, nil)
			p.ended(targets[0], 200, nil)
		}
		if got := p.Ejections(); len(got) != 0 {
			t.Errorf("got %v ejected by failures that were not in a row", got)
		}
	})
}

func TestSuccessRate(t *testing.T) {
	for _, test := range []struct {
		name   string
		failed []int // of 100 requests of each backend
		asked  int   // if not 100
		want   string
	}{
		{"one much worse", []int{0, 0, 0, 0, 50}, 0, "4"},
		{"one a little worse", []int{0, 0, 0, 0, 20}, 0, ""},
		{"all alike", []int{60, 60, 60, 60, 60}, 0, ""},
		{"two of six", []int{0, 0, 0, 0, 90, 90}, 0, "4 5"},
		{"too few backends", []int{0, 0, 0, 50}, 0, ""},
		{"too few requests", []int{0, 0, 0, 0, 50}, 99, ""},
	} {
		p := idle(t)
		synctest.Test(t, func(t *testing.T) {
			targets := outliers(p, len(test.failed), state.Outlier{SuccessRate: 30})
			asked := test.asked
			if asked == 0 {
				asked = 100
			}
			for i, failed := range test.failed {
				for n := range asked {
					code := 200
					if n < failed {
						code = 500
					}
					p.ended(targets[i], code, nil)
				}
			}
			time.Sleep(reviewEvery / 2)
			if got := p.Ejections(); len(got) != 0 {
				t.Errorf("%s: got %v ejected before the interval was over", test.name, got)
			}
			changed := *p.table.Load().pool(state.DefaultPool).spec // the interval goes on
			p.SetView(viewOf(nil, &changed))
			time.Sleep(reviewEvery / 2)
			synctest.Wait()
			var got []string
			for id := range p.Ejections() {
				got = append(got, id)
			}
			slices.Sort(got)
			if strings.Join(got, " ") != test.want {
				t.Errorf("%s: got %v ejected, want %q", test.name, got, test.want)
			}
			time.Sleep(reviewEvery)
			synctest.Wait()
			if got := p.Ejections(); len(got) != 0 {
				t.Errorf("%s: got %v ejected still, or for the same requests again", test.name, got)
			}
		})
	}
}

// A backend whose circuit is open is not ejected besides: there is one time in which it
// gets nothing, and a trial after it.
func TestCircuitGoesBeforeEjection(t *testing.T) {
	p := idle(t)
	synctest.Test(t, func(t *testing.T) {
		targets := outliers(p, 3, state.Outlier{Consecutive: 2})
		changed := *p.table.Load().pool(state.DefaultPool).spec
		changed.Limits.Failures = 2
		p.SetView(viewOf(nil, &changed))
		for range 4 {
			p.ended(targets[0], 0, http1.ErrLost)
		}
		if f := p.findings["0"]; f.aside == nil || !f.aside.trial || len(p.Ejections()) != 0 {
			t.Errorf("got aside %+v, ejections %v, want a circuit that is open", f.aside, p.Ejections())
		}
		time.Sleep(openFor)
		synctest.Wait()
		if got := targets[0].Trial.Load(); got != balance.TrialWanted {
			t.Errorf("got trial %d after the time, want one wanted", got)
		}
	})
}
