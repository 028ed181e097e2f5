package http1

import (
	"context"
	"sync/atomic"
	"time"
)

// askHedged sends the request, and once the backend has not begun to answer for a while,
// to another one too. It gives the connection on which an answer came first.
func (x *Exchange) askHedged(ctx context.Context, u *upstream) (*upstream, error) {
	s := x.session
	u.conn.SetReadDeadline(time.Now().Add(x.patience.Hedge))
	sent, err := u.exchange(x.out)
	u.conn.SetReadDeadline(time.Time{})
	s.waitsFor(u) // which may just have been to end
	if err == nil || !sent || !isTimeout(err) || s.mustEnd() {
		return u, unsent(sent, err)
	}
	if other, fields := x.patience.Other(); other != nil {
		u, err := x.race(ctx, u, other)
		if x.hedged {
			x.fields = fields
		}
		return u, err
	}
	return u, u.fill()
}

// race waits for the first of two answers: that of the backend that has the request, and
// that of another one. The connection that came second is closed: an answer is on its
// way over it that nobody wants.
func (x *Exchange) race(ctx context.Context, first *upstream, other *Backend) (*upstream, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	x.session.connects(cancel)
	defer x.session.connecting.Store(nil)
	var decided atomic.Bool
	second := make(chan *upstream, 1)
	go func() {
		u := x.askOther(ctx, other)
		if u != nil && decided.CompareAndSwap(false, true) {
			first.conn.SetReadDeadline(past)
		} else if u != nil {
			u.close()
			u = nil
		}
		second <- u
	}()
	err := first.fill()
	if err == nil && decided.CompareAndSwap(false, true) {
		cancel()
	}
	u := <-second // which must not use the request any more either way
	if u == nil {
		return first, err
	}
	x.session.waitsFor(u)
	first.close()
	x.hedged = true
	return u, nil
}

// askOther sends the request over a connection of its own and waits for the first bytes
// of the answer. It returns nil if none came.
func (x *Exchange) askOther(ctx context.Context, to *Backend) *upstream {
	for {
		u, err := x.session.openUpstream(ctx, to, false)
		if err != nil {
			return nil
		}
		stop := context.AfterFunc(ctx, func() { u.conn.SetDeadline(past) })
		sent, err := u.exchange(x.out)
		if stop() && err == nil {
			return u
		}
		u.close()
		if sent || ctx.Err() != nil {
			return nil
		}
	}
}
