package proxy

import (
	"time"

	"lbnode/proxy/balance"
)

// A backend that fails this node is set aside: it gets no requests from it for some
// time. It is this node's own finding; probes go on. There are two reasons, which differ
// in what counts as a failure and in how it ends: the pool's limits open its circuit,
// which closes after a trial (circuit.go), or the pool ejects outliers, which come back
// by themselves (outlier.go).

// aside says how a backend was set aside.
type aside struct {
	since time.Time
	trial bool // its circuit is open: what follows is a trial
}

// settle takes what became of an attempt that was admitted, and its answer's code.
func (p *Proxy) settle(pool *pool, t *balance.Target, code int, err error) {
	if !pool.judges {
		return
	}
	if pool.spec.Limits.Failures > 0 {
		p.settleCircuit(pool, t, err)
	}
	if pool.spec.Outlier.On() {
		p.settleOutlier(pool, t, code, err)
	}
}

// about returns the finding to which a target belongs, nil if the backend has gone, or
// moved. Proxy.mu is held.
func (p *Proxy) about(t *balance.Target) *finding {
	if f := p.findings[t.ID]; f != nil && f.local == t.Local {
		return f
	}
	return nil
}

// setAside keeps requests from a backend for a while. Proxy.mu is held.
func (p *Proxy) setAside(f *finding, rest time.Duration, trial bool) {
	a := &aside{since: time.Now(), trial: trial}
	f.aside = a
	f.local.Trial.Store(balance.NoTrial)
	p.refresh(f.pool)
	if f.ejected() {
		p.ejectionsChanged()
	}
	time.AfterFunc(rest, func() { p.rested(f, a) })
}

// rested takes back a backend, unless it was taken back before, has gone, or has moved.
func (p *Proxy) rested(f *finding, a *aside) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if f.aside == a && p.findings[f.id] == f {
		p.takeBack(f)
	}
}

// takeBack lets requests go to a backend that was set aside. Proxy.mu is held.
func (p *Proxy) takeBack(f *finding) {
	ejected, trial := f.ejected(), f.aside.trial && f.pool.spec.Limits.Failures > 0
	f.aside = nil
	if trial {
		f.local.Trial.Store(balance.TrialWanted)
	} else {
		f.local.Streak.Store(0)
		p.tellReturn(f.name)
	}
	p.refresh(f.pool)
	if ejected {
		p.ejectionsChanged()
	}
}

func (p *Proxy) tellReturn(backend string) {
	p.log.Info("backend gets requests from this node again", "backend", backend)
}
