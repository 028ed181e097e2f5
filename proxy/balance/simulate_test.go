package balance

import (
	"container/heap"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// world is a pool whose backends work requests off in the order in which they come, and
// nodes that send them there. Each node knows of its own requests only.
type world struct {
	backends, nodes int
	cores           int           // that a backend works with at once
	service         time.Duration // that a request takes on one, in the mean
	load            float64       // that the pool has to bear, of what it can
	slow            int           // of 100 backends, how many take ten times as long at any time
	requests        int
	weights         []int // 1 each if nil
}

// sim is a world under way. Times are in nanoseconds.
type sim struct {
	world
	random *rand.Rand
	now    int64
	free   [][]int64 // by backend, when each of its cores is
	nodes  []simNode
	events events
	took   []time.Duration
	shares []int
}

type simNode struct {
	strategy Strategy
	targets  []*Target
}

// event is the end of an attempt.
type event struct {
	at, began int64
	node      int
	backend   int
	queue     int64
}

type events []event

func (e events) Len() int           { return len(e) }
func (e events) Less(i, j int) bool { return e[i].at < e[j].at }
func (e events) Swap(i, j int)      { e[i], e[j] = e[j], e[i] }
func (e *events) Push(x any)        { *e = append(*e, x.(event)) }
func (e *events) Pop() any {
	last := (*e)[len(*e)-1]
	*e = (*e)[:len(*e)-1]
	return last
}

// run has all requests sent by strategies of that kind.
func (w world) run(build func(now func() uint32) Strategy) *sim {
	s := &sim{world: w, random: rand.New(rand.NewPCG(9, 10)), free: make([][]int64, w.backends), shares: make([]int, w.backends)}
	for i := range s.free {
		s.free[i] = make([]int64, w.cores)
	}
	weights := w.weights
	if weights == nil {
		weights = slices.Repeat([]int{1}, w.backends)
	}
	for range w.nodes {
		n := simNode{build(func() uint32 { return uint32(s.now >> tickBits) }), weighted(weights...)}
		n.strategy.Update(n.targets)
		s.nodes = append(s.nodes, n)
	}
	between := float64(w.service) / w.load / float64(w.backends*w.cores)
	for next := 0.0; len(s.took) < w.requests; next += s.random.ExpFloat64() * between {
		s.advance(int64(next))
		s.send()
	}
	s.advance(1 << 62)
	return s
}

// advance ends attempts up to that time.
func (s *sim) advance(to int64) {
	for len(s.events) > 0 && s.events[0].at <= to {
		e := heap.Pop(&s.events).(event)
		s.now = e.at
		n := &s.nodes[e.node]
		t := n.targets[e.backend]
		t.InFlight.Add(-1)
		if counter, ok := n.strategy.(Counter); ok {
			counter.Count(-1)
		}
		if observer, ok := n.strategy.(Observer); ok {
			observer.Observe(t, Attempt{Latency: time.Duration(e.at - e.began), Queue: e.queue})
		}
	}
	s.now = to
}

// send sends a request from any node.
func (s *sim) send() {
	node := s.random.IntN(len(s.nodes))
	n := &s.nodes[node]
	t := n.strategy.Pick(s.random.Uint64(), nil)
	if counter, ok := n.strategy.(Counter); ok {
		counter.Count(1)
	}
	i := slices.Index(n.targets, t)
	core := slices.Index(s.free[i], slices.Min(s.free[i]))
	needs := int64(s.random.ExpFloat64() * float64(s.service))
	if s.isSlow(i) {
		needs *= 10
	}
	at := max(s.free[i][core], s.now) + needs
	s.free[i][core] = at
	heap.Push(&s.events, event{at, s.now, node, i, t.InFlight.Add(1) - 1})
	s.took = append(s.took, time.Duration(at-s.now))
	s.shares[i]++
}

// isSlow says whether a backend is slow now: each is for half a second, in turn.
func (s *sim) isSlow(backend int) bool {
	turn := int(s.now/int64(time.Second/2)) * 37
	return (backend+turn)%100 < s.slow
}

// p99 is what the quickest 99 of 100 requests took at most, of those after the first fifth.
func (s *sim) p99() time.Duration {
	took := slices.Clone(s.took[len(s.took)/5:])
	slices.Sort(took)
	return took[len(took)*99/100]
}

// What leastTime is for: pools in which a few backends are slow at any time, seen by many
// nodes.
func TestLeastTimeAvoidsSlowBackends(t *testing.T) {
	w := world{backends: 100, nodes: 16, cores: 1, service: 10 * time.Millisecond, load: 0.8, slow: 2, requests: 100_000}
	best := w.run(simulated("least_time")).p99()
	if best > 110*time.Millisecond {
		t.Errorf("got %s as the 99th percentile, want less than 110 ms", best)
	}
	for _, other := range []string{"least_connections", "p2c", "random", "round_robin"} {
		if got := w.run(simulated(other)).p99(); got < 3*best {
			t.Errorf("%s: got %s as the 99th percentile, beside %s of least_time; want 3 times that at least", other, got, best)
		}
	}
}

// Targets that work on many requests at once must share by weight, although each seems the
// faster the more it has.
func TestLeastTimeSharesAmongParallelBackends(t *testing.T) {
	w := world{backends: 10, nodes: 1, cores: 100, service: 10 * time.Millisecond, load: 0.4, requests: 200_000}
	for _, weights := range [][]int{slices.Repeat([]int{1}, 10), {1, 1, 1, 1, 1, 2, 2, 2, 2, 4}} {
		w.weights = weights
		total := 0
		for _, weight := range weights {
			total += weight
		}
		got := w.run(simulated("least_time")).shares
		for i, weight := range weights {
			if want := w.requests * weight / total; got[i] < want*3/4 || got[i] > want*5/4 {
				t.Errorf("weights %v: got shares %v, want %d of %d for target %d", weights, got, want, w.requests, i)
			}
		}
	}
}

// simulated builds a strategy with the clock of a world.
func simulated(name string) func(now func() uint32) Strategy {
	return func(now func() uint32) Strategy {
		switch name {
		case "least_time":
			return newLeastTime(now)
		case "p2c":
			return newP2C(now)
		}
		s, err := New(name, 0)
		if err != nil {
			panic(err)
		}
		return s
	}
}
