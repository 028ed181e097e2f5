package proxy

import (
	"net/http"
	"time"

	"lbnode/proxy/balance"
)

// observe tells the strategy what an attempt that came to err says of its target, if it
// wants to know. The time counts until the answer began, not until a slow client had all of it;
// and not where the client had to send its body first, or this process was stopped meanwhile,
// which may have taken any time.
func (e *exchange) observe(target *balance.Target, err error) {
	if e.pool.observer == nil || blameless(err) || err == nil && e.x.StoodStill(e.began) {
		return
	}
	attempt := balance.Attempt{Queue: e.queue, Failed: err != nil || ownFailure(e.x.Status())}
	if !attempt.Failed && !e.x.Whole() {
		return
	}
	if first := e.x.Account().FirstByte; err == nil && !first.IsZero() {
		attempt.Latency = first.Sub(e.began)
	} else {
		attempt.Latency = time.Since(e.began)
	}
	e.pool.observer.Observe(target, attempt)
}

// ownFailure says whether a backend answers that it cannot give the answer it should. Such
// answers are often quick, and must not make it look fast. If it is the request's fault
// all the same, it counts against each backend alike; but not where clients could have any
// backend say so, by a method that nobody knows.
func ownFailure(status int) bool {
	return status >= http.StatusInternalServerError && status != http.StatusNotImplemented && status != http.StatusHTTPVersionNotSupported
}
