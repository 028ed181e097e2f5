package proxy

import (
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"

	"lbnode/proxy/balance"
	"lbnode/state"
)

func TestChoose(t *testing.T) {
	// Each word is a backend: its name, and then what is with it: b backup, d not ready,
	// s starting, u unhealthy, a set aside, r not reachable.
	tests := []struct {
		backends string
		panic    int
		failOpen bool
		want     string
		panics   bool
	}{
		{"", 0, false, "", false},
		{"", 50, true, "", false},
		{"1 2 3", 0, false, "1 2 3", false},
		{"1 2 3d", 0, false, "1 2", false},
		{"1 2u 3a 4r", 0, false, "1", false},
		{"1d 2d", 0, true, "", false},
		{"1r 2r 3u", 0, false, "1 2", false},
		{"1u 2u", 0, false, "", false},
		{"1u 2u 3d", 0, true, "1 2", false},
		{"1a 2a", 0, false, "", false},
		{"1a 2u", 0, true, "1 2", false},
		{"1a 2r", 0, false, "2", false},

		{"1 2 3b", 0, false, "1 2", false},
		{"1u 2 3b", 0, false, "2", false},
		{"1u 2a 3b 4b", 0, false, "3 4", false},
		{"1r 2r 3b", 0, false, "3", false},
		{"1r 2u 3br", 0, false, "1", false},
		{"1u 2b 3bu", 0, false, "2", false},
		{"1d 2b", 0, false, "2", false},
		{"1u 2bu", 0, false, "", false},
		{"1u 2bu", 0, true, "1", false},
		{"1d 2bu", 0, true, "2", false},
		{"1b 2b", 0, false, "1 2", false},

		{"1 2 3u 4u", 50, false, "1 2", false},
		{"1 2u 3u 4u", 50, false, "1 2 3 4", true},
		{"1 2a 3a 4u 5d", 50, false, "1 2 3 4", true},
		{"1 2r 3r 4r", 50, false, "1", false},
		{"1u 2u", 1, false, "1 2", true},
		{"1 2 3", 100, false, "1 2 3", false},
		{"1 2 3u", 100, false, "1 2 3", true},
		{"1u 2u 3b", 50, false, "3", false},
		{"1 2u 3u 4b", 50, false, "1 2 3", true},
		{"1u 2b 3bu 4bu", 50, false, "2 3 4", true},
		{"1u 2bu", 50, false, "1", true},
		{"1s 2s", 50, false, "", false},
		{"1s 2s", 50, true, "1 2", false},
		{"1 2s 3s 4s", 50, false, "1", false},
		{"1u 2s", 50, false, "1", true},
	}
	for _, test := range tests {
		var all []candidate
		for _, word := range strings.Fields(test.backends) {
			has := func(flag string) bool { return strings.Contains(word[1:], flag) }
			all = append(all, candidate{
				target: &balance.Target{Name: word[:1]},
				ready:  !has("d"), backup: has("b"), starting: has("s"), healthy: !has("u") && !has("s"), aside: has("a"), reachable: !has("r"),
			})
		}
		spec := &state.Pool{Settings: state.Settings{Panic: test.panic}}
		if test.failOpen {
			spec.WhenAllDown = state.FailOpen
		}
		chosen := choose(all, spec)
		var names []string
		for _, target := range chosen.targets {
			names = append(names, target.Name)
		}
		if got := strings.Join(names, " "); got != test.want || chosen.panics != test.panics {
			t.Errorf("%q, panic %d, fail open %v: got %q, panics %v; want %q, %v",
				test.backends, test.panic, test.failOpen, got, chosen.panics, test.want, test.panics)
		}
	}
}

