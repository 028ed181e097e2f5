package simulate

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"lbnode/proxy/balance"
)

// References are rules that no pool can have. They are there to be compared with.
const (
	// ReferenceInFlight draws two backends and picks the one with fewer attempts of this
	// balancer under way: the power of two choices, as most balancers have it.
	ReferenceInFlight = "reference:p2c_in_flight"
	// ReferenceAll sees the queues of all backends, whoever sent what is in them, and how
	// quick each is just now. No balancer can know that.
	ReferenceAll = "reference:all_knowledge"
)

// Names are the strategies of pools and the references.
func Names() []string {
	return append(balance.Names(), ReferenceInFlight, ReferenceAll)
}

// newStrategy builds a strategy with the world's clock, or a reference.
func (r *run) newStrategy(name string, rank int) (balance.Strategy, error) {
	switch name {
	case ReferenceInFlight:
		return &inFlight{random: seeded(r.Seed, 1<<32+uint64(rank))}, nil
	case ReferenceAll:
		return &allKnowledge{random: seeded(r.Seed, 1<<32+uint64(rank))}, nil
	}
	s, err := balance.NewWithClock(name, rank, func() time.Duration { return time.Duration(r.now) })
	if err != nil {
		return nil, errors.Join(err, fmt.Errorf("there are: %s", strings.Join(Names(), ", ")))
	}
	return s, nil
}

// inFlight is ReferenceInFlight. It takes no notice of weights.
type inFlight struct {
	random  *rand.Rand
	targets []*balance.Target
}

// Update implements balance.Strategy.
func (f *inFlight) Update(eligible []*balance.Target) { f.targets = slices.Clone(eligible) }

// Pick implements balance.Strategy.
func (f *inFlight) Pick(_ uint64, tried []*balance.Target) *balance.Target {
	left := without(f.targets, tried)
	if len(left) < 2 {
		return first(left)
	}
	one, other := f.random.IntN(len(left)), f.random.IntN(len(left)-1)
	if other >= one {
		other++
	}
	if left[other].InFlight.Load() < left[one].InFlight.Load() {
		one = other
	}
	return left[one]
}

// allKnowledge is ReferenceAll.
type allKnowledge struct {
	random  *rand.Rand
	targets []*balance.Target
}

// Update implements balance.Strategy.
func (a *allKnowledge) Update(eligible []*balance.Target) { a.targets = slices.Clone(eligible) }

// Pick implements balance.Strategy. Of those where a request should be over first it draws.
func (a *allKnowledge) Pick(_ uint64, tried []*balance.Target) *balance.Target {
	var best *balance.Target
	least, equal := 0.0, 0
	for _, t := range without(a.targets, tried) {
		cost := t.Via.(*backend).wait()
		if best == nil || cost < least {
			best, least, equal = t, cost, 0
		}
		if cost == least {
			if equal++; a.random.IntN(equal) == 0 {
				best = t
			}
		}
	}
	return best
}

// wait is how long a request should take that the backend gets now, of those that take
// one at full pace. One that fails or is silent is the last that anyone would ask.
func (b *backend) wait() float64 {
	if b.silent(b.now) || b.fails(b.now) {
		return float64(forever)
	}
	return max(1, float64(b.queue+1)/float64(len(b.free))) * b.pace()
}

func without(targets, tried []*balance.Target) []*balance.Target {
	if len(tried) == 0 {
		return targets
	}
	return slices.DeleteFunc(slices.Clone(targets), func(t *balance.Target) bool { return slices.Contains(tried, t) })
}

func first(targets []*balance.Target) *balance.Target {
	if len(targets) == 0 {
		return nil
	}
	return targets[0]
}
