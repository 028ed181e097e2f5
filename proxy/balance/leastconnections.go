package balance

import "sync/atomic"

// leastConnections picks the target with the fewest attempts under way for its weight.
type leastConnections struct{ scan atomic.Pointer[scan] }

func newLeastConnections() *leastConnections {
	l := &leastConnections{}
	l.Update(nil)
	return l
}

// Update implements Strategy.
func (l *leastConnections) Update(eligible []*Target) { l.scan.Store(newScan(eligible)) }

// Pick implements Strategy. With none under way anywhere, the weights decide.
func (l *leastConnections) Pick(_ uint64, tried []*Target) *Target {
	s, best := l.scan.Load(), newChoice()
	for i := range s.cells {
		if len(tried) > 0 && s.targets[i].among(tried) {
			continue
		}
		c := &s.cells[i]
		best.offer(i, c.load(), c.weight)
	}
	return s.taken(&best)
}
