package balance

import (
	"math"
	"math/bits"
	"sync/atomic"
)

const (
	// peakHalfLifeBits is how old a peak gets, in ticks, until half of what it is above the
	// mean is left: 0.5 s.
	peakHalfLifeBits = 9
	// parts are what the time that a target is taken to need is made of: its own peak is one
	// of so many, the mean of the pool the rest.
	parts = 4
)

// p2c draws two targets by weight and picks the one with less to wait for (the power of
// two choices by a peak EWMA of latency): the time until an answer there, times the attempts
// under way for its weight and one more. The time rises with each slow answer at once and
// comes back over a second or so, so that a target that stalls is left alone soon.
//
// It differs from what others call that in three things. In simulations of targets that are slow
// at times the tail is longer without any of them; without all three, longer than if latency were
// not looked at. It forgets in a second, not in ten, as the loss of a target that does well again
// costs more than one try. What is known of a target falls to the mean of all, not to nothing:
// where a node asks each target a few times a second, those that it found slow would soon seem
// the best. And the mean makes up most of it: a peak is often one long request, and what the node
// itself has under way at a target says more.
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
	now, mean := p.now(), p.typical.mean()
	mine, rest := bits.Mul64(cost(first, now, mean), uint64(second.Weight))
	others, otherRest := bits.Mul64(cost(second, now, mean), uint64(first.Weight))
	if others < mine || others == mine && otherRest < rest {
		return second
	}
	return first
}

// cost is that of a target times its weight. The weight counts for what is under way
// only: idle targets that are equally fast share by weight because they are drawn by it.
func cost(t *Target, now uint32, mean uint64) uint64 {
	return t.peak.need(now, mean) * (t.load()*t.unit() + uint64(t.Weight))
}

// Observe implements Observer.
func (p *p2c) Observe(t *Target, a Attempt) {
	took := p.typical.charge(a)
	if a.Failed {
		took = min(took*parts, math.MaxUint32) // it counts whole, not as one part
	} else {
		p.typical.add(took)
	}
	t.peak.learn(took, p.now())
}

// peak is the longest that a target has taken lately, and when that was learned, in one word,
// which is 0 while nothing was.
type peak struct{ word atomic.Uint64 }

// need is what the target is taken to need now, times parts: as much as all in the mean, but
// for what is left of how far its peak is from that.
func (p *peak) need(now uint32, mean uint64) uint64 {
	word := p.word.Load()
	if word == 0 {
		return parts * mean
	}
	age := now - uint32(word>>32)
	return parts*mean + fade(word&math.MaxUint32, age, peakHalfLifeBits) - fade(mean, age, peakHalfLifeBits)
}

// learn takes a sample in. One above what is known takes its place; another counts the more
// the older that is.
func (p *peak) learn(sample uint64, now uint32) {
	for {
		old, value := p.word.Load(), sample
		if old != 0 {
			age := now - uint32(old>>32)
			left := fade(old&math.MaxUint32, age, peakHalfLifeBits)
			value = max(value, left+sample-fade(sample, age, peakHalfLifeBits))
		}
		if p.word.CompareAndSwap(old, uint64(now)<<32|min(max(value, 1), math.MaxUint32)) {
			return
		}
	}
}
