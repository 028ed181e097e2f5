package proxy

import (
	"sync/atomic"
	"time"
)

const (
	// requestsPerRetry is how many requests pay for one retry: at most 20 % more
	// load, so that retries do not finish off backends that fail under load.
	requestsPerRetry = 5
	// burst is how many retries may come at once. It must cover all requests that
	// a backend had under way when it died.
	burst = 500
	// alwaysPerSecond is how many retries a second there may be whatever was paid: where
	// there is little traffic, they do no harm.
	alwaysPerSecond = 3
)

// budget bounds the retries of a pool. Every request pays in, every retry draws.
type budget struct {
	paid  atomic.Int64 // in requests
	given atomic.Int64 // a Unix second, times 4, and how many retries it was given unpaid
}

func newBudget() *budget {
	b := &budget{}
	b.paid.Store(burst * requestsPerRetry)
	return b
}

// deposit counts a request. Concurrent ones may overshoot the burst by a few.
func (b *budget) deposit() {
	if b.paid.Load() < burst*requestsPerRetry {
		b.paid.Add(1)
	}
}

// withdraw says whether there may be a retry now, and counts it.
func (b *budget) withdraw(now time.Time) bool {
	return b.reserve() || b.give(now.Unix())
}

// reserve says whether somebody has paid for a retry, and counts it. What is not needed is
// to be refunded.
func (b *budget) reserve() bool {
	for {
		paid := b.paid.Load()
		if paid < requestsPerRetry {
			return false
		}
		if b.paid.CompareAndSwap(paid, paid-requestsPerRetry) {
			return true
		}
	}
}

func (b *budget) refund() { b.paid.Add(requestsPerRetry) }

// give says whether there may be one that nobody has paid for.
func (b *budget) give(second int64) bool {
	for {
		given := b.given.Load()
		next := given + 1
		if given/4 != second {
			next = second*4 + 1
		}
		if next%4 > alwaysPerSecond || next/4 != second {
			return false
		}
		if b.given.CompareAndSwap(given, next) {
			return true
		}
	}
}
