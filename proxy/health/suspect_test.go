package health

import (
	"math/rand/v2"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"lbnode/state"
)

func TestReachableIsToldOnChangeOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab()
		defer l.Stop()
		l.Update(newFacts(t).add(1, state.Healthy), all)
		pass(10 * second)
		wantHeard(t, l)
		l.always(refused)
		pass(2 * second)
		wantHeard(t, l, "down")
		pass(20 * second)
		wantHeard(t, l, "unhealthy")
		l.always(fails) // it connects, but the probe does not pass
		pass(20 * second)
		wantHeard(t, l)
		l.always(passes)
		pass(2 * second)
		wantHeard(t, l, "up")
		pass(20 * second)
		wantHeard(t, l, "healthy")
	})
}

func TestSuspectIsProbedUntilItPasses(t *testing.T) {
	for _, test := range []struct {
		name     string
		observes func(string) bool
		wantEnd  []string
		after    int // probes in the 20 s after the pass
	}{
		{"by an observer", all, []string{"up"}, 10},
		{"by another node", none, []string{"up"}, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLab()
				defer l.Stop()
				l.Update(newFacts(t).add(1, state.Healthy), test.observes)
				l.always(refused)
				l.Suspect("1")
				synctest.Wait()
				wantProbes(t, l, 1, 1)
				wantHeard(t, l, "down")
				pass(2 * second)
				wantProbes(t, l, 1, 1)
				l.always(passes)
				pass(2 * second)
				wantProbes(t, l, 1, 1)
				wantHeard(t, l, test.wantEnd...)
				pass(20 * second)
				wantProbes(t, l, test.after, test.after)
				wantHeard(t, l)
			})
		})
	}
}

func TestSuspectThatPassesAtOnceIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab()
		defer l.Stop()
		l.Update(newFacts(t).add(1, state.Healthy), none)
		l.Suspect("1")
		synctest.Wait()
		wantHeard(t, l, "up")
		if got := l.Observations(); len(got) != 0 {
			t.Errorf("got observations %v of a backend that this node does not observe, want none", got)
		}
	})
}

func TestTrafficDoesNotSetThePace(t *testing.T) {
	for name, observes := range map[string]func(string) bool{"observed": all, "not observed": none} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLab()
				defer l.Stop()
				l.Update(newFacts(t).add(1, state.Healthy), observes)
				for range 10_000 {
					l.Suspect("1")
					pass(time.Millisecond)
				}
				wantProbes(t, l, 45, 51)
			})
		})
	}
}

func TestSuspectOutlivesObservationAndMaintenance(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, l := newFacts(t), newLab()
		defer l.Stop()
		l.always(refused)
		l.Update(f.add(1, state.Healthy), all)
		pass(2 * second)
		wantHeard(t, l, "down")
		l.Update(f.machine.View(), none)
		l.Update(f.patch("1", state.Backend{Admin: state.Maint}), none)
		l.Suspect("1")
		l.probes("1")
		pass(10 * second)
		wantProbes(t, l, 0, 0)
		l.always(passes)
		l.Update(f.patch("1", state.Backend{Admin: state.Ready}), none)
		pass(2 * second)
		wantHeard(t, l, "up")
	})
}

func TestSuspectUnknown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab()
		defer l.Stop()
		l.Suspect("1")
		l.Update(newFacts(t).add(1, state.Healthy), none)
		l.Suspect("2")
		pass(10 * second)
		wantProbes(t, l, 0, 0)
		wantHeard(t, l)
	})
}

// TestNoBackendStaysAvoided changes everything at random, several callers at a
// time, and then lets all probes pass: whoever was told, or found out, that a
// backend cannot be reached must hear that it can.
func TestNoBackendStaysAvoided(t *testing.T) {
	for seed := range uint64(20) {
		t.Run(strconv.FormatUint(seed, 10), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { churn(t, seed) })
		})
	}
}

func churn(t *testing.T, seed uint64) {
	const backends = 6
	random := rand.New(rand.NewPCG(seed, 2))
	f, l := newFacts(t), newLab()
	defer l.Stop()
	l.takes = 70 * time.Millisecond
	l.answerWith(func(*state.Backend) result { return []result{passes, fails, refused}[rand.IntN(3)] })
	l.Update(f.add(backends, state.Healthy), all)
	for range 300 {
		v := change(f, random, backends)
		var callers sync.WaitGroup
		for range 3 {
			half := random.IntN(2)
			suspect := strconv.Itoa(1 + random.IntN(backends))
			callers.Go(func() {
				l.Update(v, func(id string) bool { return int(id[0])%2 == half })
				l.hear(suspect, "down") // traffic avoids it from now on
				l.Suspect(suspect)
				l.Observations()
			})
		}
		callers.Wait()
		pass(time.Duration(random.IntN(1000)) * time.Millisecond)
	}
	l.always(passes)
	pass(5 * second)
	for i := 1; i <= backends; i++ {
		id := strconv.Itoa(i)
		b := f.machine.View().Pool(state.DefaultPool).Backend("web-" + id)
		if got := l.lastReach(id); got == "down" && b != nil && b.Admin != state.Maint {
			t.Errorf("backend %s is avoided for ever", id)
		}
	}
}

// change makes one random change to the facts.
func change(f *facts, random *rand.Rand, backends int) *state.View {
	id := strconv.Itoa(1 + random.IntN(backends))
	switch random.IntN(4) {
	case 0:
		return f.patch(id, state.Backend{Admin: []state.Admin{state.Ready, state.Maint}[random.IntN(2)]})
	case 1:
		return f.patch(id, state.Backend{Port: 2000 + int(f.index)})
	case 2:
		return f.check(state.HealthCheck{Path: "/" + id})
	}
	return f.judge(id, []state.Health{state.Healthy, state.Unhealthy}[random.IntN(2)])
}

func (l *lab) lastReach(id string) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	last := ""
	for _, c := range l.calls {
		if c.id == id && (c.what == "up" || c.what == "down") {
			last = c.what
		}
	}
	return last
}
