package proxy

import (
	"testing"
	"testing/synctest"
	"time"

	"lbnode/proxy/balance"
	"lbnode/state"
)

func TestRampStep(t *testing.T) {
	const slow = 90 * time.Second
	for _, test := range []struct {
		elapsed time.Duration
		tenths  int
		wait    time.Duration
	}{
		{0, 1, 10 * time.Second},
		{time.Second, 1, 9 * time.Second},
		{10*time.Second - 1, 1, 1},
		{10 * time.Second, 2, 10 * time.Second},
		{89 * time.Second, 9, time.Second},
		{90 * time.Second, 10, slow},
		{time.Hour, 10, slow},
	} {
		if tenths, wait := rampStep(test.elapsed, slow); tenths != test.tenths || wait != test.wait {
			t.Errorf("after %s: got %d tenths for %s, want %d for %s", test.elapsed, tenths, wait, test.tenths, test.wait)
		}
	}
	for _, slow := range []time.Duration{100 * time.Millisecond, 333_333_333, 24 * time.Hour} { // no step is left out or comes early
		elapsed := time.Duration(0)
		for want := 1; want < rampSteps; want++ {
			tenths, wait := rampStep(elapsed, slow)
			if tenths != want || wait <= 0 {
				t.Fatalf("%s of %s: got %d tenths for %s, want %d", elapsed, slow, tenths, wait, want)
			}
			elapsed += wait
		}
		if elapsed != slow {
			t.Errorf("got the whole weight after %s, want %s", elapsed, slow)
		}
	}
}

// ramp is a proxy whose default pool has three backends, without any traffic.
type ramp struct {
	*Proxy
	spec *state.Pool
}

func newRamp(p *Proxy, slow time.Duration, healths ...state.Health) *ramp {
	r := &ramp{Proxy: p, spec: poolOf(state.DefaultPool)}
	r.spec.SlowStart = state.Duration(slow)
	for i, health := range healths {
		name := string(rune('a' + i))
		r.spec.Backends = append(r.spec.Backends, &state.Backend{
			ID: name, Name: name, Protocol: "http", Host: name, Port: 80, Weight: 1, Admin: state.Ready, Health: health,
		})
	}
	r.SetView(viewOf(nil, r.spec))
	return r
}

// idle is a proxy that does not listen. It must be made outside of a synctest bubble: its
// server waits for the system.
func idle(t *testing.T) *Proxy {
	p := New(Config{})
	t.Cleanup(func() { shutdownNow(p) })
	return p
}

// change makes a new view in which one backend is another.
func (r *ramp) change(i int, change func(b *state.Backend)) {
	spec := *r.spec
	spec.Backends = copies(r.spec.Backends)
	change(spec.Backends[i])
	r.spec = &spec
	r.SetView(viewOf(nil, r.spec))
}

func (r *ramp) judge(i int, health state.Health) {
	r.change(i, func(b *state.Backend) { b.Health, b.Since = health, time.Now().UnixMilli() })
}

// shares are how many of some requests, a whole number of turns, each backend gets.
func (r *ramp) shares(requests int) [3]int {
	pool := r.table.Load().pool(state.DefaultPool)
	var got [3]int
	for range requests {
		e := &exchange{pool: pool, recorder: discard{}}
		got[e.first(time.Now()).Name[0]-'a']++
	}
	return got
}

func (r *ramp) want(t *testing.T, what string, requests int, want ...int) {
	t.Helper()
	synctest.Wait()
	if got := r.shares(requests); got != [3]int(want) {
		t.Errorf("%s: got shares %v, want %v", what, got, want)
	}
}

const up, down = state.Healthy, state.Unhealthy

