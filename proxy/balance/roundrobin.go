package balance

import (
	"math"
	"slices"
	"sync/atomic"
)

// roundRobin walks a ring in which every target stands as often as its weight
// says, spread as evenly as can be. Over one turn the shares are exact, but for those of
// very many targets of which some are on the way to their weight; with equal weights it is
// plain round robin.
type roundRobin struct {
	cursor atomic.Uint64
	ring   atomic.Pointer[[]*Target]
}

func newRoundRobin(offset int) *roundRobin {
	r := &roundRobin{}
	r.cursor.Store(uint64(max(offset, 0)))
	r.ring.Store(&[]*Target{})
	return r
}

// Update implements Strategy. The cursor stays, or else every change would send
// the next request to the first target.
func (r *roundRobin) Update(eligible []*Target) {
	ring := smoothRing(eligible)
	r.ring.Store(&ring)
}

// Pick implements Strategy.
func (r *roundRobin) Pick(_ uint64, tried []*Target) *Target {
	ring := *r.ring.Load()
	if len(ring) == 0 {
		return nil
	}
	at := (r.cursor.Add(1) - 1) % uint64(len(ring))
	if len(tried) == 0 {
		return ring[at]
	}
	for range ring {
		if !ring[at].among(tried) {
			return ring[at]
		}
		at = (at + 1) % uint64(len(ring))
	}
	return nil
}

// smoothRing is one turn of nginx's smooth weighted round robin: at each step
// every target gains its weight, and the one that has most is picked and pays the
// sum of all. Weights 5, 1, 1 give a a b a c a a rather than a a a a a b c.
func smoothRing(targets []*Target) []*Target {
	weights, total := reduced(targets)
	if total > rampRing && targets[0].unit() > 1 {
		total = shorten(weights, total)
	}
	switch {
	case total == len(targets): // all alike: each stands once, and thousands take no time
		return slices.Clone(targets)
	case len(targets)*total > largeRing:
		return spreadRing(targets, weights, total)
	}
	ring := make([]*Target, 0, total)
	credit := make([]int, len(targets))
	for range total {
		best := 0
		for i, weight := range weights {
			credit[i] += weight
			if credit[i] > credit[best] {
				best = i
			}
		}
		credit[best] -= total
		ring = append(ring, targets[best])
	}
	return ring
}

// largeRing is from how many steps on another way is taken to make a ring. For 4096
// targets of many weights it is some ms, and the other seconds.
const largeRing = 1 << 20

// rampRing is about how many steps a ring has at most while some targets have a part of
// their weight only, so that a weight that changes soon takes some ms.
const rampRing = 1 << 18

// shorten makes weights, of that total, smaller, so that they are about rampRing, and
// gives what they are.
func shorten(weights []int, total int) int {
	sum := 0
	for i, weight := range weights {
		weights[i] = max(weight*rampRing/total, 1)
		sum += weights[i]
	}
	return sum
}

// spreadRing puts every target at even distances. Where the first of them goes differs from
// target to target, or else they would crowd in some places.
func spreadRing(targets []*Target, weights []int, total int) []*Target {
	place := func(i, k int) int {
		const golden = 0.6180339887498949 // whose multiples are spread evenly over 0 to 1
		_, first := math.Modf(float64(i+1) * golden)
		return min(int((float64(k)+first)/float64(weights[i])*float64(total)), total-1)
	}
	next := make([]int, total+1) // where the next goes of those for a place
	for i, weight := range weights {
		for k := range weight {
			next[place(i, k)+1]++
		}
	}
	for i := range total {
		next[i+1] += next[i]
	}
	ring := make([]*Target, total)
	for i, weight := range weights {
		for k := range weight {
			at := place(i, k)
			ring[next[at]] = targets[i]
			next[at]++
		}
	}
	return ring
}

// reduced gives the weights divided by what divides them all, which makes the
// shortest ring, and their sum.
func reduced(targets []*Target) (weights []int, total int) {
	divisor := 0
	for _, t := range targets {
		divisor = gcd(divisor, t.Weight)
	}
	for _, t := range targets {
		weights = append(weights, t.Weight/divisor)
		total += t.Weight / divisor
	}
	return weights, total
}

func gcd(a, b int) int {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}
