package health

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"lbnode/state"
)

func wantHeard(t *testing.T, l *lab, want ...string) {
	t.Helper()
	if got := l.heard(); !slices.Equal(got, want) {
		t.Errorf("the sink heard %v, want %v", got, want)
	}
}

func wantProbes(t *testing.T, l *lab, least, most int) {
	t.Helper()
	if got := l.probes("1"); got < least || got > most {
		t.Errorf("got %d probes, want %d to %d", got, least, most)
	}
}

func TestStartingBackendIsProbedAtOnce(t *testing.T) {
	for _, test := range []struct {
		name   string
		answer result
		want   []string
	}{
		{"passes", passes, []string{"healthy"}},
		{"fails", fails, []string{"unhealthy"}},
		{"is refused", refused, []string{"down", "unhealthy"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLab()
				defer l.Stop()
				l.always(test.answer)
				l.Update(newFacts(t).add(1, state.Starting), all)
				synctest.Wait()
				wantHeard(t, l, test.want...)
				wantProbes(t, l, 1, 1)
			})
		})
	}
}

func TestFirstProbesAreSpreadOverTheInterval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n, quarters = 400, 4
		l := newLab()
		defer l.Stop()
		l.Update(newFacts(t).add(n, state.Healthy), all)
		pass(2*second - 1)
		var got [quarters]int
		l.mu.Lock()
		for id, starts := range l.starts {
			if len(starts) != 1 {
				t.Errorf("backend %s: got probes at %v within the first interval, want one", id, starts)
			}
			got[starts[0]*quarters/(2*second)]++
		}
		l.mu.Unlock()
		for i, count := range got {
			if count < 60 || count > 140 { // 100 expected, standard deviation 9
				t.Errorf("quarter %d of the interval has %d of %d first probes, want about %d", i, count, n, n/quarters)
			}
		}
	})
}

func TestProbesFollowStartToStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab()
		defer l.Stop()
		l.takes = 900 * time.Millisecond
		v := newFacts(t).add(1, state.Healthy)
		l.Update(v, all)
		for range 20 {
			pass(second)
			l.Update(v, all) // changes nothing
		}
		l.Stop()
		starts := l.starts["1"]
		if len(starts) < 10 {
			t.Fatalf("got %d probes in 20 s, want at least 10", len(starts))
		}
		for i := 1; i < len(starts); i++ {
			if got := starts[i] - starts[i-1]; got != 2*second {
				t.Errorf("probe %d began %s after the one before, want 2s", i, got)
			}
		}
	})
}

// model is the opinion said in another way: the last rise or fall results decide.
type model struct {
	opinion state.Health
	history []bool
}

func (m *model) add(passed bool, rise, fall int) {
	m.history = append(m.history, passed)
	last := func(n int, want bool) bool {
		return len(m.history) >= n && !slices.Contains(m.history[len(m.history)-n:], !want)
	}
	switch {
	case m.opinion == state.Starting && passed, m.opinion == state.Unhealthy && last(rise, true):
		m.opinion = state.Healthy
	case m.opinion == state.Starting, m.opinion == state.Healthy && last(fall, false):
		m.opinion = state.Unhealthy
	}
}

func TestOpinionFollowsTheThresholds(t *testing.T) {
	for seed := range uint64(60) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { checkThresholds(t, rand.New(rand.NewPCG(seed, 1))) })
		})
	}
}

func checkThresholds(t *testing.T, random *rand.Rand) {
	f, l := newFacts(t), newLab()
	defer l.Stop()
	healths := []state.Health{state.Starting, state.Healthy, state.Unhealthy}
	m := model{opinion: healths[random.IntN(3)]}
	f.add(1, m.opinion)
	rise, fall := 1+random.IntN(4), 1+random.IntN(4)
	sequence := make([]result, 200)
	want, sticky := []string{}, random.Float64()
	for i := range sequence {
		sequence[i] = passes
		if i > 0 && random.Float64() < sticky {
			sequence[i] = sequence[i-1]
		} else if random.IntN(2) == 0 {
			sequence[i] = fails
		}
		before := m.opinion
		if m.add(sequence[i].passed, rise, fall); m.opinion != before {
			want = append(want, string(m.opinion))
		}
	}
	began := 0
	l.answerWith(func(*state.Backend) result {
		began++
		return sequence[began-1]
	})
	l.Update(f.check(state.HealthCheck{Interval: state.Duration(second), Rise: rise, Fall: fall}), all)
	for l.begun("1") < len(sequence) {
		pass(second)
	}
	wantHeard(t, l, want...)
	if got := l.Observations()[0]; got.Healthy != (m.opinion == state.Healthy) {
		t.Errorf("observed healthy %t, want opinion %s", got.Healthy, m.opinion)
	}
}

