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
	resting                // the same, for so long that the goroutine is to end
	rested                 // the same, after that
	fresh                  // before the first request, until it is idle for restAfter
	heading                // in the middle of a head
	exchanged              // in an exchange, which must make progress
	lingering              // over, but for what the client is still sending
	tunneled               // carrying another protocol
	expired                // the sweeper found that nothing happened in time
)

const phaseBits = 4

// set begins a phase, or notes progress in it; until is in ms on the server's
// clock. It returns the phase before.
func (w *watch) set(p phase, until int64) phase {
	return phase(w.state.Swap(until<<phaseBits|int64(p)) & (1<<phaseBits - 1))
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

// change makes another phase of one that was seen by look, unless that is over.
func (w *watch) change(p phase, until int64, to phase) bool {
	return w.state.CompareAndSwap(until<<phaseBits|int64(p), until<<phaseBits|int64(to))
}

func (w *watch) hasExpired() bool {
	p, _ := w.look()
	return p == expired
}
