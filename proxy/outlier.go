package proxy

import (
	"time"

	"lbnode/proxy/balance"
	"lbnode/state"
)

const (
	// reviewEvery is the time over which backends' rates of success are taken.
	reviewEvery = 10 * time.Second
	// A rate counts if it is of so many requests, and is compared with others' if there
	// are so many of them.
	reviewRequests, reviewBackends = 100, 5
	// mostInARow bounds how much longer than the first a later ejection lasts.
	mostInARow = 10
	// tellDoubtAgain is after how long without doubts in itself a node tells of new ones.
	tellDoubtAgain = time.Minute
)

// settleOutlier takes what became of an attempt. An answer by which the backend says that
// it cannot give any is a failure, too.
func (p *Proxy) settleOutlier(pool *pool, t *balance.Target, code int, err error) {
	if blameless(err) {
		return
	}
	rules, failed := &pool.spec.Outlier, err != nil || ownFailure(code)
	if rules.SuccessRate > 0 {
		t.Asked.Add(1)
		if failed {
			t.Failed.Add(1)
		}
	}
	switch {
	case failed:
		if n := int(t.Streak.Add(1)); rules.Consecutive > 0 && n%rules.Consecutive == 0 {
			p.mu.Lock()
			defer p.mu.Unlock()
			if f := p.about(t); f != nil && !p.doubtsItself(f.pool) {
				p.eject(f, "too many failed in a row", "failed", n)
			}
		}
	case t.Streak.Load() > 0:
		t.Streak.Store(0)
	}
}

// eject sets a backend aside, unless it is already or too many of its pool are. Proxy.mu is held.
func (p *Proxy) eject(f *finding, why string, details ...any) {
	rules := f.pool.spec.Outlier
	if f.aside != nil || !rules.On() || !p.spares(f.pool) {
		return
	}
	base, now := rules.Base(), time.Now()
	if now.Sub(f.back) > mostInARow*base {
		f.ejections = 0
	}
	f.ejections = min(f.ejections+1, mostInARow)
	rest := base * time.Duration(f.ejections)
	f.back = now.Add(rest)
	p.setAside(f, rest, false)
	p.log.Warn("backend gets no requests from this node for a while: "+why,
		append([]any{"pool", f.pool.spec.Name, "backend", f.name, "for", rest}, details...)...)
}

// spares says whether one more backend of a pool may be ejected. Proxy.mu is held.
func (p *Proxy) spares(pool *pool) bool {
	ready, out := 0, 0
	for i, f := range pool.findings {
		if pool.spec.Backends[i].Wanted() != state.Ready {
			continue
		}
		ready++
		if f.ejected() {
			out++
		}
	}
	return out < pool.spec.Outlier.MostOf(ready)
}

func (f *finding) ejected() bool { return f.aside != nil && !f.aside.trial }

// doubtsItself says whether most of a pool's backends fail this node at once. Then the
// fault is its own, as that of its network: it takes back those that it has just
// ejected, and tells once. Proxy.mu is held.
func (p *Proxy) doubtsItself(pool *pool) bool {
	base, now := pool.spec.Outlier.Base(), time.Now()
	serve, failing := 0, 0
	var hasty []*finding
	for i, f := range pool.findings {
		if b := pool.spec.Backends[i]; b.Wanted() != state.Ready || !p.healthy(b, f) {
			continue
		}
		serve++
		switch {
		case f.local.Streak.Load() == 0:
		case f.aside == nil:
			failing++
		case now.Sub(f.aside.since) < base:
			failing++
			if f.ejected() {
				hasty = append(hasty, f)
			}
		}
	}
	if 2*failing <= serve {
		return false
	}
	for _, f := range hasty {
		f.ejections, f.back = f.ejections-1, now
		p.takeBack(f)
	}
	if now.Sub(pool.doubted) > tellDoubtAgain {
		p.log.Warn("most backends of a pool fail this node at once: it takes the fault for its own and ejects none",
			"pool", pool.spec.Name, "failing", failing, "of", serve)
	}
	pool.doubted = now
	return true
}

// reviewLater has the rates of success compared when it is time. Proxy.mu is held.
func (p *Proxy) reviewLater(pool *pool) {
	if pool.spec.Outlier.SuccessRate > 0 {
		time.AfterFunc(time.Until(pool.review), func() { p.reviewNow(pool) })
	}
}

// reviewNow ejects the backends that succeed less often than the others of their pool.
func (p *Proxy) reviewNow(pool *pool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.table.Load().pool(pool.spec.Name) != pool {
		return // the pool that took its place has a review of its own
	}
	rates, sum := map[*finding]float64{}, 0.0
	for _, f := range pool.findings {
		if asked, failed := f.local.Asked.Swap(0), f.local.Failed.Swap(0); asked >= reviewRequests {
			rates[f] = 100 * float64(asked-failed) / float64(asked)
			sum += rates[f]
		}
	}
	if mean := sum / float64(len(rates)); len(rates) >= reviewBackends {
		for _, f := range pool.findings { // in order, should not all be spared
			if rate, ok := rates[f]; ok && rate < mean-float64(pool.spec.Outlier.SuccessRate) {
				p.eject(f, "it succeeds less often than the others", "percent", int(rate), "mean", int(mean))
			}
		}
	}
	pool.review = time.Now().Add(reviewEvery)
	p.reviewLater(pool)
}

func (p *Proxy) ejectionsChanged() {
	if p.config.Ejected != nil {
		p.config.Ejected()
	}
}

// Ejections gives the addresses, as URLs and by backend id, of the backends that this
// node has ejected for now. It ends those that are over: after a stop of the process, nobody
// else may have had the time to.
func (p *Proxy) Ejections() map[string]string {
	p.mu.Lock()
	defer p.mu.Unlock()
	urls, now := map[string]string{}, time.Now()
	for id, f := range p.findings {
		switch {
		case !f.ejected():
		case now.Before(f.back):
			urls[id] = f.url
		default:
			p.takeBack(f)
		}
	}
	return urls
}
