package health

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"
)

// saidEvery is the least time between two lines about probes that wait.
const saidEvery = time.Minute

// room has the probes that are under way. Backends that are silent hold a probe for as long as
// its timeout: many of them must not take the files that traffic and the node itself need, nor
// may the want of a file count against a backend.
type room struct {
	places chan struct{} // holds one for each probe; nil: as many as there are
	log    *slog.Logger
	said   atomic.Int64 // when somebody waited, in ns since 1970, as it was last logged
}

func newRoom(most int, log *slog.Logger) *room {
	r := &room{log: log}
	if most > 0 {
		r.places = make(chan struct{}, most)
	}
	return r
}

// enter waits for a place and returns false if ctx is done before.
func (r *room) enter(ctx context.Context) bool {
	if r.places == nil {
		return true
	}
	select {
	case r.places <- struct{}{}:
		return true
	default:
	}
	r.say()
	select {
	case r.places <- struct{}{}:
		return true
	case <-ctx.Done():
		return false
	}
}

// leave gives up a place.
func (r *room) leave() {
	if r.places != nil {
		<-r.places
	}
}

func (r *room) say() {
	now, last := time.Now().UnixNano(), r.said.Load()
	if now-last > int64(saidEvery) && r.said.CompareAndSwap(last, now) {
		r.log.Warn("probes wait for one another, because many backends are silent: verdicts come late; "+
			"the limit on open files allows no more at once, raise it with LimitNOFILE= or ulimit -n", "at_once", cap(r.places))
	}
}
