package proxy

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"time"

	"lbnode/proxy/balance"
)

// maxAttempts bounds the backends that one request is sent to.
const maxAttempts = 3

// Why an exchange was ended from our side; seen as the cause of its context.
var (
	errBackendStalled = errors.New("the backend made no progress within the request timeout")
	errClientStalled  = errors.New("the client made no progress within the request timeout")
)

// errBadAnswer is an answer, if a useless one: the backend has the request, and the
// engine may still be sending it the body.
var errBadAnswer = errors.New("the answer of the backend cannot be passed on")

// connectError is a failure to connect to a backend, so that nothing of the
// request was sent.
type connectError struct{ error }

// Unwrap gives what failed.
func (e connectError) Unwrap() error { return e.error }

// exchange is one client request on its way through a pool: which backends it was
// sent to, and whether it may be sent to another.
type exchange struct {
	ctx      context.Context // the request's; done when it is over or given up
	cancel   context.CancelCauseFunc
	pool     *pool
	recorder Recorder
	method   string
	body     *requestBody // nil if the request has none
	out      *response
	watch    *watchdog

	tried []*balance.Target // in order; the last one is the current one
	room  [maxAttempts]*balance.Target
	began time.Time // of the current attempt
	code  int       // of the current attempt's answer, 0 until there is one
}

// first begins the first attempt. It returns nil if no backend is eligible.
func (e *exchange) first() *balance.Target {
	e.pool.budget.deposit()
	return e.begin(e.pool.strategy.Pick(nil))
}

// next begins another attempt after the current one failed with err. It returns
// nil if the request may not be sent again or there is nowhere to send it.
func (e *exchange) next(err error) *balance.Target {
	if !e.repeatable(err) || len(e.tried) == maxAttempts {
		return nil
	}
	target := e.pool.strategy.Pick(e.tried)
	if target == nil || !e.pool.budget.withdraw() {
		return nil
	}
	reason := "reset"
	if notSent(err) {
		reason = "connect"
	}
	e.recorder.Retry(e.pool.spec.Name, reason)
	e.end()
	return e.begin(target)
}

// repeatable says whether the request may go to another backend: nothing reached
// the client, and either nothing was sent or sending it twice does no harm.
func (e *exchange) repeatable(err error) bool {
	if e.ctx.Err() != nil || e.out.begun() || errors.Is(err, errBadAnswer) {
		return false
	}
	return notSent(err) || idempotent(e.method) && !e.body.touched()
}

func notSent(err error) bool {
	var failed connectError
	return errors.As(err, &failed)
}

// idempotent methods have the same effect however often they are sent (RFC 9110,
// section 9.2.2).
func idempotent(method string) bool {
	return slices.Contains([]string{
		http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace, http.MethodPut, http.MethodDelete,
	}, method)
}

func (e *exchange) begin(target *balance.Target) *balance.Target {
	if target == nil {
		return nil
	}
	target.InFlight.Add(1)
	e.tried = append(e.room[:len(e.tried)], target)
	e.began, e.code = time.Now(), 0
	return target
}

// end ends the current attempt.
func (e *exchange) end() {
	target := e.tried[len(e.tried)-1]
	target.InFlight.Add(-1)
	e.recorder.Attempt(e.pool.spec.Name, target.Name, e.code, time.Since(e.began))
}

// statusOf is the answer to a request that failed with err: whose fault it was.
func (e *exchange) statusOf(err error) int {
	var timeout interface{ Timeout() bool }
	switch cause := context.Cause(e.ctx); {
	case cause == errBackendStalled:
		return http.StatusGatewayTimeout
	case cause == errClientStalled:
		return http.StatusRequestTimeout
	case cause != nil:
		return statusClientLeft
	case e.body.failed():
		return http.StatusBadRequest
	case errors.As(err, &timeout) && timeout.Timeout():
		return http.StatusGatewayTimeout
	default:
		return http.StatusBadGateway
	}
}
