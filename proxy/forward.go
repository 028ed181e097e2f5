package proxy

import (
	"context"
	"errors"
	"net/http"
	"net/netip"
	"syscall"
	"time"

	"lbnode/proxy/balance"
	"lbnode/proxy/http1"
	"lbnode/state"
)

const (
	idleBackendTime = 60 * time.Second
	// namedBackendAge is how long a connection is used to a backend whose host is a name,
	// which may stand for another address by then. One that is an address stays where it is.
	namedBackendAge = 60 * time.Second
	// statusClientLeft stands in counts for an answer that nobody was there to get.
	statusClientLeft = 499
)

// carry sends a request through its pool, to as many backends as it takes.
func (p *Proxy) carry(x *http1.Exchange, pool *pool, method string, began time.Time) outcome {
	e := exchanges.Get().(*exchange)
	defer exchanges.Put(e)
	*e = exchange{pool: pool, recorder: p.recorder, method: method, x: x, bound: x.Bound()}
	target := e.first(began)
	if target == nil {
		p.reject(x, &noBackend)
		return noBackend.outcome(pool.spec.Name, time.Now())
	}
	for {
		err := error(errOpen)
		if admits(target) {
			err = x.Forward(p.ctx, target.Via.(*http1.Backend), e.patience())
			target = e.answerer()
			blame := e.blame(err)
			p.settle(pool, target, x.Status(), blame)
			e.observe(target, blame)
		}
		e.code = x.Status()
		if err == nil {
			return e.outcome(nil)
		}
		next := e.next(err)
		if next == nil || !errors.Is(err, http1.ErrStale) { // which is nobody's fault, where there is another
			p.complain(pool, target.Name, err)
		}
		if next == nil {
			e.fail(err)
			return e.outcome(err)
		}
		target = next
	}
}

// fail answers a request for which no attempt brought an answer.
func (e *exchange) fail(err error) {
	if e.x.Status() > 0 {
		return // it was cut short, as the client can tell
	}
	if code := statusOf(err); code != statusClientLeft {
		e.x.Refuse(code, http.StatusText(code))
	}
}

// statusOf is the answer to a request that failed with err: whose fault it was.
func statusOf(err error) int {
	var fault *http1.Fault
	switch {
	case errors.Is(err, http1.ErrBadAnswer):
		return http.StatusBadGateway
	case errors.As(err, &fault):
		return fault.Status
	case errors.Is(err, http1.ErrBackendStalled), errors.Is(err, context.DeadlineExceeded):
		return http.StatusGatewayTimeout
	case errors.Is(err, http1.ErrClientStalled):
		return http.StatusRequestTimeout
	case errors.Is(err, http1.ErrClientLeft), errors.Is(err, context.Canceled):
		return statusClientLeft
	case errors.Is(err, http1.ErrFull), err == errOpen:
		return http.StatusServiceUnavailable
	}
	return http.StatusBadGateway
}

// reach returns the connections to a backend.
func (p *Proxy) reach(b *state.Backend, local *balance.Local, spec *state.Pool) *http1.Backend {
	config := http1.BackendConfig{
		Addr:    b.Addr(),
		Connect: time.Duration(spec.Timeouts.Connect),
		Conns:   spec.Limits.Connections,
		Waiting: spec.Limits.Pending,
		Idle:    idleBackendTime,
		Age:     ageFor(b.Host),
		Proxy:   proxyVersions[spec.ProxyProtocol],
		Found:   func(err error) { p.found(b.ID, local, err) },

		Resolver: p.config.Resolver,
	}
	if b.Protocol == "https" {
		config.TLS = p.tls.Clone()
		config.TLS.ServerName = b.Host
	}
	return http1.NewBackend(config)
}

// ageFor is how long a connection to a host is used; 0: for ever.
func ageFor(host string) time.Duration {
	if _, err := netip.ParseAddr(host); err != nil {
		return namedBackendAge
	}
	return 0
}

// proxyVersions are those of the PROXY protocol, by what a pool calls them.
var proxyVersions = map[string]byte{state.ProxyV1: 1, state.ProxyV2: 2}

// ownFault says whether it was for want of something on this node that a
// connection could not be made, which says nothing about the backend.
func ownFault(err error) bool {
	for _, e := range []error{syscall.EMFILE, syscall.ENFILE, syscall.ENOMEM, syscall.ENOBUFS, syscall.EADDRNOTAVAIL} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}
