package balance

import "sync/atomic"

const (
	// keepTime is how much of what was known of a target a new sample leaves, besides what
	// it fades. Requests differ more than targets do: where less is kept, a few that happened
	// to be short or long decide. Where more is, one that does well again waits for long.
	keepTime = 0.9
	// doubt is the part of what targets need in the mean that is added to what each seems
	// to need. See leastTime.
	doubtNumerator   = 1
	doubtDenominator = 2
)

// leastTime picks the target at which a request should be over first: that which needs
// least for all that are under way there and one more, for its weight. What one request
// needs it learns from how long attempts took and how many others each of them had to
// share the target with, so that a target's own pace is told from the crowd that this
// node sends there. As many as its weight, a target works on at once.
//
// It looks at all targets. Two drawn at random miss the few that are idle when most are
// busy; and several nodes that see only their own attempts find slow targets sooner.
//
// A target that in truth works on more at once seems to need the less the more it has: to
// it went whatever there is, and to others nothing, if that were believed. With some
// doubt, none seems that fast, and they share. In simulations (100 targets, 16 nodes) the
// doubt has cost nothing either where they work on one at a time.
type leastTime struct {
	scan    atomic.Pointer[scan]
	typical typical
	now     func() uint32
}

func newLeastTime(now func() uint32) *leastTime {
	l := &leastTime{now: now}
	l.Update(nil)
	return l
}

// Update implements Strategy.
func (l *leastTime) Update(eligible []*Target) { l.scan.Store(newScan(eligible)) }

// Pick implements Strategy.
func (l *leastTime) Pick(_ uint64, tried []*Target) *Target {
	s, best := l.scan.Load(), newChoice()
	now, mean := l.now(), l.typical.mean()
	doubt := mean * doubtNumerator / doubtDenominator
	for i := range s.cells {
		if len(tried) > 0 && s.targets[i].among(tried) {
			continue
		}
		c := &s.cells[i]
		best.offer(i, (c.load()+1)*(c.service.at(now, mean)+doubt), c.weight)
	}
	return s.taken(&best)
}

// Observe implements Observer.
func (l *leastTime) Observe(t *Target, a Attempt) {
	took := l.typical.charge(a)
	if !a.Failed {
		weight := max(uint64(t.Weight)/t.unit(), 1)
		took = took * weight / max(uint64(max(a.Queue, 0))+1, weight)
		l.typical.add(took)
	}
	t.service.learn(took, l.now(), keepTime)
}