func TestObservationSaysWhatTheLastProbeFound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab()
		defer l.Stop()
		l.takes = 30 * time.Millisecond
		l.always(fails)
		l.Update(newFacts(t).add(1, state.Healthy), all)
		if got := l.Observations(); len(got) != 0 {
			t.Errorf("got observations %v before the first probe, want none", got)
		}
		pass(2*second + l.takes - 1) // the first probe has ended, the second has not
		got, first := l.Observations(), l.starts["1"][0]
		want := Observation{
			BackendID: "1",
			URL:       "http://10.0.0.1:1001",
			Healthy:   true, // one failure is below the threshold
			At:        l.began.Add(first + l.takes),
			Latency:   l.takes,
			Reason:    fails.reason,
			Steady:    first + l.takes,
		}
		if len(got) != 1 || got[0] != want {
			t.Errorf("got %+v, want %+v", got, want)
		}
	})
}

// An opinion is steady from the probe that changed it, whatever single probes say.
func TestOpinionIsSteadySinceItChanged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab()
		defer l.Stop()
		l.Update(newFacts(t).add(1, state.Starting), all)
		for _, step := range []struct {
			answer result
			want   time.Duration
		}{{passes, 0}, {passes, 2 * second}, {fails, 4 * second}, {fails, 6 * second}, {fails, 0}, {passes, 2 * second}, {passes, 0}, {passes, 2 * second}} {
			l.always(step.answer)
			if step.want > 0 || l.begun("1") > 0 {
				pass(2 * second)
			}
			synctest.Wait()
			if o, ok := l.Observation("1"); !ok || o.Steady != step.want {
				t.Errorf("after %d probes: got %v for %s, want %s", l.begun("1"), ok, o.Steady, step.want)
			}
		}
	})
}

// While this node does not think a backend healthy, it is probed at another interval.
func TestUnhealthyInterval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, l := newFacts(t), newLab()
		defer l.Stop()
		l.takes = 100 * time.Millisecond
		l.always(fails)
		f.add(1, state.Starting)
		l.Update(f.check(state.HealthCheck{Interval: state.Duration(4 * second), UnhealthyInterval: state.Duration(second)}), all)
		pass(10*second + second/2)
		wantProbes(t, l, 11, 11) // at 0 s, then once a second
		l.always(passes)
		pass(2 * second) // two of them make it healthy
		wantProbes(t, l, 2, 2)
		pass(40 * second)
		wantProbes(t, l, 10, 10)
		l.always(fails)
		pass(12 * second) // three of them make it unhealthy
		wantProbes(t, l, 3, 3)
		pass(10 * second)
		wantProbes(t, l, 10, 10)
	})
}

// Probes that take longer than their interval follow one another.
func TestProbesLongerThanTheUnhealthyInterval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, l := newFacts(t), newLab()
		defer l.Stop()
		l.takes = second
		l.always(fails)
		f.add(1, state.Starting)
		l.Update(f.check(state.HealthCheck{UnhealthyInterval: state.Duration(second / 4)}), all)
		pass(10*second + second/2)
		wantProbes(t, l, 11, 11)
	})
}

func TestOthersVerdictDoesNotChangeTheOpinion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, l := newFacts(t), newLab()
		defer l.Stop()
		l.Update(f.add(1, state.Healthy), all)
		pass(5 * second)
		l.Update(f.judge("1", state.Unhealthy), all)
		pass(20 * second)
		wantHeard(t, l)
		if got := l.Observations(); len(got) != 1 || !got[0].Healthy {
			t.Errorf("got %+v, want it healthy still", got)
		}
		l.always(fails)
		pass(6 * second)
		wantHeard(t, l, "unhealthy")
	})
}

func TestChangedCheckKeepsOpinionAndRestartsSchedule(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, l := newFacts(t), newLab()
		defer l.Stop()
		l.Update(f.add(1, state.Healthy), all)
		pass(2 * second)
		l.always(fails)
		pass(4 * second) // two failures of three
		l.probes("1")
		l.Update(f.check(state.HealthCheck{Interval: state.Duration(10 * second), Path: "/healthz"}), all)
		if got := l.Observations(); len(got) != 1 || !got[0].Healthy {
			t.Errorf("got %+v after the change, want the observation kept", got)
		}
		pass(20*second - 1)
		wantProbes(t, l, 2, 2)
		wantHeard(t, l) // the two failures of the old check do not count
		pass(10 * second)
		wantHeard(t, l, "unhealthy")
	})
}

