package balance

import (
	"math/bits"
	"sync/atomic"
)

// p2c draws two targets by weight and picks the one with less to wait for (the power of
// two choices): the time until an answer there, times the attempts under way for its
// weight and one more. The time rises with each slow answer at once and falls over
// seconds, so that a target that stalls is left alone soon.
type p2c struct {
	draws   atomic.Pointer[draws]
	typical typical
	now     func() uint32
}

func newP2C(now func() uint32) *p2c {
	p := &p2c{now: now}
	p.Update(nil)
	return p
}

// Update implements Strategy.
func (p *p2c) Update(eligible []*Target) { p.draws.Store(newDraws(eligible)) }

// Pick implements Strategy.
func (p *p2c) Pick(_ uint64, tried []*Target) *Target {
	d := p.draws.Load()
	first := d.drawOther(nil, tried)
	if first == nil || len(d.targets) == 1 {
		return first
	}
	second := d.drawOther(first, tried)
	if second == nil {
		return first
	}
	now, prior := p.now(), p.typical.mean()
	mine, rest := bits.Mul64(cost(first, now, prior), uint64(second.Weight))
	others, otherRest := bits.Mul64(cost(second, now, prior), uint64(first.Weight))
	if others < mine || others == mine && otherRest < rest {
		return second
	}
	return first
}

// cost is that of a target times its weight. The weight counts for what is under way
// only: idle targets that are equally fast share by weight because they are drawn by it.
func cost(t *Target, now uint32, prior uint64) uint64 {
	return t.peak.at(now, prior) * (t.load()*t.unit() + uint64(t.Weight))
}

// Observe implements Observer.
func (p *p2c) Observe(t *Target, a Attempt) {
	took := p.typical.charge(a)
	if !a.Failed {
		p.typical.add(took)
	}
	t.peak.learn(took, p.now(), 1, true)
}
