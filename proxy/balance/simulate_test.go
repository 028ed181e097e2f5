package balance_test

import (
	"math"
	"slices"
	"testing"
	"time"

	"lbnode/proxy/balance/simulate"
)

// run has a strategy face a world.
func run(t *testing.T, w simulate.World, strategy string) *simulate.Result {
	t.Helper()
	r, err := simulate.Run(w, strategy)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// What leastTime is for: pools in which a few backends are slow at any time, seen by many
// nodes.
func TestLeastTimeAvoidsSlowBackends(t *testing.T) {
	w := simulate.World{Balancers: 16, Backends: 100, Servers: 1, Load: 0.8, Mean: 10 * time.Millisecond, Time: 8 * time.Second,
		SlowShare: 0.05, SlowTime: time.Second, Seed: 7}
	best := run(t, w, "least_time").P99
	if best > 120*time.Millisecond {
		t.Errorf("got %s as the 99th percentile, want less than 120 ms", best)
	}
	for other, times := range map[string]float64{
		simulate.ReferenceInFlight: 4, "least_connections": 1.5, "p2c": 2.5, "random": 10, "round_robin": 10,
	} {
		if got := run(t, w, other).P99; got.Seconds() < times*best.Seconds() {
			t.Errorf("%s: got %s as the 99th percentile, beside %s of least_time; want %g times that at least", other, got, best, times)
		}
	}
}

// What is known of how long targets take is worth something to p2c: beside one that looks only at
// what is under way, it has a shorter tail with few nodes and many where some are slow, and none
// that is much longer where none is.
func TestP2CAvoidsSlowBackends(t *testing.T) {
	spells := simulate.World{Backends: 100, Servers: 1, Load: 0.8, Mean: 10 * time.Millisecond, Time: 8 * time.Second, SlowShare: 0.05, SlowTime: time.Second}
	calm := spells
	calm.SlowShare = 0
	for _, test := range []struct {
		what      string
		world     simulate.World
		balancers int
		seeds     int
		most      float64
	}{{"spells", spells, 4, 3, 0.95}, {"spells", spells, 16, 3, 0.95}, {"calm", calm, 4, 1, 1.12}, {"calm", calm, 16, 1, 1.12}} {
		got := 0.0
		for seed := range test.seeds {
			test.world.Balancers, test.world.Seed = test.balancers, uint64(seed)
			p99 := run(t, test.world, "p2c").P99.Seconds()
			got += math.Log(p99/run(t, test.world, simulate.ReferenceInFlight).P99.Seconds()) / float64(test.seeds)
		}
		if got := math.Exp(got); got > test.most {
			t.Errorf("%s, %d nodes: got %.2f times the 99th percentile of %s, want %.2f at most", test.what, test.balancers, got, simulate.ReferenceInFlight, test.most)
		}
	}
}

// Targets that work on many requests at once must share by weight, although each seems the
// faster the more it has.
func TestLeastTimeSharesAmongParallelBackends(t *testing.T) {
	w := simulate.World{Balancers: 1, Backends: 10, Servers: 100, Load: 0.4, Mean: 10 * time.Millisecond, Time: 5 * time.Second, Seed: 9}
	for _, weights := range [][]int{slices.Repeat([]int{1}, 10), {1, 1, 1, 1, 1, 2, 2, 2, 2, 4}} {
		w.Weights = weights
		got := run(t, w, "least_time").Shares
		for i, weight := range weights {
			if want := sum(got) * weight / sum(weights); got[i] < want*3/4 || got[i] > want*5/4 {
				t.Errorf("weights %v: got shares %v, want %d of %d for target %d", weights, got, want, sum(got), i)
			}
		}
	}
}

func sum(numbers []int) (total int) {
	for _, n := range numbers {
		total += n
	}
	return total
}
