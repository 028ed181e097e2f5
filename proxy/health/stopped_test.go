package health

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"lbnode/state"
)

// stopped has the probe that is under way take so long, as if the process had been
// stopped in the middle of it, and bring that result.
func (l *lab) stopped(d time.Duration, r result) {
	l.mu.Lock()
	was, takes := l.answer, l.takes
	l.takes = d
	l.answer = func(b *state.Backend) result { // holding the mutex
		l.answer, l.takes = was, takes
		return r
	}
	l.mu.Unlock()
	before := l.begun("1")
	for l.begun("1") == before {
		pass(second / 100)
	}
	pass(d)
}

// What a probe brings over a time in which the process was stopped does not count, and
// it is made again at once.
func TestProbeOverAStopDoesNotCount(t *testing.T) {
	for _, test := range []struct {
		name   string
		health state.Health
		over   result
		after  result
		want   []string
	}{
		{"timeout", state.Healthy, result{connected: true, reason: "timeout after 1s"}, passes, nil},
		{"no connection", state.Healthy, result{reason: "timeout after 1s"}, passes, nil},
		{"a pass", state.Unhealthy, passes, fails, nil},
		{"a first pass", state.Starting, passes, fails, []string{"unhealthy"}},
		{"a first failure", state.Starting, refused, passes, []string{"healthy"}},
		{"a backend that has gone", state.Healthy, passes, refused, []string{"down"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f, l := newFacts(t), newLab()
				defer l.Stop()
				l.always(test.after)
				f.add(1, test.health)
				l.answerWith(func(*state.Backend) result { return test.after })
				l.Update(f.check(state.HealthCheck{Rise: 1, Fall: 2}), all)
				l.stopped(10*second, test.over)
				if test.want == nil {
					test.want = []string{}
				}
				wantHeard(t, l, test.want...)
				l.Stop()
				starts := l.starts["1"]
				if got := starts[1] - starts[0]; len(starts) != 2 || got != 10*second {
					t.Errorf("got probes at %v, want one right after that of 10 s", starts)
				}
				if failed := l.failures["web-1"]; failed > 0 == test.after.passed {
					t.Errorf("got %d failed probes counted, want those of the second", failed)
				}
			})
		})
	}
}

// A process that is always late still finds out, if only with each third probe.
func TestStarvedNodeIsNotBlind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab()
		defer l.Stop()
		l.takes = 3 * second // a timeout is due after one
		l.always(fails)
		l.Update(newFacts(t).add(1, state.Healthy), all)
		pass(9*l.takes - 1)
		wantHeard(t, l)
		if len(l.Observations()) > 0 {
			t.Errorf("got %+v, want nothing said before three have counted", l.Observations())
		}
		pass(3*2*second + 1) // each first of three began within an interval
		wantHeard(t, l, "unhealthy")
		l.always(passes)
		l.mu.Lock()
		l.takes = 0
		l.mu.Unlock()
		pass(8 * second)
		wantHeard(t, l, "healthy")
	})
}

// Without probes, what was observed is soon too old to be told.
func TestOldObservationIsNotTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, l := newFacts(t), newLab()
		defer l.Stop()
		f.add(1, state.Healthy)
		l.Update(f.check(state.HealthCheck{Interval: state.Duration(3 * second)}), all)
		pass(3 * second)
		l.mu.Lock()
		l.takes = time.Hour
		l.mu.Unlock()
		last, _ := l.Observation("1")
		for since := time.Since(last.At); since < 20*second; since = time.Since(last.At) {
			if got, want := len(l.Observations()) == 1, since <= 2*3*second+second+second; got != want {
				t.Errorf("got an observation of %s ago told: %t, want %t", since, got, want)
			}
			pass(second / 2)
		}
		if got, ok := l.Observation("1"); !ok || got != last {
			t.Errorf("got %+v, want the last one when asked for it", got)
		}
	})
}