func TestSlowStart(t *testing.T) {
	p := idle(t)
	synctest.Test(t, func(t *testing.T) {
		r := newRamp(p, 90*time.Second, up, up, down)
		r.want(t, "before", 210, 105, 105, 0)
		r.judge(2, up)
		r.want(t, "at first", 210, 100, 100, 10)
		time.Sleep(10 * time.Second)
		r.want(t, "one step on", 220, 100, 100, 20)
		r.change(0, func(b *state.Backend) { b.Weight = 2 }) // the ramp outlives a change of the pool
		time.Sleep(30 * time.Second)
		r.want(t, "halfway", 350, 200, 100, 50)
		time.Sleep(50 * time.Second)
		r.want(t, "at the end", 400, 200, 100, 100)
		r.judge(2, down)
		r.want(t, "down again", 300, 200, 100, 0)
		r.judge(2, up)
		r.want(t, "from the beginning", 310, 200, 100, 10)
	})
}

func TestSlowStartAfterDrain(t *testing.T) {
	p := idle(t)
	synctest.Test(t, func(t *testing.T) {
		r := newRamp(p, 90*time.Second, up, up, up)
		time.Sleep(time.Hour)
		r.change(1, func(b *state.Backend) { b.Admin = state.Drain })
		r.change(1, func(b *state.Backend) { b.Admin = state.Ready })
		r.want(t, "ready", 210, 100, 10, 100)
		r.spec.SlowStart = 0 // as every view is, the pool is another
		r.change(1, func(b *state.Backend) {})
		r.want(t, "taken away", 210, 70, 70, 70)
	})
}

// A node that starts spares who has come just before, and nobody else.
func TestSlowStartOfTheFirstView(t *testing.T) {
	first, second, third := idle(t), idle(t), idle(t)
	synctest.Test(t, func(t *testing.T) {
		r := newRamp(first, 90*time.Second, up, up, up)
		r.Proxy = second
		r.change(2, func(b *state.Backend) { b.Since = time.Now().Add(-80 * time.Second).UnixMilli() })
		r.want(t, "one just before", 210, 100, 100, 10)
		r.Proxy = third
		r.change(2, func(b *state.Backend) { b.Since = time.Now().Add(-90 * time.Second).UnixMilli() })
		r.want(t, "one long before", 210, 70, 70, 70)
	})
}

func TestNoSlowStartOfTheOnlyOne(t *testing.T) {
	p := idle(t)
	synctest.Test(t, func(t *testing.T) {
		r := newRamp(p, 90*time.Second, down, down, state.Starting)
		r.judge(0, up)
		r.want(t, "the only one", 10, 10, 0, 0)
		r.judge(1, up)
		r.want(t, "another", 110, 100, 10, 0)
	})
}

// updates is a strategy that counts how often it gets other targets.
type updates struct {
	balance.Strategy
	count int
}

func (u *updates) Update(targets []*balance.Target) {
	u.count++
	u.Strategy.Update(targets)
}

// Backends that came at different moments take their steps together, or thousands of
// them would keep the proxy busy with nothing else.
func TestStepsAreTakenTogether(t *testing.T) {
	p := idle(t)
	synctest.Test(t, func(t *testing.T) {
		const count = 500
		r := newRamp(p, 90*time.Second)
		for i := range count {
			name := string(rune('a' + i))
			r.spec.Backends = append(r.spec.Backends, &state.Backend{ID: name, Name: name, Protocol: "http", Host: name, Port: 80, Weight: 1, Admin: state.Ready, Health: down})
		}
		for i := range count {
			r.judge(i, up)
			time.Sleep(17 * time.Millisecond)
		}
		synctest.Wait()
		pool := p.table.Load().pool(state.DefaultPool)
		p.mu.Lock()
		seen := &updates{Strategy: pool.strategy}
		pool.strategy = seen
		p.mu.Unlock()
		time.Sleep(100 * time.Second)
		synctest.Wait()
		p.mu.Lock()
		defer p.mu.Unlock()
		if seen.count < rampSteps-1 || seen.count > leastRest+1 {
			t.Errorf("got %d steps, want one for each tenth at least and %d at most", seen.count, leastRest+1)
		}
		if got := p.ramped(pool, pool.targets, time.Now()); len(got) != count || got[0].Unit != 0 {
			t.Errorf("got %d targets with weights in parts of %d, want all at their whole weight", len(got), got[0].Unit)
		}
	})
}
