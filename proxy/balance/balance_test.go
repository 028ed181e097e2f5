package balance

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"
)

// weighted makes one target per weight, with the ids a, b, c...
func weighted(weights ...int) []*Target {
	var targets []*Target
	for i, w := range weights {
		id := string(rune('a' + i))
		if i >= 26 {
			id = fmt.Sprint("z", i)
		}
		targets = append(targets, &Target{ID: id, Name: id, Weight: w, Local: &Local{}})
	}
	return targets
}

func equal(n int) []*Target { return weighted(slices.Repeat([]int{1}, n)...) }

// forEach runs a test for every strategy there is.
func forEach(t *testing.T, test func(t *testing.T, build func(offset int, targets []*Target) Strategy)) {
	for name := range strategies {
		t.Run(name, func(t *testing.T) {
			test(t, func(offset int, targets []*Target) Strategy {
				s, err := New(name, offset)
				if err != nil {
					t.Fatalf("New(%q): %v", name, err)
				}
				s.Update(targets)
				return s
			})
		})
	}
}

// roundRobins runs a test for the one strategy whose shares are exact at any time.
func roundRobins(t *testing.T, test func(t *testing.T, build func(offset int, targets []*Target) Strategy)) {
	test(t, func(offset int, targets []*Target) Strategy {
		s := newRoundRobin(offset)
		s.Update(targets)
		return s
	})
}

func picks(s Strategy, n int) map[string]int {
	counts := map[string]int{}
	for range n {
		counts[s.Pick(rand.Uint64(), nil).ID]++
	}
	return counts
}

func TestSharesAreExactOverWholeTurns(t *testing.T) {
	roundRobins(t, func(t *testing.T, build func(int, []*Target) Strategy) {
		random := rand.New(rand.NewPCG(1, 2))
		for range 200 {
			var weights []int
			total := 0
			for range 1 + random.IntN(8) {
				w := 1 + random.IntN(30)
				weights, total = append(weights, w), total+w
			}
			targets := weighted(weights...)
			s := build(random.IntN(1000), targets)
			picks(s, random.IntN(50)) // a turn may begin anywhere
			turns := 1 + random.IntN(3)
			got := picks(s, turns*total)
			for _, target := range targets {
				if want := turns * target.Weight; got[target.ID] != want {
					t.Fatalf("weights %v, %d turns: %s got %d picks, want %d", weights, turns, target.ID, got[target.ID], want)
				}
			}
		}
	})
}

// With weights, too, nobody is ever two requests from its share, wherever one begins to
// count. One request is more than can be had: nothing is as good for weights 4, 3 and 2.
func TestWeightsHoldOverAnyWindow(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	for range 500 {
		var weights []int
		total := 0
		for range 1 + random.IntN(12) {
			w := 1 + random.IntN(30)
			weights, total = append(weights, w), total+w
		}
		targets := weighted(weights...)
		ring := smoothRing(targets)
		for _, target := range targets {
			share := float64(target.Weight) / float64(total)
			off, least, most := 0.0, 0.0, 0.0
			for _, picked := range ring {
				if picked == target {
					off++
				}
				off -= share
				least, most = min(least, off), max(most, off)
			}
			if most-least >= 2 {
				t.Errorf("weights %v: over some window %s is %.2f picks from its share, want less than 2", weights, target.ID, most-least)
			}
		}
	}
}

func TestEqualWeightsAreEvenOverAnyWindow(t *testing.T) {
	roundRobins(t, func(t *testing.T, build func(int, []*Target) Strategy) {
		for n := 1; n <= 12; n++ {
			for window := 1; window <= 40; window++ {
				s := build(window, equal(n))
				picks(s, window*7%5)
				got := picks(s, window)
				least := window
				for _, target := range equal(n) {
					least = min(least, got[target.ID])
				}
				if most := slices.Max(slices.Collect(maps.Values(got))); most-least > 1 {
					t.Fatalf("%d targets, window of %d: got %v, want within 1 of each other", n, window, got)
				}
			}
		}
	})
}

