package simulate

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"time"
)

// World is what there is and what befalls it.
type World struct {
	// Balancers share the requests; none knows of the others' requests.
	Balancers int
	// Backends work on as many requests at once as they have Servers. Their Weights are 1
	// each if none are given.
	Backends int
	Servers  int
	Weights  []int
	// Load is the part that requests take of what all backends can do when none is slow.
	Load float64
	// Service is how the work of a request is distributed, and Mean how long it takes in
	// the mean where the backend is not slow.
	Service Service
	Mean    time.Duration
	// Time is how long requests come. The world changes after three tenths of it.
	Time time.Duration
	// Try is how long a backend is waited for while others are left; 0: for 30 s, as in any case.
	Try time.Duration
	// Skew has traffic differ between balancers: the n-th gets n to the power of -Skew.
	Skew float64
	// SlowShare of its time each backend is slow, for SlowTime in the mean, at random: all
	// takes ten times as long.
	SlowShare float64
	SlowTime  time.Duration
	// Trouble is what is the matter with one backend, since the world changed.
	Trouble Trouble
	// Joining backends come when the world changes. For the first time, Cold, all
	// takes three times as long there.
	Joining int
	Cold    time.Duration
	// Churn has one more balancer come when the world changes, and another go later.
	Churn bool
	// Seed is where the random numbers begin that the world is made of.
	Seed uint64
}

// Trouble is what may be the matter with a backend.
type Trouble uint8

// The kinds of trouble.
const (
	NoTrouble Trouble = iota
	Slow              // it takes ten times as long
	BlackHole         // it never answers
	Failing           // it answers by an error, in a millisecond
)

const (
	slowFactor  = 10
	coldFactor  = 3
	failTime    = time.Millisecond
	requestTime = 30 * time.Second // the default of a pool
)

// onset is when the world changes.
func (w *World) onset() time.Duration { return w.Time * 3 / 10 }

// rate is how many requests come in a second.
func (w *World) rate() float64 { return w.Load * float64(w.Backends*w.Servers) / w.Mean.Seconds() }

// Validate says what cannot be.
func (w *World) Validate() error {
	switch {
	case w.Balancers < 1 || w.Backends < 1 || w.Servers < 1:
		return fmt.Errorf("cannot simulate %d balancers and %d backends with %d servers each: there must be one of each at least", w.Balancers, w.Backends, w.Servers)
	case len(w.Weights) > 0 && (len(w.Weights) != w.Backends+w.Joining || slices.Min(w.Weights) < 1):
		return fmt.Errorf("cannot simulate %d backends, with those that join, by the weights %v: each must have one, at least 1", w.Backends+w.Joining, w.Weights)
	case !(w.Load > 0 && w.Load < 1):
		return fmt.Errorf("cannot simulate a load of %g: it must be above 0 and below 1, or the queues only grow", w.Load)
	case w.Mean <= 0 || w.Time < 100*w.Mean:
		return fmt.Errorf("cannot simulate %s with requests of %s: it must be time for 100 of them, one after the other", w.Time, w.Mean)
	case w.Service >= Service(len(services)):
		return fmt.Errorf("cannot simulate service times of kind %d: there are %d kinds", w.Service, len(services))
	case w.SlowShare < 0 || w.SlowShare >= 1 || w.SlowShare > 0 && w.SlowTime <= 0:
		return fmt.Errorf("cannot simulate backends that are slow for %g of the time, %s at a time: that must be below 1, and some time", w.SlowShare, w.SlowTime)
	case w.Joining < 0 || w.Cold < 0 || w.Try < 0 || w.Skew < 0:
		return fmt.Errorf("cannot simulate %d backends joining, cold for %s, with %s to answer and a skew of %g: none may be negative", w.Joining, w.Cold, w.Try, w.Skew)
	}
	return nil
}

// Service is a distribution of the work that requests are.
type Service uint8

// The distributions. All have the same mean.
const (
	Exponential Service = iota
	Pareto              // bounded: from some third of the mean to 344 times it
	Lognormal           // of which one in a hundred is ten times the mean
)

var services = [...]string{"exponential", "pareto", "lognormal"}

// String is the name of a distribution.
func (s Service) String() string { return services[s] }

// ParseService finds a distribution by its name.
func ParseService(name string) (Service, error) {
	for i, known := range services {
		if name == known {
			return Service(i), nil
		}
	}
	return 0, fmt.Errorf("unknown service time %q; there are: %v", name, services)
}

// draw draws how many nanoseconds a request takes.
func (s Service) draw(random *rand.Rand, mean time.Duration) int64 {
	factor := 0.0
	switch s {
	case Exponential:
		factor = random.ExpFloat64()
	case Pareto:
		factor = boundedPareto(random.Float64())
	case Lognormal:
		const sigma = 1.5
		factor = math.Exp(sigma*random.NormFloat64() - sigma*sigma/2)
	}
	return int64(factor * float64(mean))
}

// boundedPareto is the value that the share u is below, of a Pareto distribution with an
// exponent of 1.5 that is cut at 1000 times its least value. Its mean is 1.
func boundedPareto(u float64) float64 {
	const exponent, span = 1.5, 1000.0
	above := 1 - math.Pow(span, -exponent) // of the distribution, what is not cut off
	mean := exponent / (exponent - 1) * (1 - math.Pow(span, 1-exponent)) / above
	return math.Pow(1-u*above, -1/exponent) / mean
}
