package proxy

import (
	"sync/atomic"
	"time"
)

// span is over how many seconds the rate of requests is taken.
const span = 5

// meter counts requests by the second, without a lock: a request that falls on
// the turn of a second may be lost, which a rate can bear.
type meter struct {
	seconds [8]struct{ at, count atomic.Int64 } // more than span, so that none is read while it is reused
}

func (m *meter) count(now time.Time) {
	second := now.Unix()
	s := &m.seconds[second%int64(len(m.seconds))]
	if at := s.at.Load(); at != second && s.at.CompareAndSwap(at, second) {
		s.count.Store(0)
	}
	s.count.Add(1)
}

// rate gives the requests per second over the last whole seconds.
func (m *meter) rate(now time.Time) float64 {
	second, sum := now.Unix(), int64(0)
	for i := range m.seconds {
		if s := &m.seconds[i]; s.at.Load() >= second-span && s.at.Load() < second {
			sum += s.count.Load()
		}
	}
	return float64(sum) / span
}
