package proxy

import (
	"errors"
	"sync"
	"time"

	"lbnode/proxy/balance"
	"lbnode/proxy/http1"
)

// maxAttempts bounds the backends that one request is sent to.
const maxAttempts = 3

// exchange is one client request on its way through a pool: which backends it was
// sent to, and whether it may be sent to another.
type exchange struct {
	x        *http1.Exchange
	pool     *pool
	recorder Recorder
	method   string
	key      uint64 // that the pool's strategy picks by
	sticky   *sticky
	cookie   []byte         // that came for sticky
	bound    *http1.Backend // where the client authenticates by its connection; nil if nowhere

	tried []*balance.Target // in order; the last one is the current one
	room  [maxAttempts]*balance.Target
	began time.Time // of the current attempt
	queue int64     // how many others its target had then
	slow  time.Time // when the attempt before began, while both are under way
	ahead int64     // how many others that one's target had
	code  int       // of the current attempt's answer, 0 until there is one
	paid  bool      // the budget was drawn on for one more attempt, in case there is one
	kept  bool      // the client is kept at the first target, by a cookie or a connection of its own
	fresh bool      // only connections that were never used will do
}

// exchanges are those that no request needs just now.
var exchanges = sync.Pool{New: func() any { return new(exchange) }}

// first begins the first attempt. It returns nil if no backend is eligible.
func (e *exchange) first(now time.Time) *balance.Target {
	e.pool.budget.deposit()
	if e.pool.key != nil {
		e.key = e.pool.key(e.x)
	}
	if e.sticky = e.pool.sticky.Load(); e.sticky != nil {
		e.cookie = e.x.Cookie(e.sticky.name)
	}
	if target := e.home(); target != nil {
		e.kept = true
		return e.begin(target, now)
	}
	return e.begin(e.pool.strategy.Pick(e.key, nil), now)
}

// home is where the client is kept: where it has authenticated, or else where its cookie
// says. It is nil if it may go anywhere.
func (e *exchange) home() *balance.Target {
	if e.bound != nil {
		if target := e.pool.targetOf[e.bound]; target != nil && target.Keeps.Load() {
			return target
		}
	}
	if e.sticky != nil {
		return e.sticky.home(e.cookie)
	}
	return nil
}

// next begins another attempt after the current one failed with err. It returns
// nil if the request may not be sent again or there is nowhere to send it.
func (e *exchange) next(err error) *balance.Target {
	if !e.repeatable(err) || len(e.tried) == maxAttempts {
		return nil
	}
	stale := errors.Is(err, http1.ErrStale)
	target := e.other(stale)
	if target == nil || err != errOpen && !e.pay() { // errOpen has cost nobody anything
		return nil
	}
	e.fresh = e.fresh || stale
	reason := "reset"
	switch {
	case stale:
		reason = "stale"
	case notSent(err):
		reason = "connect"
	case errors.Is(err, http1.ErrBackendStalled):
		reason = "timeout"
	}
	e.recorder.Retry(e.pool.spec.Name, reason)
	return e.begin(target, e.end())
}

// other picks a target for one more attempt. The one whose connection was stale may well be
// asked once more, over a fresh one: first if the client is kept there, and else before those
// of which this node knows nothing good.
func (e *exchange) other(stale bool) *balance.Target {
	here := e.tried[len(e.tried)-1]
	if stale && e.kept && len(e.tried) == 1 {
		return here
	}
	if target := e.pool.strategy.Pick(e.key, e.tried); target != nil {
		return target
	}
	if stale {
		return here
	}
	return e.pool.lastResort(e.tried)
}

// pay says whether the budget has one more attempt for the request.
func (e *exchange) pay() bool {
	if e.paid {
		e.paid = false
		return true
	}
	return e.pool.budget.withdraw(time.Now())
}

// prepay makes sure that there can be another attempt when the current one is given up: it
// would be given up for nothing otherwise, and a pool that is slow as a whole answer
// nobody.
func (e *exchange) prepay() bool {
	e.paid = e.paid || int(e.pool.eligible.Load()) > len(e.tried) && e.pool.budget.reserve()
	return e.paid
}

// repeatable says whether the request may go to another backend: nothing reached
// the client, and either nothing was sent or sending it twice does no harm.
func (e *exchange) repeatable(err error) bool {
	if e.x.Begun() {
		return false
	}
	failed := errors.Is(err, http1.ErrLost) || errors.Is(err, http1.ErrBackendStalled)
	return notSent(err) || failed && e.harmless()
}

// harmless says whether the request may be sent twice.
func (e *exchange) harmless() bool { return idempotent(e.method) && e.x.Whole() }

func notSent(err error) bool {
	var failed *http1.ConnectError
	return err == errOpen || errors.As(err, &failed) || errors.Is(err, http1.ErrFull)
}

