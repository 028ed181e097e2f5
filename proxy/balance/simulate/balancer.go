package simulate

import (
	"time"

	"lbnode/proxy/balance"
)

// balancer is a node: a strategy, and what only this node knows.
type balancer struct {
	strategy balance.Strategy
	observer balance.Observer
	counter  balance.Counter
	targets  []*balance.Target
	budget   budget
}

func (r *run) newBalancer(strategy string, rank int) (*balancer, error) {
	s, err := r.newStrategy(strategy, rank)
	if err != nil {
		return nil, err
	}
	b := &balancer{strategy: s, budget: newBudget()}
	b.observer, _ = s.(balance.Observer)
	b.counter, _ = s.(balance.Counter)
	return b, nil
}

// update tells a balancer of the backends there are. Those that it had it knows already.
func (b *balancer) update(backends []*backend) {
	for _, backend := range backends[len(b.targets):] {
		b.targets = append(b.targets, &balance.Target{ID: backend.id, Name: backend.id, Weight: backend.weight, Via: backend, Local: &balance.Local{}})
	}
	b.strategy.Update(b.targets)
}

// exchange is a request on its way. What it does, in which order, is what package
// proxy does with one that can be repeated.
type exchange struct {
	run   *run
	by    *balancer
	came  int64
	work  int64
	key   uint64
	began int64 // the current attempt
	queue int64 // how many others its target had then
	tried []*balance.Target
	room  [maxAttempts]*balance.Target
}

func (x *exchange) first() {
	x.by.budget.deposit()
	x.begin(x.by.strategy.Pick(x.key, nil))
}

func (x *exchange) begin(target *balance.Target) {
	x.queue = target.InFlight.Add(1) - 1
	if x.by.counter != nil {
		x.by.counter.Count(1)
	}
	x.tried = append(x.room[:len(x.tried)], target)
	x.began = x.run.now
	b := target.Via.(*backend)
	x.run.watch.pick(b)
	at, patience := b.take(x.work), x.run.now+x.patience()
	switch {
	case at <= patience:
		x.run.events.push(event{at, answered, b, x})
		return
	case at < forever:
		x.run.events.push(event{at, freed, b, nil})
	}
	x.run.events.push(event{patience, stalled, b, x})
}

// patience is how long the current target is waited for: less long while there are others.
func (x *exchange) patience() int64 {
	if x.run.Try > 0 && len(x.tried) < maxAttempts {
		return int64(x.run.Try)
	}
	return int64(requestTime)
}

// answered ends the request with the answer that came.
func (x *exchange) answered(failed bool) {
	x.observe(failed)
	x.leave()
	x.run.end(x, failed)
}

// stalled gives a target up and asks another, if there is one and the budget allows it.
func (x *exchange) stalled() {
	if b := x.current().Via.(*backend); b.silent(x.began) {
		b.queue-- // the others work on, and are freed of it later
	}
	x.observe(true)
	var next *balance.Target
	if len(x.tried) < maxAttempts {
		next = x.by.strategy.Pick(x.key, x.tried)
	}
	if next != nil && !x.by.budget.withdraw(x.run.now) {
		next = nil
	}
	x.leave()
	if next == nil {
		x.run.end(x, true)
		return
	}
	x.begin(next)
}

func (x *exchange) current() *balance.Target { return x.tried[len(x.tried)-1] }

func (x *exchange) observe(failed bool) {
	if x.by.observer != nil {
		x.by.observer.Observe(x.current(), balance.Attempt{Latency: time.Duration(x.run.now - x.began), Queue: x.queue, Failed: failed})
	}
}

func (x *exchange) leave() {
	x.current().InFlight.Add(-1)
	if x.by.counter != nil {
		x.by.counter.Count(-1)
	}
}

// budget bounds the retries of a balancer as package proxy does: five requests pay for
// one, up to 500 may come at once, and three in each second are free.
type budget struct {
	paid   int
	second int64
	given  int
}

const (
	requestsPerRetry = 5
	retryBurst       = 500
	freePerSecond    = 3
)

func newBudget() budget { return budget{paid: retryBurst * requestsPerRetry} }

func (b *budget) deposit() { b.paid = min(b.paid+1, retryBurst*requestsPerRetry) }

func (b *budget) withdraw(now int64) bool {
	if b.paid >= requestsPerRetry {
		b.paid -= requestsPerRetry
		return true
	}
	if second := now / int64(time.Second); second != b.second {
		b.second, b.given = second, 0
	}
	b.given++
	return b.given <= freePerSecond
}
