package balance

import (
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"testing"
	"time"
	"unsafe"
)

// crowd is a pool with attempts under way, which it begins and ends as the data plane
// does.
type crowd struct {
	strategy Strategy
	underWay []*Target
	picked   map[string]int
}

func newCrowd(s Strategy) *crowd { return &crowd{strategy: s, picked: map[string]int{}} }

func (c *crowd) count(delta int64) {
	if counter, ok := c.strategy.(Counter); ok {
		counter.Count(delta)
	}
}

func (c *crowd) begin(t *Target) {
	c.picked[t.ID]++
	c.underWay = append(c.underWay, t)
	t.InFlight.Add(1)
	c.count(1)
}

// end ends any attempt, each of which has taken 10 ms.
func (c *crowd) end() {
	i, last := rand.IntN(len(c.underWay)), len(c.underWay)-1
	t := c.underWay[i]
	c.underWay[i] = c.underWay[last]
	c.underWay = c.underWay[:last]
	t.InFlight.Add(-1)
	c.count(-1)
	if observer, ok := c.strategy.(Observer); ok {
		observer.Observe(t, Attempt{Latency: 10 * time.Millisecond})
	}
}

// What holds for every strategy: where targets do as well as their weights say, with many
// requests under way, their shares are their weights; only those that are eligible get
// any; and none that was tried is picked again.
func TestSharesAreTheWeights(t *testing.T) {
	const requests = 100_000
	for name, weights := range map[string][]int{
		"equal": {1, 1, 1, 1, 1, 1, 1}, "two": {1, 2}, "one": {3}, "mixed": {1, 2, 3, 4, 6, 8}, "heavy": {1, 1, 1, 20},
	} {
		t.Run(name, func(t *testing.T) {
			forEach(t, func(t *testing.T, build func(int, []*Target) Strategy) {
				total := 0
				for _, w := range weights {
					total += w
				}
				targets := weighted(weights...)
				s := build(1, append(weighted(1, 1, 1, 1, 1, 1, 1, 1, 1), &Target{ID: "gone", Weight: 9, Local: &Local{}}))
				s.Update(targets)
				c := newCrowd(s)
				for range requests {
					c.begin(s.Pick(rand.Uint64(), nil))
					if len(c.underWay) > 20*total {
						c.end()
					}
				}
				for _, target := range targets {
					want := requests * float64(target.Weight) / float64(total)
					if got := float64(c.picked[target.ID]); math.Abs(got-want) > 5*math.Sqrt(want)+want/50 {
						t.Errorf("weights %v: %s got %.0f of %d picks, want %.0f", weights, target.ID, got, requests, want)
					}
					delete(c.picked, target.ID)
				}
				if len(c.picked) > 0 {
					t.Errorf("got picks %v of targets that are not eligible", c.picked)
				}
			})
		})
	}
}

// With nothing under way and nothing known, the weights decide between equals: those that
// compare targets by what they do must not send all to one.
func TestSharesOfAnIdlePool(t *testing.T) {
	const requests = 60_000
	forEach(t, func(t *testing.T, build func(int, []*Target) Strategy) {
		targets := weighted(1, 2, 3)
		s := build(0, targets)
		if _, ok := s.(*leastTime); ok { // for which more weight is less time
			targets = equal(3)
			s.Update(targets)
		}
		got := picks(s, requests)
		total := 0
		for _, target := range targets {
			total += target.Weight
		}
		for _, target := range targets {
			want := requests * float64(target.Weight) / float64(total)
			if n := float64(got[target.ID]); math.Abs(n-want) > 5*math.Sqrt(want)+want/100 {
				t.Errorf("%s got %.0f picks of an idle pool, want %.0f", target.ID, n, want)
			}
		}
	})
}

// A retry is spread by weight, too, over the targets that are left.
func TestSharesOfRetries(t *testing.T) {
	const requests = 50_000
	forEach(t, func(t *testing.T, build func(int, []*Target) Strategy) {
		targets := equal(5)
		s := build(0, targets)
		got := map[string]int{}
		for range requests {
			first := s.Pick(rand.Uint64(), nil)
			got[s.Pick(rand.Uint64(), []*Target{first}).ID]++
		}
		for _, target := range targets {
			const want = requests / 5
			if n := got[target.ID]; math.Abs(float64(n-want)) > 5*math.Sqrt(want)+want/50 {
				t.Errorf("%s got %d retries, want %d", target.ID, n, want)
			}
		}
	})
}

