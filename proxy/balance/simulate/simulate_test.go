package simulate

import (
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

// plain is a world in which nothing happens.
func plain() World {
	return World{Balancers: 1, Backends: 1, Servers: 1, Load: 0.7, Mean: 10 * time.Millisecond, Time: 20 * time.Second}
}

func mustRun(t *testing.T, w World, strategy string) *Result {
	t.Helper()
	r, err := Run(w, strategy)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// What is known of one queue, whose requests come at random and take exponential times:
// how long they take is exponential, too, with a mean of mean/(1-load). Backends that requests
// are drawn for at random are each such a queue.
func TestOneServerIsAsTheorySays(t *testing.T) {
	w := plain()
	w.Backends, w.Time = 50, 250*time.Second
	for _, load := range []float64{0.5, 0.8} {
		w.Load = load
		r := mustRun(t, w, "random")
		scale := w.Mean.Seconds() / (1 - load)
		for _, test := range []struct {
			share  float64
			got    time.Duration
			within float64 // five times what it strays, or so: few requests make the tail
		}{{0.5, r.P50, 0.05}, {0.99, r.P99, 0.08}, {0.999, r.P999, 0.16}} {
			want := -scale * math.Log(1-test.share)
			if got := test.got.Seconds(); math.Abs(got/want-1) > test.within {
				t.Errorf("load %g: got %.1f ms for the quickest %g, want %.1f within %.0f %%", load, 1e3*got, test.share, 1e3*want, 100*test.within)
			}
		}
	}
}

// One queue for k servers, by Erlang's formula: who has to wait waits exponentially long.
func TestSomeServersAreAsTheorySays(t *testing.T) {
	for _, servers := range []int{1, 2, 8} {
		w := plain()
		w.Servers, w.Load, w.Time = servers, 0.8, time.Duration(2000/servers)*time.Second
		r, err := newRun(w, "round_robin")
		if err != nil {
			t.Fatal(err)
		}
		r.play()
		got := 0.0
		for _, took := range r.took {
			got += took.Seconds() / float64(len(r.took))
		}
		want := w.Mean.Seconds() * (1 + erlangC(servers, w.Load*float64(servers))/(float64(servers)*(1-w.Load)))
		if math.Abs(got/want-1) > 0.05 {
			t.Errorf("%d servers: got %.2f ms in the mean, want %.2f within 5 %%", servers, 1e3*got, 1e3*want)
		}
	}
}

// erlangC is the share of requests that have to wait for one of k servers.
func erlangC(k int, offered float64) float64 {
	blocked := 1.0 // by Erlang's other formula, one server after the other
	for n := range k {
		blocked = offered * blocked / (float64(n+1) + offered*blocked)
	}
	return blocked / (1 - offered/float64(k)*(1-blocked))
}

// Work that is begun before, in and after spells is done when all of it adds up.
func TestFinish(t *testing.T) {
	spells := []spell{{100, 200, 10}, {300, 350, 2}, {1000, forever, 4}}
	for _, test := range []struct {
		begin int64
		work  float64
		want  int64
	}{
		{0, 50, 50}, {0, 100, 100}, {0, 105, 150}, {0, 110, 200}, {0, 111, 201},
		{150, 5, 200}, {150, 6, 201}, {200, 100, 300}, {200, 125, 350}, {200, 126, 351},
		{0, 100 + 10 + 100 + 25 + 650, 1000}, {0, 886, 1004}, {5000, 7, 5028},
	} {
		b := &backend{spells: spells}
		if got := b.finish(test.begin, test.work); got != test.want {
			t.Errorf("%g begun at %d: got done at %d, want %d", test.work, test.begin, got, test.want)
		}
	}
}

func TestEventsComeInOrder(t *testing.T) {
	var e events
	random := seeded(1, 2)
	var want []int64
	for range 1000 {
		at := random.Int64N(500)
		e.push(event{at: at})
		want = append(want, at)
	}
	slices.Sort(want)
	for i, at := range want {
		if got := e.pop().at; got != at {
			t.Fatalf("event %d: got %d, want %d", i, got, at)
		}
	}
}

// Whatever is seeded is the same again, and for another strategy: as many requests, and the
// same backends slow at the same times. With another seed it is not.
func TestSeededIsTheSame(t *testing.T) {
	w := plain()
	w.Balancers, w.Backends, w.SlowShare, w.SlowTime, w.Churn = 3, 10, 0.1, time.Second, true
	for _, strategy := range []string{"round_robin", "hash", ReferenceInFlight, ReferenceAll} { // that draw nothing unseeded
		w.Seed = 1
		one, again := mustRun(t, w, strategy), mustRun(t, w, strategy)
		if !reflect.DeepEqual(one, again) {
			t.Errorf("%s: got %+v and then %+v with the same seed", strategy, one, again)
		}
		w.Seed = 2
		if other := mustRun(t, w, strategy); reflect.DeepEqual(one, other) {
			t.Errorf("%s: got %+v with two seeds", strategy, one)
		}
	}
	w.Seed = 1
	var first *run
	for _, strategy := range Names() {
		r, err := newRun(w, strategy)
		if err != nil {
			t.Fatal(err)
		}
		r.play()
		if first == nil {
			first = r
		}
		if r.requests != first.requests {
			t.Errorf("%s: got %d requests, beside %d of another strategy", strategy, r.requests, first.requests)
		}
		for i, b := range r.backends {
			if !slices.Equal(b.spells, first.backends[i].spells) {
				t.Errorf("%s: backend %d is slow at other times than with another strategy", strategy, i)
			}
		}
	}
}

// All attempts are over in the end, and no queue keeps one.
func TestNothingIsLeft(t *testing.T) {
	for _, s := range Scenarios() {
		w := s.With(3, 10)
		w.Time = 4 * time.Second
		for _, strategy := range Names() {
			r, err := newRun(w, strategy)
			if err != nil {
				t.Fatal(err)
			}
			r.play()
			for _, b := range r.backends {
				if b.queue != 0 {
					t.Errorf("%s, %s: got %d requests left at %s", s.Name, strategy, b.queue, b.id)
				}
			}
			for _, b := range r.balancers {
				for _, target := range b.targets {
					if got := target.InFlight.Load(); got != 0 {
						t.Errorf("%s, %s: got %d attempts under way at %s", s.Name, strategy, got, target.ID)
					}
				}
			}
			if got := r.result(); got.Requests == 0 || got.P50 <= 0 || got.P99 < got.P50 || got.P999 < got.P99 || got.Longest < 1 {
				t.Errorf("%s, %s: got %+v", s.Name, strategy, got)
			}
		}
	}
}

// What befalls the world shows.
func TestScenarioShows(t *testing.T) {
	w := plain()
	w.Balancers, w.Backends = 3, 20
	bad := w
	bad.Trouble = Failing
	if r := mustRun(t, bad, "round_robin"); r.Eject != Never || r.Errors < r.Requests/40 || r.Errors > r.Requests/20 {
		t.Errorf("failing, round robin: got %d errors of %d and %s to eject, want a twentieth of seven eighths, never", r.Errors, r.Requests, r.Eject)
	}
	if r := mustRun(t, bad, "least_time"); r.Eject > time.Second || r.Errors > r.Requests/500 {
		t.Errorf("failing, least time: got %d errors of %d and %s to eject, want next to none, within a second", r.Errors, r.Requests, r.Eject)
	}
	bad.Trouble, bad.Try = BlackHole, time.Second
	if r := mustRun(t, bad, "round_robin"); r.Errors != 0 || r.P99 < time.Second || r.P99 > 1200*time.Millisecond {
		t.Errorf("black hole: got %d errors and a p99 of %s, want none: all are asked for again after a second", r.Errors, r.P99)
	}
	if r := mustRun(t, bad, ReferenceAll); r.Eject != 0 || r.P99 > 200*time.Millisecond {
		t.Errorf("black hole, all knowledge: got a p99 of %s and %s to eject, want that it never asks there", r.P99, r.Eject)
	}
	bad.Trouble, bad.Try = Slow, 0
	if r := mustRun(t, bad, "round_robin"); r.Longest < 300 {
		t.Errorf("slow: got at most %d requests at a backend, want all that it cannot keep up with", r.Longest)
	}
	joined := w
	joined.Joining = 5
	r := mustRun(t, joined, "round_robin")
	if got, want := r.Shares[24], r.Shares[0]*20/25; got < want*3/5 || got > want*3/2 {
		t.Errorf("join: got shares %v, want the last to have some less than the first", r.Shares)
	}
}

// The first balancer leaves, and the one that joins gets its share until the end.
func TestTraffic(t *testing.T) {
	w := plain()
	w.Balancers, w.Skew, w.Churn = 3, 1, true
	r, err := newRun(w, "random")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range [][]float64{{1, 1.5, 1 + 0.5 + 1.0/3}, {1, 1.5, 1 + 0.5 + 1.0/3, 1 + 0.5 + 1.0/3 + 0.25}, {1, 1.5, 1 + 0.5 + 1.0/3}} {
		if !slices.EqualFunc(r.traffic, want, func(a, b float64) bool { return math.Abs(a-b) < 1e-9 }) {
			t.Errorf("got traffic %v, want %v", r.traffic, want)
		}
		if len(r.changes) > 0 {
			r.changes[0].do()
			r.changes = r.changes[1:]
		}
	}
	if r.active[0] == r.balancers[0] || len(r.active) != 3 {
		t.Errorf("got %d balancers in the end, want 3 without the first", len(r.active))
	}
}

func TestServiceTimes(t *testing.T) {
	random := seeded(3, 4)
	const draws = 400_000
	for service, p99 := range map[Service]float64{Exponential: 4.6, Pareto: 7.4, Lognormal: 10.6} {
		var all []time.Duration
		mean := 0.0
		for range draws {
			d := service.draw(random, time.Second)
			all = append(all, time.Duration(d))
			mean += float64(d) / 1e9 / draws
		}
		slices.Sort(all)
		if math.Abs(mean-1) > 0.03 {
			t.Errorf("%s: got a mean of %.3f, want 1", service, mean)
		}
		if got := quantile(all, 0.99).Seconds(); math.Abs(got/p99-1) > 0.04 {
			t.Errorf("%s: got %.2f times the mean for the quickest 99 %%, want %.2f", service, got, p99)
		}
		if parsed, err := ParseService(service.String()); err != nil || parsed != service {
			t.Errorf("%s: got %v, %v of its name", service, parsed, err)
		}
	}
	if _, err := ParseService("normal"); err == nil || !strings.Contains(err.Error(), "lognormal") {
		t.Errorf("got %v, want an error that says what there is", err)
	}
}

// Slow for a share of the time, in spells of a length.
func TestSpells(t *testing.T) {
	w := plain()
	w.SlowShare, w.SlowTime, w.Time = 0.1, time.Second, 20000*time.Second
	r := &run{World: w}
	slow, spells := 0.0, r.drawSpells(seeded(5, 6))
	for _, s := range spells {
		slow += float64(s.until - s.from)
	}
	if got := slow / float64(w.Time); math.Abs(got-0.1) > 0.01 {
		t.Errorf("got slow for %.3f of the time, want 0.1", got)
	}
	if got := slow / float64(len(spells)) / 1e9; math.Abs(got-1) > 0.1 {
		t.Errorf("got spells of %.2f s, want 1", got)
	}
}

func TestBudget(t *testing.T) {
	b := newBudget()
	granted := func(n int, now int64) (got int) {
		for range n {
			if b.withdraw(now) {
				got++
			}
		}
		return got
	}
	if got := granted(600, 0); got != retryBurst+freePerSecond {
		t.Errorf("got %d retries at once, want %d", got, retryBurst+freePerSecond)
	}
	for range 50 {
		b.deposit()
	}
	if got := granted(100, int64(time.Second)); got != 10+freePerSecond {
		t.Errorf("got %d retries for 50 requests a second later, want %d", got, 10+freePerSecond)
	}
}

func TestWorldsThatCannotBe(t *testing.T) {
	for name, spoil := range map[string]func(w *World){
		"no balancer":    func(w *World) { w.Balancers = 0 },
		"no backend":     func(w *World) { w.Backends = 0 },
		"no server":      func(w *World) { w.Servers = 0 },
		"no load":        func(w *World) { w.Load = 0 },
		"overload":       func(w *World) { w.Load = 1 },
		"not a load":     func(w *World) { w.Load = math.NaN() },
		"no time":        func(w *World) { w.Time = 0 },
		"no work":        func(w *World) { w.Mean = 0 },
		"always slow":    func(w *World) { w.SlowShare = 1 },
		"spells of 0 s":  func(w *World) { w.SlowShare = 0.1 },
		"few weights":    func(w *World) { w.Weights = []int{1, 2}; w.Backends = 3 },
		"weight 0":       func(w *World) { w.Weights = []int{0} },
		"unknown kind":   func(w *World) { w.Service = 99 },
		"negative joins": func(w *World) { w.Joining = -1 },
	} {
		w := plain()
		spoil(&w)
		if r, err := Run(w, "random"); err == nil {
			t.Errorf("%s: got %+v, want an error", name, r)
		}
	}
	if _, err := Run(plain(), "by_magic"); err == nil || !strings.Contains(err.Error(), "least_time") {
		t.Errorf("got %v for a strategy that is not there, want an error that says what is", err)
	}
}
