package health

import (
	"context"
	"math"
	"time"
)

// A process that was stopped, or starved, finds when it goes on that its timers have run
// out, while answers lie unread. What a probe brings over such a time says nothing of the
// backend, and what was found before it is old.

const (
	// lateBy is how much later than due anything happens only in a process that did not
	// run. A busy machine gives each process a turn within some ten ms, and a quota takes
	// away a hundred at a time. To be wrong costs one more probe.
	lateBy = 250 * time.Millisecond
	// mostAgain is how often in a row a probe is made again, or waited for longer, because
	// the process did not run. What comes after that counts: a process that is always late
	// must not be blind for ever.
	mostAgain = 2
)

// since is how long ago something was, by the clock that says longer: the monotonic one
// stands still while a machine is suspended. A wall clock that is set ahead makes things
// look old once, which costs no more than to look again.
func since(at time.Time) time.Duration {
	now := time.Now()
	return max(now.Sub(at), now.Round(0).Sub(at.Round(0)))
}

// limit is how long a probe is waited for.
type limit struct {
	lasts time.Duration
	due   time.Time
	again int
}

// over says whether the time is up at now. If the process was not there when it was, it
// begins anew: an answer may have come in the meantime, and be read first.
func (l *limit) over(now time.Time) bool {
	if now.Sub(l.due) <= lateBy || l.again == mostAgain {
		return true
	}
	l.again++
	l.due = now.Add(l.lasts)
	return false
}

// within ends the context once the process has run for so long.
func within(ctx context.Context, timeout time.Duration) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	l := limit{lasts: timeout, due: time.Now().Add(timeout)}
	var timer *time.Timer
	timer = time.AfterFunc(math.MaxInt64, func() { // which is set when it has its name
		if l.over(time.Now()) {
			cancel()
			return
		}
		timer.Reset(timeout)
	})
	timer.Reset(timeout)
	return ctx, func() { timer.Stop(); cancel() }
}

// overran says whether a probe took longer than one may of which the process saw the whole.
func (t *target) overran(started time.Time) bool {
	return since(started) > time.Duration(t.pool.HealthCheck.Timeout)+lateBy
}

// overdue says whether a probe should long have ended since the last one did, or since the
// probing began. A second is for a machine that is busy.
func (t *target) overdue() bool {
	last := t.last.At
	if last.IsZero() {
		last = t.turned
	}
	return since(last) > 2*t.interval()+time.Duration(t.pool.HealthCheck.Timeout)+time.Second
}

func (c *Checker) isOverdue(t *target) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return t.overdue()
}

// speaks says whether the last observation tells how the backend is now.
func (t *target) speaks() bool {
	return t.observed && !t.last.At.IsZero() && !t.unsure && !t.overdue()
}
