// Package simulate lets the strategies of package balance pick for balancers that know
// nothing of each other, among backends that are slow, fail or come and go, on a clock of
// its own, and tells how long requests take by which strategy.
//
// The strategies are those that nodes run, told of attempts just as package proxy tells
// them. What is around them is simpler: there are no probes, no circuits, no hedges and no
// network, so that what a strategy does by itself shows. Backends work requests off in the
// order in which they come, those too that nobody waits for any more.
//
// Invariant: what befalls the world (when requests come and what work they are, when
// backends are slow) is the same for every strategy with the same seed. What strategies
// draw at random themselves is not seeded; many seeds average it out.
package simulate

import (
	"math"
	"math/rand/v2"
	"slices"
	"time"
)

// Result is what became of the requests of a run, but for the first fifth of its time.
type Result struct {
	Requests int
	// Errors of them got no answer, or one of a backend that failed.
	Errors int
	// P50, P99 and P999 are what the quickest 50, 99 and 99.9 % of the others took at most.
	P50, P99, P999 time.Duration
	// Longest is how many requests a backend had at once, at most.
	Longest int
	// Eject is how long after the bad backend went bad it began to get less than a tenth
	// of its fair share for a second; Never, and 0 if no backend goes bad.
	Eject time.Duration
	// Shares are how many attempts each backend got.
	Shares []int
}

// Never is longer than any run.
const Never = time.Duration(math.MaxInt64)

const (
	maxAttempts = 3 // as package proxy has it
	// forever is later than all that happens.
	forever = int64(1) << 61
)

// run is a world under way. Times are in nanoseconds since its start.
type run struct {
	World
	random    *rand.Rand // of what requests are
	now       int64
	events    events
	balancers []*balancer
	backends  []*backend
	active    []*balancer // those that get requests
	traffic   []float64   // the sum of their shares up to each
	changes   []change
	warm      int64
	took      []time.Duration
	requests  int
	errors    int
	longest   int
	watch     watch
	spare     []*exchange
}

// change is something that befalls the world at a time.
type change struct {
	at int64
	do func()
}

// Run has all requests of a world sent by strategies of that name. The error is for a name
// that is not among [Names], or a world that cannot be.
func Run(w World, strategy string) (*Result, error) {
	r, err := newRun(w, strategy)
	if err != nil {
		return nil, err
	}
	r.play()
	return r.result(), nil
}

func newRun(w World, strategy string) (*run, error) {
	if err := w.Validate(); err != nil {
		return nil, err
	}
	r := &run{World: w, random: seeded(w.Seed, 0), warm: int64(w.Time / 5)}
	return r, r.populate(strategy)
}

// play has requests come until the time is over, and sees all to their end.
func (r *run) play() {
	between := 1e9 / r.rate()
	for at := r.random.ExpFloat64() * between; at < float64(r.Time); at += r.random.ExpFloat64() * between {
		for len(r.changes) > 0 && r.changes[0].at <= int64(at) {
			r.advance(r.changes[0].at)
			r.changes[0].do()
			r.changes = r.changes[1:]
		}
		r.advance(int64(at))
		r.arrive()
	}
	r.advance(forever)
}

// seeded gives random numbers for one purpose.
func seeded(seed, purpose uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, purpose)) }

// populate makes backends and balancers and plans what befalls them.
func (r *run) populate(strategy string) error {
	for i := range r.Backends + r.Joining {
		r.backends = append(r.backends, r.newBackend(i))
	}
	if r.Trouble != NoTrouble {
		r.watch = newWatch(r.backends[0], r.onset(), r.Time)
	}
	count := r.Balancers
	if r.Churn {
		count++
	}
	for rank := range count {
		b, err := r.newBalancer(strategy, rank)
		if err != nil {
			return err
		}
		b.update(r.backends[:r.Backends])
		r.balancers = append(r.balancers, b)
	}
	r.activate(r.balancers[:r.Balancers])
	r.plan()
	return nil
}

// plan is what happens when: backends join at the onset; a balancer joins there, and the
// first one leaves halfway from there to the end.
func (r *run) plan() {
	onset := int64(r.onset())
	if r.Joining > 0 {
		r.changes = append(r.changes, change{onset, func() {
			for _, b := range r.balancers {
				b.update(r.backends)
			}
		}})
	}
	if r.Churn {
		r.changes = append(r.changes,
			change{onset, func() { r.activate(r.balancers) }},
			change{(onset + int64(r.Time)) / 2, func() { r.activate(r.balancers[1:]) }})
	}
}

// activate shares the requests out among balancers: the first gets most, if traffic is
// skewed.
func (r *run) activate(balancers []*balancer) {
	r.active, r.traffic = balancers, nil
	sum := 0.0
	for i := range balancers {
		sum += math.Pow(float64(i+1), -r.Skew)
		r.traffic = append(r.traffic, sum)
	}
}

// arrive has a request come to a balancer. However that goes about it, as many random
// numbers are drawn.
func (r *run) arrive() {
	at, _ := slices.BinarySearch(r.traffic, r.random.Float64()*r.traffic[len(r.traffic)-1])
	x := r.newExchange()
	*x = exchange{run: r, by: r.active[min(at, len(r.active)-1)], came: r.now}
	x.key, x.work = r.random.Uint64(), r.Service.draw(r.random, r.Mean)
	x.first()
}

// advance lets happen what is due up to that time.
func (r *run) advance(to int64) {
	for len(r.events) > 0 && r.events[0].at <= to {
		e := r.events.pop()
		r.now = e.at
		switch e.kind {
		case answered:
			e.backend.queue--
			e.exchange.answered(e.backend.fails(e.exchange.began))
		case stalled:
			e.exchange.stalled()
		case freed:
			e.backend.queue--
		}
	}
	r.now = max(r.now, min(to, int64(r.Time)))
}

// end counts a request that is over.
func (r *run) end(x *exchange, failed bool) {
	if x.came >= r.warm {
		r.requests++
		if failed {
			r.errors++
		} else {
			r.took = append(r.took, time.Duration(r.now-x.came))
		}
	}
	r.spare = append(r.spare, x)
}

func (r *run) newExchange() *exchange {
	last := len(r.spare) - 1
	if last < 0 {
		return new(exchange)
	}
	x := r.spare[last]
	r.spare = r.spare[:last]
	return x
}

func (r *run) result() *Result {
	slices.Sort(r.took)
	result := &Result{Requests: r.requests, Errors: r.errors, Longest: r.longest, Eject: r.watch.eject(r.Backends)}
	result.P50, result.P99, result.P999 = quantile(r.took, 0.5), quantile(r.took, 0.99), quantile(r.took, 0.999)
	for _, b := range r.backends {
		result.Shares = append(result.Shares, b.picks)
	}
	return result
}

// quantile is what the share q of the sorted values does not exceed, 0 if there are none.
func quantile(sorted []time.Duration, q float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	rank := int(math.Ceil(q*float64(len(sorted)))) - 1
	return sorted[min(max(rank, 0), len(sorted)-1)]
}
