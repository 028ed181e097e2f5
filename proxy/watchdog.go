package proxy

import (
	"sync"
	"sync/atomic"
	"time"
)

// watchdog calls expire once an exchange has made no progress for the limit. Any
// progress is one atomic store; the timer runs on and looks when it fires.
type watchdog struct {
	limit  time.Duration
	expire func()
	start  time.Time
	last   atomic.Int64 // when there was progress, as a time.Duration since start

	mu      sync.Mutex // held while expire runs
	timer   *time.Timer
	stopped bool
}

// newWatchdog starts one. It must be stopped.
func newWatchdog(limit time.Duration, expire func()) *watchdog {
	w := &watchdog{limit: limit, expire: expire, start: time.Now()}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.timer = time.AfterFunc(limit, w.look)
	return w
}

// touch notes that there was progress.
func (w *watchdog) touch() { w.last.Store(int64(time.Since(w.start))) }

func (w *watchdog) look() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.stopped {
		return
	}
	if left := w.limit - (time.Since(w.start) - time.Duration(w.last.Load())); left > 0 {
		w.timer.Reset(left)
		return
	}
	w.stopped = true
	w.expire()
}

// stop ends the watch. When it returns, expire is not running and never will.
func (w *watchdog) stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stopped = true
	w.timer.Stop()
}
