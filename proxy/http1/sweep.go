package http1

import (
	"context"
	"fmt"
	"time"
)

const (
	// tick is how often the sweeper looks, and how coarse the server's clock is.
	tick = 100 * time.Millisecond
	// lookAfter is how long an exchange waits before somebody looks whether its client
	// is still there.
	lookAfter = time.Second
	// halfOpen is how long a client that has sent its last byte is believed to wait for
	// the answer: from here, one that has closed the connection looks the same.
	halfOpen = 2 * time.Second
	// maxStep is how far the server's clock goes on at once. It is behind by more only if
	// the process was stopped, or starved.
	maxStep = 5 * tick
)

// restAfter is how long a connection is idle before its goroutine, whose stack has
// grown with the requests, ends.
const restAfter = time.Second

// past is a deadline that ends what is waited for.
var past = time.Unix(1, 0)

// sweepLoop keeps the server's clock and ends what has waited for too long.
func (s *Server) sweepLoop() {
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			now := time.Now() // the tick may have come long ago
			s.advance(now.Sub(s.began))
			s.setDate(now)
			s.sweep(s.now.Load())
		case <-s.stopped:
			return
		}
	}
}

// advance brings the server's clock forward, at the given time since it began. The clock
// counts the time in which the process runs: after it was stopped, what was under way
// would be over in which answers lie unread, and so would what begins before this is called.
func (s *Server) advance(at time.Duration) {
	step := at - time.Duration(s.ticked.Load())
	if step > maxStep {
		step = maxStep
		s.resumed.Store(int64(at))
	}
	s.ticked.Store(int64(at))
	s.ran += step
	s.now.Store(s.ran.Milliseconds())
}

// stoodStill says whether the process was stopped for a while, or is just going on, since
// then.
func (s *Server) stoodStill(since time.Time) bool {
	return s.resumed.Load() > int64(since.Sub(s.began)) ||
		time.Since(s.began)-time.Duration(s.ticked.Load()) > maxStep
}

// StoodStill says whether this process did not run for a while since then, half a second
// or more: what happened, or did not, in that time tells nothing of a backend.
func (x *Exchange) StoodStill(since time.Time) bool { return x.session.server.stoodStill(since) }

func (s *Server) sweep(now int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	draining := s.draining.Load()
	for session := range s.sessions {
		session.sweep(now, draining)
	}
}

// sweep looks at one connection.
func (s *session) sweep(now int64, draining bool) {
	p, until := s.watch.look()
	if p == untimed || p == expired {
		return
	}
	waits := p == idling || p == fresh
	long := waits && now > until-s.server.config.Idle.Milliseconds()+restAfter.Milliseconds()
	over := now >= until || draining && (p <= rested || p == fresh && long)
	if p == exchanged && s.moves(now, until) {
		return
	}
	switch {
	case p == exchanged && !over && s.abandoned(now, until):
		s.gone.Store(true)
		over = true
	case p == tunneled && over:
		over = s.tunnelEnds(now, draining)
	case p == idling && !over:
		over = s.left(now, until)
	}
	switch {
	case over && s.watch.change(p, until, expired):
		s.stop(p)
	case long && s.in.raw != nil && s.watch.change(p, until, resting):
		s.conn.SetReadDeadline(past)
	}
}

// abandoned says whether the client of an exchange that has waited for a while is
// gone.
func (s *session) abandoned(now, until int64) bool {
	waited := now - (until - s.limit.Load())
	if waited < lookAfter.Milliseconds() {
		s.ended = 0
		return false
	}
	gone, ended := left(s.in.raw)
	switch {
	case !ended:
		s.ended = 0
	case s.ended == 0:
		s.ended = now
	default:
		gone = gone || now-s.ended > halfOpen.Milliseconds()
	}
	return gone
}

// left says whether the client has ended an idle connection. Its end is not seen otherwise if
// it came together with the last request, but for the first one of a connection; so it is
// looked at once, when it has been idle for a tick.
func (s *session) left(now, until int64) bool {
	since := until - s.server.config.Idle.Milliseconds()
	if s.looked == until || now < since+tick.Milliseconds() {
		return false
	}
	s.looked = until
	_, ended := left(s.in.raw)
	return ended
}

// tunnelEnds says whether the session's tunnel is over.
func (s *session) tunnelEnds(now int64, draining bool) bool {
	t := s.tunnel.Load()
	return t != nil && t.sweep(now, draining)
}

// stop ends what the session waits for, in a phase that has expired.
func (s *session) stop(p phase) {
	switch {
	case p == exchanged:
		s.stopBackend()
		s.conn.SetWriteDeadline(past)
	case p == tunneled:
		s.stopBackend()
		s.conn.SetDeadline(past)
	case p == rested && s.server.resting.leave(s):
		go s.finish()
	default:
		s.conn.SetReadDeadline(past)
	}
}

// mustEnd says whether what is under way is to end now.
func (s *session) mustEnd() bool { return s.watch.hasExpired() || s.cut.Load() }

// waitsFor notes which backend the session waits for, and ends the wait if that was to end
// before there was one.
func (s *session) waitsFor(u *upstream) {
	s.upstream.Store(u)
	if s.mustEnd() {
		u.conn.SetDeadline(past)
	}
}

// connects does the same for a connection that is not there yet.
func (s *session) connects(cancel context.CancelFunc) {
	s.connecting.Store(&cancel)
	if s.mustEnd() {
		cancel()
	}
}

// stopBackend ends what the session waits for at a backend.
func (s *session) stopBackend() {
	if cancel := s.connecting.Load(); cancel != nil {
		(*cancel)()
	}
	if u := s.upstream.Load(); u != nil {
		u.conn.SetDeadline(past)
	}
}

// cut ends all sessions.
func (s *Server) cut() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	left := s.active.Load()
	for session := range s.sessions {
		session.cut.Store(true)
		session.stopBackend()
		session.conn.SetDeadline(past)
	}
	if left > 0 {
		return fmt.Errorf("cannot wait for %d requests, which are cut", left)
	}
	return nil
}
