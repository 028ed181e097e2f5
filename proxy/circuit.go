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
// begins anew, if not, the circuit is closed. Probes and the cluster's verdict on health
// know nothing of it.

// openFor is how long a circuit stays open where the pool does not say.
const openFor = 10 * time.Second

// settleCircuit takes what became of an attempt. Only one that brought no answer has
// failed: what a backend answers may be the fault of the request.
func (p *Proxy) settleCircuit(pool *pool, t *balance.Target, err error) {
	trial := t.Trial.Load() == balance.TrialRuns
	switch {
	case blameless(err):
		if trial {
			t.Trial.Store(balance.TrialWanted)
		}
	case err != nil:
		if n := t.Failures.Add(1); trial || int(n) == pool.spec.Limits.Failures {
			p.trip(t)
		}
	case t.Failures.Load() > 0:
		t.Failures.Store(0)
		if trial {
			t.Trial.Store(balance.NoTrial)
			p.tellReturn(t.Name)
		}
	}
}

// blameless says whether a failure tells nothing of the backend.
func blameless(err error) bool {
	switch {
	case err == nil:
		return false
	case err == errStoodStill, err == errStale, errors.Is(err, http1.ErrHandshake), errors.Is(err, http1.ErrFull):
		return true
	}
	return statusOf(err) < http.StatusInternalServerError || ownFault(err)
}

// trip opens the circuit of a backend.
func (p *Proxy) trip(t *balance.Target) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f := p.about(t)
	if f == nil || f.aside != nil || f.pool.spec.Limits.Failures == 0 {
		return
	}
	rest := openFor
	if open := f.pool.spec.Limits.Open; open > 0 {
		rest = time.Duration(open)
	}
	p.setAside(f, rest, true)
	p.log.Warn("backend gets no requests from this node for a while: too many failed in a row",
		"pool", f.pool.spec.Name, "backend", f.name, "failed", f.local.Failures.Load(), "for", rest)
}

// admits says whether a target takes a request now: after its circuit was open, only one
// at a time, as a trial.
func admits(t *balance.Target) bool {
	return t.Trial.Load() == balance.NoTrial || t.Trial.CompareAndSwap(balance.TrialWanted, balance.TrialRuns)
}

// sameReach says whether backends are reached in two pools in the same way.
func sameReach(a, b *state.Pool) bool {
	return a.Timeouts.Connect == b.Timeouts.Connect && a.ProxyProtocol == b.ProxyProtocol &&
		a.Limits.Connections == b.Limits.Connections && a.Limits.Pending == b.Limits.Pending
}