// errOpen is a backend whose circuit is open, and a trial under way already.
var errOpen = errors.New("the circuit is open")

// errStoodStill is an attempt that failed over a time in which this process did not run.
// The backend may have given up on it, or its answer lain unread.
var errStoodStill = errors.New("the process was stopped for a while")

// errStale is an attempt of which the connection was stale, and that can be made again. A
// backend that fails requests fails them over fresh connections, too.
var errStale = errors.New("the connection was stale")

// blame is what an attempt that came to err says of its backend, where that counts.
func (e *exchange) blame(err error) error {
	switch {
	case err == nil || !e.pool.judges && e.pool.observer == nil:
		return err
	case errors.Is(err, http1.ErrStale) && e.repeatable(err):
		return errStale
	case e.x.StoodStill(e.began):
		return errStoodStill
	}
	return err
}

// patience is how long the current backend is waited for: less than others until it
// begins its answer, where the request can go to another.
func (e *exchange) patience() http1.Patience {
	timeouts := &e.pool.spec.Timeouts
	patience := http1.Patience{
		Try:       time.Duration(timeouts.Request),
		Progress:  time.Duration(timeouts.Request),
		FirstByte: e.pool.observer != nil,
		Fields:    e.fields(),
		Fresh:     e.fresh,
	}
	if len(e.tried) == maxAttempts || !e.harmless() {
		return patience
	}
	patience.Again = true
	if e.bound != nil && e.bound == e.tried[len(e.tried)-1].Via { // elsewhere nobody knows the client
		return patience
	}
	if timeouts.Try > 0 && e.prepay() {
		patience.Try = time.Duration(timeouts.Try)
	}
	if timeouts.Hedge > 0 {
		patience.Hedge, patience.Other = time.Duration(timeouts.Hedge), e.hedge
	}
	return patience
}

// hedge begins an attempt beside the current one, which has not answered for a while. A
// trial is not for it: that must be seen to its end.
func (e *exchange) hedge() (*http1.Backend, string) {
	target := e.pool.strategy.Pick(e.key, e.tried)
	if target == nil || target.Trial.Load() != balance.NoTrial || !e.pool.budget.withdraw(time.Now()) {
		return nil, ""
	}
	e.recorder.Retry(e.pool.spec.Name, "hedge")
	e.slow, e.ahead = e.began, e.queue
	e.begin(target, time.Now())
	return target.Via.(*http1.Backend), e.fields()
}

// answerer ends the attempt that was given up, if two were under way, and gives the
// target of the other.
func (e *exchange) answerer() *balance.Target {
	last := len(e.tried) - 1
	if !e.slow.IsZero() {
		given := e.slow
		if !e.x.Hedged() {
			e.tried[last-1], e.tried[last] = e.tried[last], e.tried[last-1]
			given, e.began, e.queue = e.began, e.slow, e.ahead
		} else if e.pool.observer != nil && !e.x.StoodStill(given) { // it would have taken longer still
			e.pool.observer.Observe(e.tried[last-1], balance.Attempt{Latency: time.Since(given), Queue: e.ahead})
		}
		e.leave(e.tried[last-1])
		e.recorder.Attempt(e.pool.spec.Name, e.tried[last-1].Name, 0, time.Since(given))
		e.slow = time.Time{}
	}
	return e.tried[last]
}

// idempotent methods have the same effect however often they are sent (RFC 9110,
// section 9.2.2).
func idempotent(method string) bool {
	switch method {
	case "GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE":
		return true
	}
	return false
}

func (e *exchange) begin(target *balance.Target, now time.Time) *balance.Target {
	if target == nil {
		return nil
	}
	e.queue = target.InFlight.Add(1) - 1
	if e.pool.counter != nil {
		e.pool.counter.Count(1)
	}
	e.tried = append(e.room[:len(e.tried)], target)
	e.began, e.code = now, 0
	return target
}

// leave ends what begin began.
func (e *exchange) leave(target *balance.Target) {
	target.InFlight.Add(-1)
	if e.pool.counter != nil {
		e.pool.counter.Count(-1)
	}
}

// end ends the current attempt, and says when that was.
func (e *exchange) end() time.Time {
	now := time.Now()
	target := e.tried[len(e.tried)-1]
	e.leave(target)
	e.recorder.Attempt(e.pool.spec.Name, target.Name, e.code, now.Sub(e.began))
	return now
}

// outcome ends the last attempt, of which err is what it came to.
func (e *exchange) outcome(err error) outcome {
	if e.paid {
		e.pool.budget.refund()
	}
	return outcome{
		pool:    e.pool.spec.Name,
		backend: e.tried[len(e.tried)-1].Name,
		retries: len(e.tried) - 1,
		ended:   e.end(),
		end:     endOf(err),
		reason:  reasonOf(err),
	}
}
