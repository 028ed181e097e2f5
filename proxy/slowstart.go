package proxy

import (
	"time"

	"lbnode/proxy/balance"
	"lbnode/state"
)

const (
	// rampSteps are the steps in which a backend comes to its whole weight; the first is a
	// tenth of it.
	rampSteps = 10
	// A pool is not looked at again before that part of the time of a slow start is over,
	// nor before that time: of thousands of backends each may be at another moment of its way.
	leastRest     = 100
	leastRestTime = 50 * time.Millisecond
)

// seen notes whether a view wants traffic for a backend, and when this node saw that
// begin. What it sees for the first time began then only if that is not long ago: a
// node that starts need not spare backends that have served all along.
func (f *finding) seen(b *state.Backend, fresh bool, slow time.Duration, now time.Time) {
	serves := b.Wanted() == state.Ready && b.Healthy()
	switch {
	case !serves:
		f.risen = time.Time{}
	case f.serves:
	case slow == 0:
	case !fresh || now.Sub(time.UnixMilli(b.Since)).Abs() < slow:
		f.risen = now
	}
	f.serves = serves
}

// ramped gives targets, of which some have begun to serve of late, the weights that they
// have for now, and looks again when that changes. Proxy.mu is held.
func (p *Proxy) ramped(pool *pool, targets []*balance.Target, now time.Time) []*balance.Target {
	if pool.climb != nil {
		pool.climb.Stop()
	}
	slow := time.Duration(pool.spec.SlowStart)
	if slow == 0 {
		return targets
	}
	ramped, next := make([]*balance.Target, len(targets)), slow
	at := 0 // in the pool, of which targets are a part in the same order
	for i, t := range targets {
		for pool.targets[at] != t {
			at++
		}
		f := pool.findings[at]
		if len(targets) == 1 { // it has all the traffic already
			f.risen = time.Time{}
		}
		tenths, wait := rampSteps, slow
		if !f.risen.IsZero() {
			tenths, wait = rampStep(now.Sub(f.risen), slow)
		}
		next = min(next, wait)
		scaled := *t
		scaled.Weight, scaled.Unit = scaled.Weight*tenths, rampSteps
		ramped[i] = &scaled
	}
	if next == slow { // nobody is on the way: the first step is shorter than that
		return targets
	}
	rest := max(next, slow/leastRest, leastRestTime)
	pool.climb = time.AfterFunc(rest, func() { p.look(pool) })
	return ramped
}

// rampStep is how many tenths of its weight a backend has after some time, and how long
// until it has more.
func rampStep(elapsed, slow time.Duration) (tenths int, wait time.Duration) {
	const last = rampSteps - 1
	if elapsed >= slow {
		return rampSteps, slow
	}
	done := elapsed * last / slow
	return 1 + int(done), (slow*(done+1)+last-1)/last - elapsed
}

// look refreshes a pool, if it is still there.
func (p *Proxy) look(pool *pool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.table.Load().pool(pool.spec.Name) == pool {
		p.refresh(pool)
	}
}
