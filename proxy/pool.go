package proxy

import (
	"crypto/sha256"
	"encoding/hex"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"lbnode/proxy/balance"
	"lbnode/proxy/http1"
	"lbnode/state"
)

// pool is a pool made ready for requests. It is immutable but for sticky, for what the
// strategy, the budget and the complaints hold, which outlive it, and for what Proxy.mu guards.
type pool struct {
	spec     *state.Pool
	cluster  string            // its id
	via      string            // that requests to the pool go by
	targets  []*balance.Target // one for each of spec.Backends
	targetOf map[*http1.Backend]*balance.Target
	findings []*finding // the same
	strategy balance.Strategy
	observer balance.Observer // the strategy, if it is one; nil if not
	counter  balance.Counter  // the same
	key      keyer            // that the strategy picks by; nil if it needs none
	budget   *budget
	failures complaints
	eligible atomic.Int64                      // how many targets there are to pick from
	fit      atomic.Pointer[[]*balance.Target] // and to fall back on, unreachable ones included
	sticky   atomic.Pointer[sticky]            // nil if clients are not kept anywhere
	judges   bool                              // what becomes of attempts counts

	outlook             // of the pool of that name, whatever changes in it
	climb   *time.Timer // until the next step of a slow start; nil if there was none
}

// outlook is what this node makes of a pool as a whole. Proxy.mu guards it.
type outlook struct {
	panics  bool      // so few backends are fit that health is ignored
	doubted time.Time // when this node last took it for its own fault that they fail
	review  time.Time // when their rates of success are compared next
}

// finding is what this node has found out about one backend at one address.
// Proxy.mu guards it.
type finding struct {
	id      string
	name    string
	url     string
	pool    *pool
	local   *balance.Local
	via     *http1.Backend
	reached *state.Pool // that via was made for
	opinion *bool       // of this node's probes; nil if it has none
	at      netip.Addr  // where they last passed; zero if that is not known

	serves    bool      // the view wants it to have traffic
	risen     time.Time // when it began to, as long as that matters
	aside     *aside    // nil unless it is
	ejections int       // in a row
	back      time.Time // when the last one ends
}

// compile returns the pool for the spec, taking over what outlives a change.
// Proxy.mu is held.
func (p *Proxy) compile(spec *state.Pool, cluster string) *pool {
	old := p.table.Load().pool(spec.Name)
	if old != nil && old.spec == spec && old.cluster == cluster {
		return old
	}
	made, now := &pool{spec: spec, cluster: cluster, via: viaOf(cluster, spec.Name)}, time.Now()
	made.targetOf = make(map[*http1.Backend]*balance.Target, len(spec.Backends))
	made.judges = spec.Limits.Failures > 0 || spec.Outlier.On()
	if old != nil {
		made.budget, made.outlook, made.failures = old.budget, old.outlook, old.failures
	} else {
		made.budget, made.review, made.failures = newBudget(), now.Add(reviewEvery), newComplaints()
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
	for i, b := range spec.Backends {
		made.targets = append(made.targets, p.target(made, b, now))
		made.findings = append(made.findings, p.findings[b.ID])
		made.targetOf[p.findings[b.ID].via] = made.targets[i]
	}
	made.sticky.Store(newSticky(made, p.cookieKeys))
	p.refresh(made)
	p.reviewLater(made)
	return made
}

// Via is the name that the Via field of requests to a pool has for this cluster; empty if
// there is no such pool.
func (p *Proxy) Via(pool string) string {
	if found := p.table.Load().pool(pool); found != nil {
		return found.via
	}
	return ""
}

// viaOf is the name that Via gives a pool of a cluster, the same on every node. It tells
// nobody else which. A request may come to a cluster twice, as by a cache that is one pool's
// backend and has another for its own; to the same pool it comes only in a loop.
func viaOf(cluster, pool string) string {
	sum := sha256.Sum256([]byte(cluster + "\x00" + pool))
	return "lbnode-" + hex.EncodeToString(sum[:8])
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
func (p *Proxy) target(pool *pool, b *state.Backend, now time.Time) *balance.Target {
	f := p.findings[b.ID]
	fresh := f == nil || f.url != b.URL()
	if fresh {
		if f != nil {
			f.via.Close()
		}
		f = &finding{id: b.ID, name: b.Name, url: b.URL(), local: &balance.Local{}}
		p.findings[b.ID] = f
	}
	if f.via == nil || !sameReach(f.reached, pool.spec) {
		if f.via != nil {
			f.via.Close()
		}
		f.via, f.reached = p.reach(b, f.local, pool.spec), pool.spec
		f.via.Settle(f.at)
	}
	f.pool = pool
	f.seen(b, fresh, time.Duration(pool.spec.SlowStart), now)
	if pool.spec.Limits.Failures == 0 { // no trial would come to an end
		f.local.Trial.Store(balance.NoTrial)
	}
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

// lastResort gives a target for a request that has failed at those tried while no other is
// eligible: one that this node could not reach when it last tried. That may be over, and the
// request is lost otherwise.
func (p *pool) lastResort(tried []*balance.Target) *balance.Target {
	for _, t := range *p.fit.Load() {
		if !slices.Contains(tried, t) {
			return t
		}
	}
	return nil
}
