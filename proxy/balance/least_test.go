package balance

import (
	"math/rand/v2"
	"testing"
	"time"
)

// still is a clock that stands.
func still() uint32 { return 1000 }

// disorder gives targets any weights, loads and times.
func disorder(r *rand.Rand, n int) []*Target {
	var weights []int
	for range n {
		weights = append(weights, 1+r.IntN(5))
	}
	targets := weighted(weights...)
	for _, t := range targets {
		t.InFlight.Store(r.Int64N(6))
		if r.IntN(5) > 0 {
			t.service.learn(uint64(1+r.IntN(3000)), 1000-uint32(r.IntN(9000)), 1)
			t.peak.learn(uint64(1+r.IntN(30_000)), 1000-uint32(r.IntN(3000)))
		}
	}
	return targets
}

// A strategy that says it takes the least is held to it by looking at all.
func TestLeastIsLeast(t *testing.T) {
	prior := uint64(unknown)
	tests := map[string]struct {
		strategy Strategy
		cost     func(t *Target) uint64 // times the weight
		most     int                    // targets of which all are looked at
	}{
		"least_connections": {newLeastConnections(), func(t *Target) uint64 { return t.load() }, 40},
		"least_time":        {newLeastTime(still), func(t *Target) uint64 { return (t.load() + 1) * (t.service.at(1000, prior) + prior/2) }, 40},
		"p2c":               {newP2C(still), func(t *Target) uint64 { return (t.load() + uint64(t.Weight)) * t.peak.need(1000, prior) }, 2},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			r := rand.New(rand.NewPCG(5, 6))
			for range 3000 {
				targets := disorder(r, 1+r.IntN(test.most))
				tried := targets[:r.IntN(min(3, len(targets)))]
				test.strategy.Update(targets)
				got := test.strategy.Pick(r.Uint64(), tried)
				for _, other := range targets[len(tried):] {
					if test.cost(other)*uint64(got.Weight) < test.cost(got)*uint64(other.Weight) {
						t.Fatalf("got one that costs %d for weight %d, beside one that costs %d for %d",
							test.cost(got), got.Weight, test.cost(other), other.Weight)
					}
				}
			}
		})
	}
}

// The loser of two that are drawn is never picked, but with three targets each pair is
// drawn, so that only the worst gets none.
func TestTwoChoices(t *testing.T) {
	s := newP2C(still)
	targets := equal(3)
	for i, took := range []time.Duration{10, 20, 30} {
		s.Observe(targets[i], Attempt{Latency: took * time.Millisecond})
	}
	s.Update(targets)
	got := picks(s, 30_000)
	if a, b := got["a"], got["b"]; got["c"] != 0 || a < 19_300 || a > 20_700 || a+b != 30_000 {
		t.Errorf("got %v, want two thirds for the best and one for the second", got)
	}
}

func TestPenalty(t *testing.T) {
	for name, s := range map[string]interface {
		Strategy
		Observer
	}{"least_time": newLeastTime(still), "p2c": newP2C(still)} {
		targets := equal(3)
		s.Update(targets)
		for range 50 {
			for i, target := range targets {
				a := Attempt{Latency: 20 * time.Millisecond}
				if i == 1 {
					a = Attempt{Latency: 50 * time.Microsecond, Failed: true}
				}
				s.Observe(target, a)
			}
		}
		if got := picks(s, 1000)["b"]; got > 0 {
			t.Errorf("%s: got %d picks of one that fails at once, want 0", name, got)
		}
		for range 50 {
			s.Observe(targets[1], Attempt{Latency: 10 * time.Millisecond})
		}
		if name == "least_time" { // p2c is slow to forget
			if got := picks(s, 1000)["b"]; got != 1000 {
				t.Errorf("got %d picks of one that does well again, want all", got)
			}
		}
	}
}

// Who seems slow is asked again some day, though not soon.
func TestSlowTargetIsTriedAgain(t *testing.T) {
	for name, test := range map[string]struct {
		build         func(func() uint32) Strategy
		least, atMost time.Duration
	}{
		"least_time": {func(now func() uint32) Strategy { return newLeastTime(now) }, 10 * time.Second, 16 * time.Second},
		"p2c":        {func(now func() uint32) Strategy { return newP2C(now) }, 2 * time.Second, 5 * time.Second},
	} {
		now := uint32(1)
		targets := equal(2)
		s := test.build(func() uint32 { return now })
		s.Update(targets)
		s.(Observer).Observe(targets[0], Attempt{Latency: 10 * time.Millisecond})
		s.(Observer).Observe(targets[1], Attempt{Latency: 100 * time.Millisecond})
		for took := 10 * time.Millisecond; s.Pick(0, nil) == targets[0]; took = 21*time.Millisecond - took { // by turns 10 and 11
			s.(Observer).Observe(targets[0], Attempt{Latency: took})
			if now++; now > 60_000 {
				t.Fatalf("%s: a target that took ten times as long once was not tried again for a minute", name)
			}
		}
		if after := time.Duration(now) << tickBits; after < test.least || after > test.atMost {
			t.Errorf("%s: tried again after %s, want %s to %s", name, after, test.least, test.atMost)
		}
	}
}

// One that nothing is known of is no better than the others, or else it would get all
// requests at once.
func TestNewTargetIsNotFlooded(t *testing.T) {
	s := newLeastTime(still)
	targets := equal(10)
	for range 100 {
		for _, target := range targets[1:] {
			s.Observe(target, Attempt{Latency: 50 * time.Millisecond})
		}
	}
	s.Update(targets)
	c := newCrowd(s)
	for range 500 {
		c.begin(s.Pick(0, nil))
	}
	if got := c.picked["a"]; got < 40 || got > 60 {
		t.Errorf("got %d of 500 picks for a new target of 10, want some 50", got)
	}
}

// What a node itself sends to a target must not make it look slow.
func TestQueueIsNotThePace(t *testing.T) {
	s := newLeastTime(still)
	targets := equal(2)
	for range 50 {
		s.Observe(targets[0], Attempt{Latency: 100 * time.Millisecond, Queue: 9})
		s.Observe(targets[1], Attempt{Latency: 20 * time.Millisecond})
	}
	s.Update(targets)
	if got := picks(s, 100)["a"]; got != 100 {
		t.Errorf("got %d of 100 picks for the faster one, want all", got)
	}
}
