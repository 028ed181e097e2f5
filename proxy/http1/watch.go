package http1

import "sync/atomic"

// watch says until when something must happen on a connection, for the sweeper to
// look at. To set it is one store: there are no timers, and no deadlines of
// connections, on the way of a request.
type watch struct{ state atomic.Int64 }

// phase is what a connection is doing.
type phase int64

const (
	untimed   phase = iota // something else bounds what is done
	idling                 // between requests
	heading                // in the middle of a head
	exchanged              // in an exchange, which must make progress
	expired                // the sweeper found that nothing happened in time
)

const phaseBits = 3

// set begins a phase, or notes progress in it; until is in ms on the server's
// clock. It says whether the phase before had not expired.
func (w *watch) set(p phase, until int64) bool {
	return phase(w.state.Swap(until<<phaseBits|int64(p))&(1<<phaseBits-1)) != expired
}

// touch notes progress, unless it comes too late.
func (w *watch) touch(until int64) {
	old := w.state.Load()
	if phase(old&(1<<phaseBits-1)) == exchanged && old>>phaseBits != until {
		w.state.CompareAndSwap(old, until<<phaseBits|int64(exchanged))
	}
}

func (w *watch) look() (phase, int64) {
	state := w.state.Load()
	return phase(state & (1<<phaseBits - 1)), state >> phaseBits
}

// expire ends a phase, as it was seen by look, unless another has begun.
func (w *watch) expire(p phase, until int64) bool {
	return w.state.CompareAndSwap(until<<phaseBits|int64(p), int64(expired))
}

func (w *watch) hasExpired() bool {
	p, _ := w.look()
	return p == expired
}
