package proxy

import (
	"time"

	"lbnode/proxy/balance"
	"lbnode/state"
)

// candidate is a target with all that counts for whether it gets requests.
type candidate struct {
	target    *balance.Target
	ready     bool // the operator and its agent want it
	backup    bool // only while there is no other
	starting  bool // nobody has probed it yet
	healthy   bool // as the cluster has it or, without quorum, this node
	aside     bool // this node sends it nothing for a while
	reachable bool // from this node
}

// fit says whether nothing is known against the candidate besides that it may not be
// reachable.
func (c *candidate) fit() bool { return c.healthy && !c.aside }

// tier is the primary backends of a pool, or the backups. Each list is part of the one
// before, in the order of the pool.
type tier struct {
	ready     []*balance.Target // that are wanted
	known     []*balance.Target // and that were probed: a new one says nothing of the others
	fit       []*balance.Target // and that are healthy and not set aside
	reachable []*balance.Target // and that this node can reach
}

// choice is who gets the traffic of a pool.
type choice struct {
	targets []*balance.Target
	fit     []*balance.Target // and those of the same tier that this node cannot reach
	backups bool              // it is they
	panics  bool              // so few are fit that health is ignored
}

// refresh tells the strategy which targets are eligible now, and what share of the
// traffic each is to get, and which may keep clients. It is asked at each
// finding, and of thousands of backends there may be thousands at once. Proxy.mu is held.
func (p *Proxy) refresh(pool *pool) {
	all := p.candidates(pool)
	chosen := choose(all, pool.spec)
	if chosen.panics != pool.panics {
		pool.panics = chosen.panics
		p.tellPanic(pool)
	}
	pool.eligible.Store(int64(len(chosen.targets)))
	pool.fit.Store(&chosen.fit)
	pool.strategy.Update(p.ramped(pool, chosen.targets, time.Now()))
	pool.keep(all, chosen)
}

func (p *Proxy) candidates(pool *pool) []candidate {
	all := make([]candidate, len(pool.targets))
	for i, t := range pool.targets {
		b, f := pool.spec.Backends[i], pool.findings[i]
		healthy := p.healthy(b, f)
		all[i] = candidate{
			target:    t,
			ready:     b.Wanted() == state.Ready,
			backup:    b.Backup,
			starting:  b.Health == state.Starting && !healthy,
			healthy:   healthy,
			aside:     f.aside != nil,
			reachable: !t.Unreachable.Load(),
		}
	}
	return all
}

func (p *Proxy) healthy(b *state.Backend, f *finding) bool {
	if p.autonomous && f.opinion != nil {
		return *f.opinion
	}
	return b.Healthy()
}

// choose gives the targets that may get new requests: those that are wanted, fit, and
// that this node can reach; backups if there is no primary such. If it can reach none, it
// tries those that are fit; if none is, the pool says what to do. If too few are fit, it
// takes all that are known, and says that it panics.
func choose(all []candidate, spec *state.Pool) choice {
	t, backups := serving(tierOf(all, false), tierOf(all, true))
	switch {
	case len(t.fit)*100 < spec.Panic*len(t.known):
		return choice{t.known, t.fit, backups, true}
	case len(t.reachable) > 0:
		return choice{t.reachable, t.fit, backups, false}
	case len(t.fit) > 0:
		return choice{t.fit, t.fit, backups, false}
	case spec.WhenAllDown == state.FailOpen:
		return choice{t.ready, nil, backups, false}
	default:
		return choice{nil, nil, backups, false}
	}
}

func tierOf(all []candidate, backup bool) (t tier) {
	n := 0
	for i := range all {
		if all[i].ready && all[i].backup == backup {
			n++
		}
	}
	if n == 0 {
		return t
	}
	room := make([]*balance.Target, 4*n)
	t = tier{room[:0:n], room[n : n : 2*n], room[2*n : 2*n : 3*n], room[3*n : 3*n]}
	for i := range all {
		c := &all[i]
		if !c.ready || c.backup != backup {
			continue
		}
		t.ready = append(t.ready, c.target)
		if c.starting {
			continue
		}
		t.known = append(t.known, c.target)
		if !c.fit() {
			continue
		}
		t.fit = append(t.fit, c.target)
		if c.reachable {
			t.reachable = append(t.reachable, c.target)
		}
	}
	return t
}

// serving is the tier that gets the traffic: the better one, and of equals the primary.
func serving(primary, backup tier) (better tier, backups bool) {
	for _, of := range []func(tier) int{
		func(t tier) int { return len(t.reachable) },
		func(t tier) int { return len(t.fit) },
		func(t tier) int { return len(t.ready) },
	} {
		switch {
		case of(primary) > 0:
			return primary, false
		case of(backup) > 0:
			return backup, true
		}
	}
	return primary, false
}

func (p *Proxy) tellPanic(pool *pool) {
	if pool.panics {
		p.log.Warn("too few backends are fit: health is ignored and all that are ready get requests from this node",
			"pool", pool.spec.Name, "panic_threshold", pool.spec.Panic)
		return
	}
	p.log.Info("enough backends are fit again: those that are not get no requests from this node", "pool", pool.spec.Name)
}

// Panics gives the names of the pools in which so few backends are fit that this node
// sends requests to all that are ready.
func (p *Proxy) Panics() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	var names []string
	if t := p.table.Load(); t != nil {
		for name, pool := range t.pools {
			if pool.panics {
				names = append(names, name)
			}
		}
	}
	return names
}
