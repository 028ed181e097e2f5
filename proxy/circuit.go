package proxy

import (
	"errors"
	"net/http"
	"time"

	"lbnode/proxy/balance"
	"lbnode/proxy/http1"
	"lbnode/state"
)

// A circuit keeps requests from a backend that has failed too many in a row, for some
// time. Then one request at a time is let through as a trial: if it fails, the time
// begins anew, if not, the circuit is closed. It is this node's own: probes and the
// cluster's verdict on health know nothing of it.

// openFor is how long a circuit stays open where the pool does not say.
const openFor = 10 * time.Second

// settle takes what became of an attempt that was admitted. Only one that brought no
// answer has failed: what a backend answers may be the fault of the request.
func (p *Proxy) settle(pool *pool, t *balance.Target, err error) {
	if pool.spec.Limits.Failures == 0 {
		return
	}
	trial := t.Trial.Load() == balance.TrialRuns
	switch {
	case blameless(err):
		if trial {
			t.Trial.Store(balance.TrialWanted)
		}
	case err != nil:
		if n := t.Failures.Add(1); trial || int(n) == pool.spec.Limits.Failures {
			p.trip(pool, t)
		}
	case t.Failures.Load() > 0:
		t.Failures.Store(0)
		if trial {
			p.mend(t)
		}
	}
}

// blameless says whether a failure tells nothing of the backend.
func blameless(err error) bool {
	return err != nil && (errors.Is(err, http1.ErrFull) || statusOf(err) < http.StatusInternalServerError)
}

// trip opens the circuit of a backend.
func (p *Proxy) trip(pool *pool, t *balance.Target) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f := p.findings[t.ID]
	if f == nil || f.local != t.Local {
		return // it has gone, or moved
	}
	f.local.Trial.Store(balance.NoTrial)
	f.tripped = true
	p.refresh(f.pool)
	rest := openFor
	if pool.spec.Limits.Open > 0 {
		rest = time.Duration(pool.spec.Limits.Open)
	}
	p.log.Warn("backend gets no requests from this node for a while: too many failed in a row",
		"pool", f.pool.spec.Name, "backend", f.name, "failed", f.local.Failures.Load(), "for", rest)
	time.AfterFunc(rest, func() { p.try(f) })
}

// try lets trials through.
func (p *Proxy) try(f *finding) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f.tripped = false
	f.local.Trial.Store(balance.TrialWanted)
	p.refresh(f.pool)
}

// mend closes the circuit.
func (p *Proxy) mend(t *balance.Target) {
	t.Trial.Store(balance.NoTrial)
	p.log.Info("backend gets requests from this node again", "backend", t.Name)
}

// admits says whether a target takes a request now: with an open circuit, only one at a
// time, as a trial.
func admits(t *balance.Target) bool {
	return t.Trial.Load() == balance.NoTrial || t.Trial.CompareAndSwap(balance.TrialWanted, balance.TrialRuns)
}

// sameReach says whether backends are reached in two pools in the same way.
func sameReach(a, b *state.Pool) bool {
	return a.Timeouts.Connect == b.Timeouts.Connect && a.ProxyProtocol == b.ProxyProtocol &&
		a.Limits.Connections == b.Limits.Connections && a.Limits.Pending == b.Limits.Pending
}
