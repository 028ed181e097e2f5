package balance

import (
	"math"
	"sync/atomic"
	"time"
)

const (
	// unitBits makes the unit of estimates, some µs, of nanoseconds.
	unitBits = 10
	// tickBits makes the unit of when they were made, some ms.
	tickBits = 20
	// halfLifeBits is how old an estimate gets, in such units, until it counts half: 4.3 s.
	// A target that seems slow is given another chance once that has made it seem as
	// fast as the others: after 14 s, if it took ten times as long.
	halfLifeBits = 12
	// floor is what the fastest target is taken to need, 0.1 ms. Less is noise.
	floor = 100_000 >> unitBits
	// unknown is what a target is taken to need while none has answered yet, 10 ms.
	unknown = 10_000_000 >> unitBits
	// penalty is how many times as long as others a target that has failed is taken to
	// have needed. It is not a fixed time: beside it one failure in a thousand would keep
	// each target of a fast pool from work for most of the time.
	penalty = 10
)

// epoch is when ticks are counted from.
var epoch = time.Now()

// ticks is the time for estimates. It wraps after 52 days.
func ticks() uint32 { return uint32(time.Since(epoch) >> tickBits) }

// estimate is a time that was learned and when that was, in one word, so that neither
// is read without the other. The word is 0 while nothing was learned.
type estimate struct{ word atomic.Uint64 }

// at is what a target is taken to need now, or else the prior if that is not known. The
// older it is, the less: who is never asked has to be tried again one day.
func (e *estimate) at(now uint32, prior uint64) uint64 {
	word := e.word.Load()
	if word == 0 {
		return prior
	}
	return max(fade(word&math.MaxUint32, now-uint32(word>>32), halfLifeBits), floor)
}

// learn takes a sample in. That is all that counts of what was known before: the part
// keep of it, which gets less as time goes by.
func (e *estimate) learn(sample uint64, now uint32, keep float64) {
	for {
		old, value := e.word.Load(), float64(sample)
		if old != 0 {
			const whole = 1 << 32
			left := keep * float64(fade(whole, now-uint32(old>>32), halfLifeBits)) / whole
			value = float64(uint32(old))*left + value*(1-left)
		}
		if e.word.CompareAndSwap(old, uint64(now)<<32|uint64(max(value, 1))) {
			return
		}
	}
}

// fade is what is left of a value at that age, both in ticks, if half is left after 1<<bits.
// Between two halvings it falls along a line.
func fade(value uint64, age, bits uint32) uint64 {
	if int32(age) <= 0 { // made by who looked at the clock later
		return value
	}
	value >>= age >> bits
	return value - (value>>1)*uint64(age&(1<<bits-1))>>bits
}

// typical is the mean of what the targets of a pool need, for those of which nothing
// is known. Sixty-four samples make most of it.
type typical struct{ sum atomic.Uint64 } // 64 times the mean

const typicalBits = 6

func (t *typical) mean() uint64 {
	if sum := t.sum.Load(); sum > 0 {
		return max(sum>>typicalBits, floor)
	}
	return unknown
}

// add takes a sample in. One that comes at the same time as another may be lost.
func (t *typical) add(sample uint64) {
	old := t.sum.Load()
	sum := old - old>>typicalBits + sample
	if old == 0 {
		sum = sample << typicalBits
	}
	t.sum.CompareAndSwap(old, sum)
}

// charge is what an attempt has taken; for one that failed, more than others take.
func (t *typical) charge(a Attempt) uint64 {
	took := min(uint64(max(a.Latency, 0))>>unitBits, math.MaxUint32)
	if a.Failed {
		took = min(max(took, penalty*t.mean()), math.MaxUint32)
	}
	return took
}