func TestNeverPicksOneThatWasTried(t *testing.T) {
	forEach(t, func(t *testing.T, build func(int, []*Target) Strategy) {
		random := rand.New(rand.NewPCG(3, 4))
		for range 500 {
			n := 1 + random.IntN(6)
			var weights []int
			for range n {
				weights = append(weights, 1+random.IntN(9))
			}
			s := build(random.IntN(20), weighted(weights...))
			var tried []*Target
			for range n {
				got := s.Pick(rand.Uint64(), tried)
				if got == nil || got.among(tried) {
					t.Fatalf("weights %v: got %v after %v, want one not yet tried", weights, got, tried)
				}
				// A change of the view makes other Targets of the same backends.
				tried = append(tried, &Target{ID: got.ID})
			}
			if got := s.Pick(rand.Uint64(), tried); got != nil {
				t.Fatalf("weights %v: got %s with all tried, want none", weights, got.ID)
			}
		}
	})
}

func TestNothingToPick(t *testing.T) {
	forEach(t, func(t *testing.T, build func(int, []*Target) Strategy) {
		s := build(3, nil)
		if got := s.Pick(rand.Uint64(), nil); got != nil {
			t.Errorf("got %v of no targets, want none", got)
		}
		s.Update(equal(2))
		s.Update(nil)
		if got := s.Pick(rand.Uint64(), nil); got != nil {
			t.Errorf("got %v after the last target went, want none", got)
		}
	})
}

func TestConcurrentPicksAddUp(t *testing.T) {
	roundRobins(t, func(t *testing.T, build func(int, []*Target) Strategy) {
		const workers, each = 8, 1500
		targets := weighted(1, 2, 3)
		s := build(5, targets)
		counts := [workers]map[string]int{}
		var running sync.WaitGroup
		for i := range workers {
			running.Go(func() { counts[i] = picks(s, each) })
		}
		running.Wait()
		for _, target := range targets {
			got := 0
			for _, c := range counts {
				got += c[target.ID]
			}
			if want := workers * each * target.Weight / 6; got != want {
				t.Errorf("%s got %d picks, want %d", target.ID, got, want)
			}
		}
	})
}

func TestPickDuringUpdates(t *testing.T) {
	forEach(t, func(t *testing.T, build func(int, []*Target) Strategy) {
		s := build(0, equal(3))
		var running sync.WaitGroup
		for range 4 {
			running.Go(func() {
				for range 2000 {
					if s.Pick(rand.Uint64(), nil) == nil {
						t.Error("got no target while there were always some")
						return
					}
				}
			})
		}
		for i := range 500 {
			s.Update(weighted(slices.Repeat([]int{1 + i%3}, 1+i%5)...))
		}
		running.Wait()
	})
}

func TestPickDoesNotAllocate(t *testing.T) {
	forEach(t, func(t *testing.T, build func(int, []*Target) Strategy) {
		targets := weighted(3, 2, 1)
		s := build(0, targets)
		tried := targets[:2]
		if got := testing.AllocsPerRun(1000, func() { s.Pick(rand.Uint64(), nil); s.Pick(rand.Uint64(), tried) }); got != 0 {
			t.Errorf("got %v allocations, want 0", got)
		}
	})
}

func TestTurnSurvivesUpdate(t *testing.T) {
	roundRobins(t, func(t *testing.T, build func(int, []*Target) Strategy) {
		targets := equal(4)
		s := build(0, targets)
		got := map[string]int{}
		for range 400 {
			got[s.Pick(rand.Uint64(), nil).ID]++
			s.Update(targets)
		}
		for id, n := range got {
			if n != 100 {
				t.Errorf("%s got %d picks with an update after each, want 100", id, n)
			}
		}
	})
}

func TestOffsetsDoNotPickInStep(t *testing.T) {
	roundRobins(t, func(t *testing.T, build func(int, []*Target) Strategy) {
		seen := map[string]bool{}
		for node := range 3 {
			seen[build(node, equal(3)).Pick(0, nil).ID] = true
		}
		if len(seen) != 3 {
			t.Errorf("three nodes began with %d different targets, want 3", len(seen))
		}
	})
}

func TestUnknownStrategy(t *testing.T) {
	if s, err := New("by_magic", 0); err == nil {
		t.Errorf("got %v, want an error", s)
	}
}