func TestUnobservedBackendIsLeftAlone(t *testing.T) {
	for _, test := range []struct {
		name   string
		change func(f *facts, l *lab)
	}{
		{"maint", func(f *facts, l *lab) { l.Update(f.patch("1", state.Backend{Admin: state.Maint}), all) }},
		{"removed", func(f *facts, l *lab) {
			l.Update(f.do(&state.RemoveBackend{Pool: state.DefaultPool, Name: "web-1"}), all)
		}},
		{"pool removed", func(f *facts, l *lab) { l.Update(f.do(&state.DeletePool{Name: state.DefaultPool}), all) }},
		{"observed by others", func(f *facts, l *lab) { l.Update(f.machine.View(), none) }},
		{"stopped", func(f *facts, l *lab) {
			l.Stop()
			l.Update(f.machine.View(), all)
			l.Suspect("1")
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f, l := newFacts(t), newLab()
				defer l.Stop()
				l.takes = second / 2
				l.Update(f.add(1, state.Starting), all)
				pass(second / 4) // the first probe is under way, and its result comes too late
				test.change(f, l)
				l.probes("1")
				pass(20 * second)
				wantHeard(t, l)
				wantProbes(t, l, 0, 0)
				if got := l.Observations(); len(got) != 0 {
					t.Errorf("got observations %v, want none", got)
				}
			})
		})
	}
}

func TestNewObserverInheritsTheVerdict(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, l := newFacts(t), newLab()
		defer l.Stop()
		l.Update(f.add(1, state.Healthy), all)
		pass(5 * second)
		l.Update(f.machine.View(), none)
		l.Update(f.judge("1", state.Unhealthy), all)
		pass(2*second - 1)
		wantHeard(t, l) // one pass, rise is two
		pass(2 * second)
		wantHeard(t, l, "healthy")
	})
}

// What was agreed before maintenance says nothing of a backend after it.
func TestBackFromMaintenanceIsProbedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, l := newFacts(t), newLab()
		defer l.Stop()
		l.Update(f.add(1, state.Healthy), all)
		pass(5 * second)
		l.always(fails)
		l.Update(f.patch("1", state.Backend{Admin: state.Maint}), all)
		l.Update(f.patch("1", state.Backend{Admin: state.Ready}), all)
		pass(1)
		wantHeard(t, l, "unhealthy")
		if l.failures["web-1"] == 0 {
			t.Errorf("got %v failed checks, want one counted", l.failures)
		}
	})
}

func TestMovedBackendStartsAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, l := newFacts(t), newLab()
		defer l.Stop()
		l.Update(f.add(1, state.Healthy), all)
		pass(5 * second)
		l.always(fails)
		l.Update(f.patch("1", state.Backend{Port: 9999}), all)
		synctest.Wait()
		wantHeard(t, l, "unhealthy")
		if got, want := l.Observations()[0].URL, "http://10.0.0.1:9999"; got != want {
			t.Errorf("got an observation of %s, want %s", got, want)
		}
	})
}

func TestOtherChangesDoNotTouchTheSchedule(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, l := newFacts(t), newLab()
		defer l.Stop()
		l.Update(f.add(1, state.Healthy), all)
		for i := range 100 {
			l.Update(f.patch("1", state.Backend{Weight: 1 + i, Admin: []state.Admin{state.Ready, state.Drain}[i%2]}), all)
			pass(second / 10)
		}
		wantProbes(t, l, 5, 5)
	})
}

func TestOlderViewIsPassedOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, l := newFacts(t), newLab()
		defer l.Stop()
		older := f.do(&state.CreatePool{Pool: state.Pool{Name: state.DefaultPool}})
		newer := f.add(1, state.Starting)
		l.Update(newer, all)
		l.Update(older, all)
		pass(10 * second)
		wantProbes(t, l, 5, 6)
	})
}

// chatty is a sink that asks the Checker back, as a sink may.
type chatty struct{ *lab }

func (s chatty) Judged(o Observation) {
	s.Suspect(o.BackendID)
	s.Update(s.view, all)
	s.lab.Judged(o)
}

func (s chatty) Reachable(id string, ok bool) {
	s.Observations()
	s.lab.Reachable(id, ok)
}

func TestSinkMayCallTheChecker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab()
		defer l.Stop()
		l.sink = chatty{l}
		l.Update(newFacts(t).add(1, state.Starting), all)
		pass(second)
		wantHeard(t, l, "healthy", "up")
	})
}