// A pool of which most backends are unhealthy panics, and says so, and backups stand in
// for those that are all lost.
func TestPanicAndBackup(t *testing.T) {
	var log lockedBuilder
	servers := []*server{startServer(t, "a", nil), startServer(t, "b", nil), startServer(t, "c", nil)}
	spare := startServer(t, "spare", nil).backend()
	spare.Backup = true
	pool := func(threshold int, healths ...state.Health) *state.Pool {
		p := poolOf(state.DefaultPool)
		for i, health := range healths {
			b := servers[i].backend()
			b.Health = health
			p.Backends = append(p.Backends, new(b))
		}
		p.Backends = append(p.Backends, new(spare))
		p.Panic = threshold
		return p
	}
	const up, down = state.Healthy, state.Unhealthy
	p, url := startProxyWith(t, Config{Log: slog.New(slog.NewTextHandler(&log, nil))}, viewOf(nil, pool(50, up, up, up)))
	for _, step := range []struct {
		pool   *state.Pool
		want   string
		panics int
	}{
		{pool(50, up, up, up), "a b c", 0},
		{pool(50, up, up, down), "a b", 0},
		{pool(50, up, down, down), "a b c", 1},
		{pool(0, up, down, down), "a", 0},
		{pool(50, down, down, down), "spare", 0},
		{pool(50, down, up, up), "b c", 0},
	} {
		p.SetView(viewOf(nil, step.pool))
		got := answering(t, url)
		var names []string
		for _, name := range []string{"a", "b", "c", "spare"} {
			if got[name] > 0 {
				names = append(names, name)
			}
		}
		if strings.Join(names, " ") != step.want || len(p.Panics()) != step.panics {
			t.Errorf("got answers of %v, panics %v; want %s, %d", got, p.Panics(), step.want, step.panics)
		}
	}
	for _, want := range []string{"health is ignored", "enough backends are fit again"} {
		if got := strings.Count(log.String(), want); got != 1 {
			t.Errorf("got %d times %q in the log, want once", got, want)
		}
	}
}

// A backend whose circuit is open may go, or move, before its time is over.
func TestBackendGoesWhileItIsSetAside(t *testing.T) {
	for name, change := range map[string]func(*state.Pool){
		"removed": func(p *state.Pool) { p.Backends = p.Backends[1:] },
		"moved":   func(p *state.Pool) { p.Backends[0].Host = "127.0.0.2" },
		"kept":    func(p *state.Pool) { p.Backends[0].Weight = 2 },
	} {
		good := startServer(t, "good", nil)
		bad := startServer(t, "bad", func(w http.ResponseWriter, r *http.Request) { panic(http.ErrAbortHandler) })
		pool := poolOf(state.DefaultPool, bad.backend(), good.backend())
		pool.Limits = state.Limits{Failures: 1, Open: state.Duration(200e6)}
		p, url := startProxyWith(t, Config{}, viewOf(nil, pool))
		mustGet(t, client(t), url, http.StatusOK)
		mustGet(t, client(t), url, http.StatusOK)
		p.mu.Lock()
		f := p.findings["id-bad"]
		p.mu.Unlock()
		changed := *pool
		changed.Backends = copies(pool.Backends)
		change(&changed)
		p.SetView(viewOf(nil, &changed))
		a := f.aside
		if a == nil {
			t.Fatalf("%s: the circuit is not open", name)
		}
		p.rested(f, a)
		p.mu.Lock()
		if got, want := f.aside == nil, name == "kept"; got != want {
			t.Errorf("%s: got it taken back %v, want %v", name, got, want)
		}
		p.mu.Unlock()
		mustGet(t, client(t), url, http.StatusOK)
	}
}

// When circuits are no more wanted, a trial that is due must not bar a backend for good.
func TestLimitTakenAwayDuringATrial(t *testing.T) {
	b := startServer(t, "b", func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "b") })
	pool := poolOf(state.DefaultPool, b.backend())
	pool.Limits = state.Limits{Failures: 1}
	p, url := startProxyWith(t, Config{}, viewOf(nil, pool))
	p.mu.Lock()
	p.findings["id-b"].local.Trial.Store(balance.TrialWanted)
	p.mu.Unlock()
	changed := *pool
	changed.Limits = state.Limits{}
	p.SetView(viewOf(nil, &changed))
	for range 3 {
		mustGet(t, client(t), url, http.StatusOK)
	}
}
