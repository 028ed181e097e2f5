package http1

import "time"

// Which bytes of an exchange are progress of which its goroutines hear late: the kernel
// tells them of room for more, and of a step that is spliced, only when that is much.
const (
	flowsUp      uint32 = 1 << iota // the request's body: what the backend takes
	flowsDown                       // the answer: what the client takes
	flowsSpliced                    // the answer: what is read of the backend
)

// lookEvery is how often the sweeper looks at an exchange that waits. With the clock's ticks
// one that stands still goes on for less than a second after its limit.
const lookEvery = 500 * time.Millisecond

// motion is how far those bytes have come, of either end.
type motion struct{ backend, client, read uint64 }

// sighting is what the sweeper saw last of an exchange, and until when it has let it go on
// for that.
type sighting struct {
	motion
	at, until int64
}

// moves says whether an exchange that has noted no progress for a while makes some all the
// same, and lets it go on then. As with nginx's timeouts for bodies, any byte counts, not a
// rate.
func (s *session) moves(now, until int64) bool {
	flow, limit := s.flow.Load(), s.limit.Load()
	every := min(lookEvery.Milliseconds(), limit/2)
	since := until - limit // the exchange's own progress
	first := until != s.seen.until
	if !first {
		since = s.seen.at
	}
	if flow == 0 || now < until && now-since < every {
		return false
	}
	motion := s.motion(flow)
	moved := first || motion != s.seen.motion // before the first look anything may have
	if moved {
		until = now + limit
		s.watch.touch(until)
	}
	s.seen = sighting{motion, now, until}
	return moved
}

func (s *session) motion(flow uint32) (m motion) {
	if flow&flowsDown != 0 {
		m.client = acked(s.in.raw)
	}
	if u := s.upstream.Load(); u != nil {
		raw := u.raw
		if raw == nil {
			raw = u.below
		}
		if flow&flowsUp != 0 {
			m.backend = acked(raw)
		}
		if flow&flowsSpliced != 0 {
			m.read = taken(raw)
		}
	}
	return m
}
