package health

import (
	"context"
	"math/rand/v2"
	"net/netip"
	"time"

	"lbnode/state"
)

// minGap is the least time between the starts of two probes when traffic asks for
// them: however often it does, it must not set the pace.
const minGap = 200 * time.Millisecond

// target is one backend being probed in one way. A change of address or check
// makes a new target.
type target struct {
	pool    *state.Pool
	backend *state.Backend
	cancel  context.CancelFunc
	// hurry holds a request for a probe before the interval is over.
	hurry chan struct{}

	// The Checker's mutex guards what follows.

	// observed is false if the backend is probed only until this node can connect
	// to it again.
	observed bool
	// opinion begins as what the cluster has agreed and then follows this node's
	// probes alone.
	opinion state.Health
	// turned is when the opinion was last another one, or the probing began.
	turned time.Time
	// streak is how many results in a row have spoken against the opinion.
	streak int
	// wish is what the backend's agent asks for. Like the opinion it begins as what the
	// cluster has agreed.
	wish state.Wish
	// unsure is true after a time in which this node did not probe as it should, until its
	// probes confirm the opinion from before, or change it.
	unsure bool
	// told is whether the sink was told that this address cannot be reached.
	told bool
	// at is where a host that is a name was when a probe last passed; zero before.
	at   netip.Addr
	last Observation // zero until the first probe has ended
}

func newTarget(pool *state.Pool, b *state.Backend, observed bool) *target {
	return &target{
		pool:     pool,
		backend:  b,
		hurry:    make(chan struct{}, 1),
		observed: observed,
		opinion:  b.Health,
		turned:   time.Now(),
		wish:     b.Agent,
	}
}

// rescheduled returns a target that goes on from t with another check. What the
// old check counted does not speak for the new one.
func (t *target) rescheduled(pool *state.Pool, b *state.Backend, observed bool) *target {
	next := newTarget(pool, b, observed)
	next.opinion, next.turned, next.unsure, next.told, next.last = t.opinion, t.turned, t.unsure, t.told, t.last
	if t.pool.HealthCheck.Type == pool.HealthCheck.Type {
		next.wish = t.wish
	}
	return next
}

// interval is the time between the starts of two probes, as the opinion is now.
func (t *target) interval() time.Duration {
	check := &t.pool.HealthCheck
	if t.opinion != state.Healthy && check.UnhealthyInterval > 0 {
		return time.Duration(check.UnhealthyInterval)
	}
	return time.Duration(check.Interval)
}

func (t *target) probeSoon() {
	select {
	case t.hurry <- struct{}{}:
	default:
	}
}

// count takes one result into the opinion and says whether that changed it.
func (t *target) count(passed bool) bool {
	verdict, threshold := state.Unhealthy, t.pool.HealthCheck.Fall
	if passed {
		verdict, threshold = state.Healthy, t.pool.HealthCheck.Rise
	}
	if verdict == t.opinion {
		t.streak = 0
		return false
	}
	t.streak++
	if t.opinion != state.Starting && t.streak < threshold {
		return false
	}
	t.opinion, t.streak = verdict, 0
	return true
}

// watch probes t first after the given time, then each time the interval, counted
// from start to start, is over, and sooner when asked to hurry. What the process was
// stopped in the middle of is done again at once.
func (c *Checker) watch(ctx context.Context, t *target, first time.Duration) {
	defer c.displace(t)
	gap := min(c.intervalOf(t), minGap)
	var started time.Time
	again := 0
	timer := time.NewTimer(first)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-t.hurry:
			if early := gap - time.Since(started); early > 0 {
				timer.Reset(early)
				continue
			}
		}
		if !c.stillNeeded(t) || !c.room.enter(ctx) {
			return
		}
		overdue := c.isOverdue(t)
		started = time.Now()
		result := c.probe(ctx, t.pool, t.backend, c.placeOf(t))
		c.room.leave()
		if again < mostAgain && t.overran(started) {
			again++
			timer.Reset(0)
			continue
		}
		again = 0
		c.settle(t, result, started)
		next := c.intervalOf(t) - time.Since(started)
		if overdue { // as all are after a stop, who should not go on in step
			next = rand.N(c.intervalOf(t))
		}
		timer.Reset(next)
	}
}

func (c *Checker) intervalOf(t *target) time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return t.interval()
}

// stillNeeded drops a target that was probed only because it was avoided, and no
// longer is. That waits for the next probe to be due, not for the one that
// passes, so that the gap between probes outlives a pass.
func (c *Checker) stillNeeded(t *target) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.targets[t.backend.ID] != t {
		return false
	}
	if !t.observed && !c.avoided[t.backend.ID] {
		c.drop(t.backend.ID)
		return false
	}
	return true
}

// settle records the result of a probe and tells the sink what it changed.
func (c *Checker) settle(t *target, r result, started time.Time) {
	c.deliver.Lock()
	defer c.deliver.Unlock()
	for _, tell := range c.record(t, r, started) {
		tell()
	}
}

// record returns what is to be told.
func (c *Checker) record(t *target, r result, started time.Time) []func() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.targets[t.backend.ID] != t {
		return nil
	}
	news := append(c.recordReach(t, r), c.recordPlace(t, r)...)
	if !r.passed {
		news = append(news, func() { c.sink.Failed(t.pool.Name, t.backend.Name) })
	}
	was, now := t.opinion, time.Now()
	if t.overdue() {
		t.turned, t.unsure = now, true
	}
	crossed := t.count(r.passed)
	asked := t.wish.Wants()
	t.wish = r.said.over(t.wish)
	if crossed {
		t.turned = now
	}
	if crossed || r.passed == (t.opinion == state.Healthy) {
		t.unsure = false
	}
	t.last = Observation{
		BackendID: t.backend.ID,
		URL:       t.backend.URL(),
		Healthy:   t.opinion == state.Healthy,
		At:        now,
		Latency:   now.Sub(started),
		Reason:    r.reason,
		Steady:    now.Sub(t.turned),
		Agent:     t.wish,
	}
	// Another weight can wait for the next report; an agent may change it all the time.
	if (crossed || asked != t.wish.Wants()) && t.observed {
		o := t.last
		news = append(news, func() { c.sink.Judged(o) })
	}
	if crossed && t.observed {
		c.log.Info("opinion of backend changed", "pool", t.pool.Name, "backend", t.backend.Name, "from", was, "to", t.opinion, "reason", r.reason)
	}
	return news
}

func (c *Checker) recordReach(t *target, r result) []func() {
	id := t.backend.ID
	switch {
	case !r.connected && !t.told:
		t.told, c.avoided[id] = true, true
		return []func(){func() { c.sink.Reachable(id, false) }}
	case r.passed && c.avoided[id]:
		t.told = false
		delete(c.avoided, id)
		return []func(){func() { c.sink.Reachable(id, true) }}
	}
	return nil
}
