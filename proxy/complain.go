package proxy

import (
	"errors"
	"log/slog"
	"time"

	"lbnode/proxy/http1"
)

// complaints hold back, for one pool, what the log is told of attempts that failed. Of what
// is not among them it hears elsewhere: of backends that cannot be reached, and of circuits,
// when that changes. Of clients that leave, or do nothing, it hears nothing.
type complaints map[end]*http1.Notice

func newComplaints() complaints {
	c := complaints{}
	for _, e := range []end{endBadAnswer, endLost, endCut, endBackendTimeout, endBusy, end(looping.reason)} {
		c[e] = &http1.Notice{}
	}
	return c
}

// complain tells the log of an attempt that came to err, now and then.
func (p *Proxy) complain(pool *pool, backend string, err error) {
	if p.log.Enabled(p.ctx, slog.LevelDebug) {
		p.log.Debug("attempt failed", "pool", pool.spec.Name, "backend", backend, "error", err)
	}
	if err != errOpen && !errors.Is(err, http1.ErrClientLeft) {
		p.warn("attempts at backends failed", pool, endOf(err), backend, reasonOf(err))
	}
}

// warn tells the log of what becomes of a pool's requests, if that was not told lately.
func (p *Proxy) warn(what string, pool *pool, e end, backend, reason string) {
	notice := pool.failures[e]
	if notice == nil {
		return
	}
	if n := notice.Take(p.uptime()); n > 0 {
		p.log.Warn(what, "pool", pool.spec.Name, "end", string(e), "count", n, "backend", backend, "reason", reason)
	}
}

// uptime is in ms. No change of the system's clock holds complaints back.
func (p *Proxy) uptime() int64 { return time.Since(p.began).Milliseconds() }