func TestNames(t *testing.T) {
	got := Names()
	if len(got) != len(strategies) || !slices.IsSorted(got) || !slices.Contains(got, "least_time") {
		t.Errorf("got %v, want the names of all strategies in order", got)
	}
}

// With another clock, what was learned grows old by that one.
func TestOtherClock(t *testing.T) {
	for _, name := range []string{"least_time", "p2c"} {
		var now time.Duration
		s, err := NewWithClock(name, 0, func() time.Duration { return now })
		if err != nil {
			t.Fatal(err)
		}
		targets := equal(2)
		s.Update(targets)
		for i, took := range []time.Duration{time.Millisecond, 10 * time.Millisecond} {
			s.(Observer).Observe(targets[i], Attempt{Latency: took})
		}
		if got := picks(s, 100)["b"]; got != 0 {
			t.Errorf("%s: got %d picks of the slower one, want 0", name, got)
		}
		now = time.Minute
		s.(Observer).Observe(targets[0], Attempt{Latency: 5 * time.Millisecond})
		if got := picks(s, 100)["b"]; got != 100 {
			t.Errorf("%s: got %d picks of one that was slow a minute ago, want all", name, got)
		}
	}
}

func TestRoundRobinIsSmooth(t *testing.T) {
	tests := []struct {
		weights []int
		want    string
	}{
		{[]int{1, 1, 1}, "abc"},
		{[]int{7, 7}, "ab"},
		{[]int{5, 1, 1}, "aabacaa"},
		{[]int{2, 4}, "bab"},
		{[]int{256}, "a"},
	}
	for _, test := range tests {
		got := ""
		for _, target := range smoothRing(weighted(test.weights...)) {
			got += target.ID
		}
		if got != test.want {
			t.Errorf("weights %v: got %s, want %s", test.weights, got, test.want)
		}
	}
}

func TestLargeRingIsSmooth(t *testing.T) {
	random := rand.New(rand.NewPCG(11, 12))
	var weights []int
	for range 4096 {
		weights = append(weights, 1+random.IntN(256))
	}
	targets := weighted(weights...)
	ring := smoothRing(targets)
	last, count := map[*Target]int{}, map[*Target]int{}
	for i, target := range ring {
		if before, ok := last[target]; ok {
			if gap, want := float64(i-before), float64(len(ring))/float64(target.Weight); gap < want*0.9 || gap > want*1.1 {
				t.Fatalf("a target of weight %d stands %.0f places behind itself, want some %.0f", target.Weight, gap, want)
			}
		}
		last[target] = i
		count[target]++
	}
	for _, target := range targets {
		if count[target] != target.Weight {
			t.Errorf("a target of weight %d stands there %d times", target.Weight, count[target])
		}
	}
}

func BenchmarkUpdate(b *testing.B) {
	for name := range strategies {
		b.Run(name, func(b *testing.B) {
			s, err := New(name, 0)
			if err != nil {
				b.Fatal(err)
			}
			var weights []int
			for i := range 4096 {
				weights = append(weights, 1+i*7%256)
			}
			targets := weighted(weights...)
			for i := range b.N {
				s.Update(targets[i%2:])
			}
		})
	}
}

// BenchmarkPick has some attempts under way at each target, each of which has answered before.
func BenchmarkPick(b *testing.B) {
	for name := range strategies {
		for _, n := range []int{10, 100, 1000, 10000} {
			b.Run(fmt.Sprintf("%s/%d", name, n), func(b *testing.B) {
				s, err := New(name, 0)
				if err != nil {
					b.Fatal(err)
				}
				targets := equal(n)
				s.Update(targets)
				begin(s, targets)
				b.ReportAllocs()
				b.ResetTimer()
				b.RunParallel(func(pb *testing.PB) {
					key := rand.Uint64()
					for pb.Next() {
						key++
						s.Pick(key, nil)
					}
				})
			})
		}
	}
}

// begin gives each target ten attempts or so, and one that is over.
func begin(s Strategy, targets []*Target) {
	for _, t := range targets {
		n := 8 + rand.Int64N(4)
		t.InFlight.Add(n)
		if counter, ok := s.(Counter); ok {
			counter.Count(n)
		}
		if observer, ok := s.(Observer); ok {
			observer.Observe(t, Attempt{Latency: rand.N(10 * time.Millisecond)})
		}
	}
}
