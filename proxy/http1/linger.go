package http1

import "time"

const (
	// lastWords is how long a client has to take the end of an answer, or to stop sending
	// what nobody will read, before its connection is closed. With the sweeper's tick it is
	// less than a second, by which every limit may be passed.
	lastWords = 600 * time.Millisecond
	// lingerQuiet and lingerAll are how long a connection stays that is over in one direction:
	// since anything moved, and in all. nginx has 5 s and 30 s.
	lingerQuiet = 4 * time.Second
	lingerAll   = 30 * time.Second
	// maxLingering bounds the connections that are kept for clients which go on sending, and
	// maxLingeringOfClient those of one client. Others have lastWords.
	maxLingering         = 1024
	maxLingeringOfClient = 64
)

// linger waits until the client has the answer. Of one that is still sending, what comes is
// thrown away meanwhile: an unread byte would make the kernel reset the connection, and the
// client might never see the answer (RFC 9112, section 9.6). Its own end ends the wait.
func (s *session) linger() {
	half, ok := s.conn.(interface{ CloseWrite() error })
	if !ok || half.CloseWrite() != nil {
		return
	}
	quiet, all := lastWords, lastWords
	if s.ending == discards && s.server.linger(s) {
		defer s.server.lingered(s)
		quiet, all = lingerQuiet, lingerAll
	}
	s.watch.set(untimed, 0) // it may have expired
	s.wake()
	began := s.server.now.Load()
	for now := began; !s.cut.Load(); now = s.server.now.Load() {
		if s.server.draining.Load() { // which is not to be held by who trickles
			all = min(all, lingerQuiet)
		}
		until := min(now+quiet.Milliseconds(), began+all.Milliseconds())
		if s.watch.set(lingering, until) == expired || now >= until || s.in.fill() != nil {
			return
		}
		s.in.drop()
	}
}

// linger counts one more connection of a client that goes on sending, unless there are enough.
func (s *Server) linger(session *session) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lingers >= maxLingering || !s.lingering.enter(clientOf(session.addr)) {
		return false
	}
	s.lingers++
	return true
}

func (s *Server) lingered(session *session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lingers--
	s.lingering.leave(clientOf(session.addr))
}