// A node that was stopped believes nothing from before until its probes bear it out, and
// counts anew how long that is so.
func TestOpinionFromBeforeAStopIsNotTold(t *testing.T) {
	const s = second
	for _, test := range []struct {
		name   string
		after  []result      // of the probes after the stop
		want   []string      // after each: what is told, empty for nothing
		steady time.Duration // at most: the second probe is at a random moment
	}{
		{"it is as it was", []result{passes, passes}, []string{"healthy", "healthy"}, 2 * s},
		{"it fell ill", []result{fails, fails, fails, fails}, []string{"", "", "unhealthy", "unhealthy"}, 2 * s},
		{"it fails once", []result{fails, passes}, []string{"", "healthy"}, 2 * s},
		{"it cannot be reached", []result{refused, refused, refused}, []string{"", "", "unhealthy"}, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLab()
				defer l.Stop()
				l.Update(newFacts(t).add(1, state.Healthy), all)
				pass(20 * s)
				l.always(test.after[0]) // of the repeat
				l.stopped(10*s, passes)
				for i, want := range test.want {
					if i > 0 {
						l.always(test.after[i])
						pass(2 * s)
					}
					got := ""
					for _, o := range l.Observations() {
						got = map[bool]string{true: "healthy", false: "unhealthy"}[o.Healthy]
					}
					if got != want {
						t.Errorf("after probe %d: got %q told, want %q", i+1, got, want)
					}
				}
				if o, _ := l.Observation("1"); o.Steady > test.steady {
					t.Errorf("got an opinion that is steady for %s, want no more than %s", o.Steady, test.steady)
				}
			})
		})
	}
}

// All backends are due at once when a process goes on; that must not stay so.
func TestProbesAreSpreadAgainAfterAStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n, quarters = 400, 4
		l := newLab()
		defer l.Stop()
		goOn := make(chan struct{})
		l.Checker.probe = func(ctx context.Context, pool *state.Pool, b *state.Backend, last netip.Addr) result {
			<-goOn
			return l.fakeProbe(ctx, pool, b, last)
		}
		l.Update(newFacts(t).add(n, state.Healthy), all)
		pass(10 * second)
		resumed := time.Since(l.began)
		close(goOn)
		pass(4*second - 1)
		l.Stop()
		var got [quarters]int
		for id, starts := range l.starts {
			after := starts[slices.IndexFunc(starts, func(at time.Duration) bool { return at > resumed })] - resumed
			if after >= 2*second {
				t.Fatalf("backend %s: got probes at %v, want one within 2s of %s", id, starts, resumed)
			}
			got[after*quarters/(2*second)]++
		}
		for i, count := range got {
			if count < 60 || count > 140 { // 100 expected, standard deviation 9
				t.Errorf("quarter %d of the interval has %d of %d probes, want about %d", i, count, n, n/quarters)
			}
		}
	})
}

// A timeout that comes late is waited for anew, but not for ever.
func TestLimitBeginsAnewWhenItIsLate(t *testing.T) {
	began := time.Now()
	for _, test := range []struct {
		name string
		late []time.Duration // of each time that it is over
		want []bool
	}{
		{"in time", []time.Duration{0}, []bool{true}},
		{"a busy machine", []time.Duration{lateBy}, []bool{true}},
		{"stopped", []time.Duration{10 * second, 0}, []bool{false, true}},
		{"stopped twice", []time.Duration{10 * second, lateBy + 1, 0}, []bool{false, false, true}},
		{"starved", []time.Duration{second, second, second}, []bool{false, false, true}},
	} {
		l, now := limit{lasts: second, due: began.Add(second)}, began
		for i, late := range test.late {
			now = now.Add(second + late)
			if got := l.over(now); got != test.want[i] {
				t.Errorf("%s: got it over %t, want %t", test.name, got, test.want[i])
			}
		}
	}
}

func TestWithinEndsInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := within(t.Context(), second)
		defer cancel()
		began := time.Now()
		<-ctx.Done()
		if got := time.Since(began); got != second {
			t.Errorf("got it ended after %s, want 1s", got)
		}
		ctx, cancel = within(t.Context(), second)
		cancel()
		if !errors.Is(ctx.Err(), context.Canceled) {
			t.Errorf("got %v after it was given up, want it ended", ctx.Err())
		}
	})
}
