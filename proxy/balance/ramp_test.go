package balance

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"time"
)

// scaled are copies of targets whose weights are counted in tenths.
func scaled(targets []*Target) []*Target {
	copies := make([]*Target, len(targets))
	for i, t := range targets {
		c := *t
		c.Weight, c.Unit = t.Weight*10, 10
		copies[i] = &c
	}
	return copies
}

// The heaviest targets there are have their shares when weights are counted in tenths,
// beside others that have only a part of theirs.
func TestSharesOnTheWay(t *testing.T) {
	const requests, total = 100_000, 256 + 128 + 26
	forEach(t, func(t *testing.T, build func(int, []*Target) Strategy) {
		targets := scaled(weighted(256, 128, 26))
		s := build(0, targets)
		c := newCrowd(s)
		for range requests {
			c.begin(s.Pick(rand.Uint64(), nil))
			if len(c.underWay) > 20*total {
				c.end()
			}
		}
		for _, target := range targets {
			want := requests * float64(target.Weight) / 10 / total
			if got := float64(c.picked[target.ID]); math.Abs(got-want) > 5*math.Sqrt(want)+want/50 {
				t.Errorf("a target of weight %d got %.0f picks, want %.0f", target.Weight, got, want)
			}
		}
	})
}

// Strategies that compare targets choose the same one however weights are counted.
func TestUnitIsNoCapacity(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	for range 3000 {
		targets := disorder(r, 2)
		s := newP2C(still)
		cost := func(t *Target) uint64 {
			return cost(t, 1000, unknown) * uint64(targets[0].Weight*targets[1].Weight/t.Weight)
		}
		if cost(targets[0]) == cost(targets[1]) {
			continue
		}
		s.Update(targets)
		want := s.Pick(0, nil).ID
		s.Update(scaled(targets))
		if got := s.Pick(0, nil).ID; got != want {
			t.Fatalf("p2c: got %s with weights in tenths, want %s", got, want)
		}
		one, other := weighted(targets[0].Weight), scaled(weighted(targets[0].Weight))
		attempt := Attempt{Latency: time.Duration(1 + r.IntN(1e9)), Queue: int64(r.IntN(50))}
		newLeastTime(still).Observe(one[0], attempt)
		newLeastTime(still).Observe(other[0], attempt)
		if got, want := other[0].service.at(1000, 0), one[0].service.at(1000, 0); got != want {
			t.Fatalf("least_time: got %d learned with weights in tenths, want %d", got, want)
		}
	}
}

// The ring of thousands on the way is no longer than it may be, and everybody's share is
// about that of its weight.
func TestRingOnTheWay(t *testing.T) {
	targets := ramping(4096, func(i int) int { return 1 + i*37%256 })
	total := 0
	for _, target := range targets {
		total += target.Weight
	}
	ring := smoothRing(targets)
	if len(ring) > rampRing+len(targets) {
		t.Errorf("got a ring of %d, want some %d at most", len(ring), rampRing)
	}
	count := map[*Target]int{}
	for _, target := range ring {
		count[target]++
	}
	for _, target := range targets {
		want := rampRing * float64(target.Weight) / float64(total)
		if got := count[target]; got == 0 || math.Abs(float64(got)-want) > 1 {
			t.Errorf("a target of weight %d stands there %d times, want some %.1f", target.Weight, got, want)
		}
	}
}

// ramping are n targets, each somewhere on its way to a weight.
func ramping(n int, weight func(i int) int) []*Target {
	targets := make([]*Target, n)
	for i := range targets {
		name := fmt.Sprintf("web-%d", i)
		targets[i] = &Target{ID: name, Name: name, Weight: weight(i) * (1 + i%10), Unit: 10, Local: &Local{}}
	}
	return targets
}

// BenchmarkRamp is what a step of a slow start takes in the largest pool, under the
// proxy's lock.
func BenchmarkRamp(b *testing.B) {
	for name := range strategies {
		for what, weight := range map[string]func(i int) int{
			"equal":   func(int) int { return 1 },
			"heavy":   func(int) int { return 256 },
			"weights": func(i int) int { return 1 + i*37%256 },
			"one heavy": func(i int) int {
				if i == 9 {
					return 256
				}
				return 1
			},
		} {
			b.Run(name+"/"+what, func(b *testing.B) {
				s, _ := New(name, 0)
				targets := [2][]*Target{ramping(4096, weight), ramping(4096, weight)}
				targets[1][0].Weight++
				for i := 0; b.Loop(); i++ {
					s.Update(targets[i%2])
				}
			})
		}
	}
}
