package proxy

import "sync/atomic"

const (
	// requestsPerRetry is how many requests pay for one retry: at most 20 % more
	// load, so that retries do not finish off backends that fail under load.
	requestsPerRetry = 5
	// burst is how many retries may come at once. It must cover all requests that
	// a backend had under way when it died.
	burst = 500
)

// budget bounds the retries of a pool. Every request pays in, every retry draws.
type budget struct {
	paid atomic.Int64 // in requests
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

// withdraw says whether there may be a retry, and counts it.
func (b *budget) withdraw() bool {
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
