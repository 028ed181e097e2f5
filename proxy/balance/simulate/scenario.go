package simulate

import "time"

// Scenario is a world with a name.
type Scenario struct {
	Name string
	// Title says in a line what befalls the world.
	Title string
	World World
	// Balancers are the numbers of them that it is run with, if no others are wanted.
	Balancers []int
}

// With is the scenario's world with as many balancers, and as many backends; 0: as many as it has.
// Those that join are as many more as there are more others.
func (s Scenario) With(balancers, backends int) World {
	w := s.World
	w.Balancers = balancers
	if backends != 0 {
		w.Backends, w.Joining = backends, (w.Joining*backends+w.Backends-1)/w.Backends
	}
	return w
}

// Scenarios is the list of all, the plain one first.
func Scenarios() []Scenario {
	some := []int{5}
	list := []Scenario{
		{"steady", "nothing happens", World{}, []int{1, 16, 64}},
		{"spells", "each backend is 10 × slow 5 % of the time, 1 s at a time in the mean", World{SlowShare: 0.05, SlowTime: time.Second}, []int{4, 16}},
		{"long_spells", "the same, 5 s at a time", World{SlowShare: 0.05, SlowTime: 5 * time.Second}, []int{4, 16}},
		{"pareto", "requests differ much: a bounded Pareto distribution", World{Service: Pareto}, some},
		{"lognormal", "requests differ much: a lognormal distribution", World{Service: Lognormal}, some},
		{"parallel", "20 backends that work on 8 at once, with spells", World{Backends: 20, Servers: 8, SlowShare: 0.05, SlowTime: time.Second}, some},
		{"skew", "spells, and the n-th balancer gets 1/n of the traffic of the first", World{Skew: 1, SlowShare: 0.05, SlowTime: time.Second}, []int{16}},
		{"slow", "one backend becomes 10 × slow for good", World{Trouble: Slow}, some},
		{"black_hole", "one backend answers no more; after 1 s another is asked", World{Trouble: BlackHole, Try: time.Second}, some},
		{"failing", "one backend fails whatever it gets, in 1 ms", World{Trouble: Failing}, some},
		{"join", "10 backends join the 50 there are", World{Backends: 50, Joining: 10}, some},
		{"cold", "5 backends join the 20 there are, 3 × slow for their first 30 s", World{Backends: 20, Joining: 5, Cold: 30 * time.Second, Time: time.Minute}, some},
		{"churn", "a balancer joins, later another leaves", World{Churn: true}, some},
	}
	for i := range list {
		w := &list[i].World
		w.Backends, w.Servers = orElse(w.Backends, 100), orElse(w.Servers, 1)
		w.Time, w.Mean = orElse(w.Time, 15*time.Second), 10*time.Millisecond
		w.Load = 0.8
	}
	return list
}

func orElse[T int | time.Duration](given, otherwise T) T {
	if given == 0 {
		return otherwise
	}
	return given
}
