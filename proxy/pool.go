package proxy

import (
	"sync/atomic"

	"lbnode/proxy/balance"
	"lbnode/proxy/http1"
	"lbnode/state"
)

// pool is a pool made ready for requests. It is immutable but for sticky, and what the
// strategy and the budget hold, which outlive it.
type pool struct {
	spec     *state.Pool
	targets  []*balance.Target // one for each of spec.Backends
	findings []*finding        // the same
	strategy balance.Strategy
	observer balance.Observer // the strategy, if it is one; nil if not
	counter  balance.Counter  // the same
	key      keyer            // that the strategy picks by; nil if it needs none
	budget   *budget
	sticky   atomic.Pointer[sticky] // nil if clients are not kept anywhere
}

// finding is what this node has found out about one backend at one address.
// Proxy.mu guards it.
type finding struct {
	name    string
	url     string
	pool    *pool
	local   *balance.Local
	via     *http1.Backend
	reached *state.Pool // that via was made for
	tripped bool        // its circuit is open
	opinion *bool       // of this node's probes; nil if it has none
}

// compile returns the pool for the spec, taking over what outlives a change.
// Proxy.mu is held.
func (p *Proxy) compile(spec *state.Pool) *pool {
	old := p.table.Load().pool(spec.Name)
	if old != nil && old.spec == spec {
		return old
	}
	made := &pool{spec: spec}
	if old != nil {
		made.budget = old.budget
	} else {
		made.budget = newBudget()
	}
	if old != nil && old.spec.Strategy == spec.Strategy {
		made.strategy = old.strategy
	} else {
		made.strategy = p.newStrategy(spec)
	}
	made.observer, _ = made.strategy.(balance.Observer)
	made.counter, _ = made.strategy.(balance.Counter)
	if spec.Strategy == state.Hash {
		made.key = newKeyer(spec.HashOn)
	}
	for i := range spec.Backends {
		b := &spec.Backends[i]
		made.targets = append(made.targets, p.target(made, b))
		made.findings = append(made.findings, p.findings[b.ID])
	}
	made.sticky.Store(newSticky(made, p.cookieKeys))
	p.refresh(made)
	return made
}

// newStrategy falls back to round robin for a strategy that only a newer version
// of the program knows: uneven traffic is better than none.
func (p *Proxy) newStrategy(spec *state.Pool) balance.Strategy {
	offset := 0
	if p.config.Rank != nil {
		offset = p.config.Rank()
	}
	strategy, err := balance.New(spec.Strategy, offset)
	if err != nil {
		p.log.Error("strategy unknown; taking "+state.RoundRobin, "pool", spec.Name, "error", err)
		strategy, err = balance.New(state.RoundRobin, offset)
	}
	if err != nil { // the default strategy always exists
		panic("proxy: " + err.Error())
	}
	return strategy
}

// target returns the target for a backend with what is known of it locally. What
// was found at another address counts for nothing.
func (p *Proxy) target(pool *pool, b *state.Backend) *balance.Target {
	f := p.findings[b.ID]
	if f == nil || f.url != b.URL() {
		if f != nil {
			f.via.Close()
		}
		f = &finding{name: b.Name, url: b.URL(), local: &balance.Local{}}
		p.findings[b.ID] = f
	}
	if f.via == nil || !sameReach(f.reached, pool.spec) {
		if f.via != nil {
			f.via.Close()
		}
		f.via, f.reached = p.reach(b, f.local, pool.spec), pool.spec
	}
	f.pool = pool
	return &balance.Target{
		ID:       b.ID,
		Name:     b.Name,
		Protocol: b.Protocol,
		Addr:     b.Addr(),
		Weight:   b.Share(),
		Via:      f.via,
		Local:    f.local,
	}
}

// forget drops the findings about backends of the old table that no pool has any
// more: those that still belong to an old version of their pool.
func (p *Proxy) forget(old *table) {
	if old == nil {
		return
	}
	now := p.table.Load()
	for name, pool := range old.pools {
		if now.pools[name] == pool {
			continue
		}
		for _, t := range pool.targets {
			if f := p.findings[t.ID]; f != nil && f.pool == pool {
				f.via.Close()
				delete(p.findings, t.ID)
			}
		}
	}
}

// refresh tells the strategy which targets are eligible now, and those that keep clients
// whether they may. Proxy.mu is held.
func (p *Proxy) refresh(pool *pool) {
	pool.strategy.Update(p.eligible(pool))
	if s := pool.sticky.Load(); s != nil {
		p.refreshSticky(pool, s)
	}
}

// eligible gives the targets that may get new requests: those the operator and their
// agents want, that are healthy and that this node can reach. If it can reach none, it tries
// those that are healthy; if none is healthy, the pool says what to do. It is asked
// at each finding, and of thousands of backends there may be thousands at once.
func (p *Proxy) eligible(pool *pool) []*balance.Target {
	ready := make([]*balance.Target, 0, len(pool.targets))
	healthy, reachable := make([]*balance.Target, 0, len(pool.targets)), make([]*balance.Target, 0, len(pool.targets))
	for i, t := range pool.targets {
		b, f := &pool.spec.Backends[i], pool.findings[i]
		if b.Wanted() != state.Ready {
			continue
		}
		ready = append(ready, t)
		if f.tripped || !p.healthy(b, f) {
			continue
		}
		healthy = append(healthy, t)
		if !t.Unreachable.Load() {
			reachable = append(reachable, t)
		}
	}
	switch {
	case len(reachable) > 0:
		return reachable
	case len(healthy) > 0:
		return healthy
	case pool.spec.WhenAllDown == state.FailOpen:
		return ready
	default:
		return nil
	}
}

func (p *Proxy) healthy(b *state.Backend, f *finding) bool {
	if p.autonomous && f.opinion != nil {
		return *f.opinion
	}
	return b.Healthy()
}