func TestAnyNumberOfTargets(t *testing.T) {
	forEach(t, func(t *testing.T, build func(int, []*Target) Strategy) {
		for _, n := range []int{1, 2, 3, 64, 1000, 4096} {
			targets := equal(n)
			targets[n/2].Weight = 256
			s := build(n, targets)
			seen := map[string]bool{}
			for range 4 {
				got := s.Pick(rand.Uint64(), nil)
				if got == nil {
					t.Fatalf("%d targets: got none", n)
				}
				seen[got.ID] = true
				if other := s.Pick(rand.Uint64(), []*Target{got}); (other == nil) != (n == 1) || other == got {
					t.Fatalf("%d targets: got %v after %s, want another if there is one", n, other, got.ID)
				}
			}
		}
	})
}

// Whatever happens at once, what is picked was eligible at some time, and counts are
// right in the end.
func TestAllAtOnce(t *testing.T) {
	forEach(t, func(t *testing.T, build func(int, []*Target) Strategy) {
		all := equal(8)
		s := build(0, all)
		var running sync.WaitGroup
		for range 4 {
			running.Go(func() {
				c := newCrowd(s)
				for range 3000 {
					target := s.Pick(rand.Uint64(), nil)
					if target == nil {
						t.Error("got no target while there were always some")
						return
					}
					c.begin(target)
					if len(c.underWay) > 20 {
						c.end()
					}
				}
				for len(c.underWay) > 0 {
					c.end()
				}
			})
		}
		for i := range 300 {
			s.Update(all[i%4 : 4+i%5])
		}
		running.Wait()
		for _, target := range all {
			if got := target.InFlight.Load(); got != 0 {
				t.Errorf("%s: got %d attempts under way, want 0", target.ID, got)
			}
		}
		if h, ok := s.(*hash); ok && h.underWay.Load() != 0 {
			t.Errorf("got %d attempts of the pool under way, want 0", h.underWay.Load())
		}
	})
}

// A trial takes one request at a time. Strategies that compare targets must not take its
// target for the one with least to do.
func TestTrialIsNotLeast(t *testing.T) {
	for _, name := range []string{"least_connections", "least_time", "p2c"} {
		s, err := New(name, 0)
		if err != nil {
			t.Fatal(err)
		}
		targets := equal(3)
		for _, target := range targets {
			target.InFlight.Store(9)
		}
		targets[1].InFlight.Store(1)
		targets[1].Trial.Store(TrialRuns)
		s.Update(targets)
		if got := picks(s, 300)["b"]; got > 0 {
			t.Errorf("%s: got %d picks of a target on trial, want 0", name, got)
		}
		targets[1].Trial.Store(TrialWanted)
		if got := picks(s, 300)["b"]; got == 0 {
			t.Errorf("%s: got no pick of a target that a trial is wanted of", name)
		}
		s.Update(targets[1:2])
		targets[1].Trial.Store(TrialRuns)
		if got := s.Pick(0, nil); got == nil {
			t.Errorf("%s: got none, want the only target", name)
		}
	}
}

// What a strategy has learned is the backend's, not the strategy's.
func TestWhatWasLearnedSurvives(t *testing.T) {
	for _, name := range []string{"p2c", "least_time"} {
		t.Run(name, func(t *testing.T) {
			targets := equal(2)
			s, err := New(name, 0)
			if err != nil {
				t.Fatal(err)
			}
			s.Update(targets)
			for i, took := range []time.Duration{time.Millisecond, time.Second} {
				s.(Observer).Observe(targets[i], Attempt{Latency: took})
			}
			other, err := New(name, 0)
			if err != nil {
				t.Fatal(err)
			}
			again := []*Target{{ID: "a", Weight: 1, Local: targets[0].Local}, {ID: "b", Weight: 1, Local: targets[1].Local}}
			other.Update(again)
			if got := picks(other, 100); got["a"] != 100 {
				t.Errorf("got picks %v of a new strategy, want all for the target that was known to be fast", got)
			}
		})
	}
}

// Two backends in one cache line would slow each other's requests down.
func TestLocalFillsACacheLine(t *testing.T) {
	if got := unsafe.Sizeof(Local{}); got != 64 {
		t.Errorf("got %d bytes, want 64", got)
	}
}

func ExampleNew() {
	s, err := New("least_connections", 0)
	if err != nil {
		panic(err)
	}
	busy, idle := &Local{}, &Local{}
	busy.InFlight.Add(1)
	s.Update([]*Target{{ID: "busy", Weight: 1, Local: busy}, {ID: "idle", Weight: 1, Local: idle}})
	fmt.Println(s.Pick(0, nil).ID)
	// Output: idle
}
