package http1

import (
	"context"
	"net"
	"net/netip"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pires/go-proxyproto"
)

// session is one connection of a client, and the goroutine that serves it.
type session struct {
	server  *Server
	conn    net.Conn
	in      inlet
	watch   watch
	x       *Exchange    // while there is a request
	limit   atomic.Int64 // of an exchange without progress, in ms
	shard   int
	taken   int // bytes of in that the exchange uses, from the front
	trusted bool
	proxied bool               // the connection must begin with a PROXY header
	told    *proxyproto.Header // that it began with, if that names the client
	own     *upstream          // idle, and no other client's to use; its backend may have closed it
	counted bool               // among its client's
	addr    netip.Addr         // the client's
	client  []byte             // the same in words
	scheme  []byte

	until  int64                 // a request may begin; 0 while there is one
	empty  int                   // bytes of empty lines since the last request
	rested bool                  // since then
	asked  bool                  // there was a request
	fd     uintptr               // of conn, within serveStep
	step   func(fd uintptr) bool // serveStep, made once
	ending ending

	cut        atomic.Bool                        // by Shutdown
	upstream   atomic.Pointer[upstream]           // for the sweeper
	tunnel     atomic.Pointer[tunnel]             // for the sweeper
	connecting atomic.Pointer[context.CancelFunc] // for the sweeper
	gone       atomic.Bool                        // the sweeper found that the client left
	flow       atomic.Uint32                      // which bytes are progress that only the sweeper sees
	seen       sighting                           // of those; the sweeper's
	looked     int64                              // until of the idle time in which it was looked for the client's end; the sweeper's
	ended      int64                              // when the client was seen to have sent its last byte; the sweeper's
}

func newSession(server *Server, conn net.Conn, peer netip.Addr, shard int) *session {
	s := &session{server: server, conn: conn, shard: shard, scheme: []byte("http")}
	s.in.open(conn, smallBuffer)
	s.step = s.serveStep
	s.setClient(peer)
	s.trusted = server.config.Trusted != nil && server.config.Trusted(peer)
	return s
}

func (s *session) setClient(addr netip.Addr) {
	s.addr, s.client = addr, nil
	if addr.IsValid() {
		s.client = []byte(addr.String())
	}
}

// ending is what becomes of a connection.
type ending uint8

const (
	going    ending = iota // another request may follow
	rests                  // it goes on once something comes, in another goroutine
	closed                 // close it
	lingers                // close it once the client has what was sent
	discards               // the same, of a client that may be sending what nobody will read
	aborted                // close it so that nothing seems to have ended
)

// start serves a new connection.
func (s *session) start() {
	if s.proxied && !s.introduce() {
		s.ending = closed
	}
	s.serve()
}

// serve serves one request after the other.
func (s *session) serve() {
	for s.ending == going {
		if s.in.raw != nil && s.x == nil && !s.asks() {
			s.serveInline()
		} else {
			s.next()
		}
	}
	if s.ending == rests {
		s.rest()
	} else if s.ending == discards {
		go s.finish() // which takes its time, with a stack that is small again
	} else {
		s.finish()
	}
}

// serveInline serves requests from within one wait for the connection, which saves
// a look at it after each answer. It returns at what it cannot serve: a request that
// must be read from in parts. What reads the connection must not be called from
// here, since the wait holds it.
func (s *session) serveInline() {
	if s.idle() && s.in.raw.Read(s.step) == nil {
		return
	}
	if phase, _ := s.watch.look(); phase == resting {
		s.ending = rests
	} else {
		s.ending = closed
	}
}

// rest leaves the connection to the resting place, from which another goroutine goes
// on with it.
func (s *session) rest() {
	s.wake()
	s.ending, s.rested = going, true
	place := s.server.resting
	switch {
	case !s.idle():
		s.finish()
	case !place.enter(s):
		go s.serve() // its stack is small again, at least
	case s.watch.hasExpired() && place.leave(s): // the sweeper came before we were there
		s.finish()
	}
}

// finish closes the connection, and the session is over.
func (s *session) finish() {
	s.end()
	s.server.leave(s)
}

// wake takes back what the sweeper does to end a wait.
func (s *session) wake() {
	s.server.mu.Lock() // until the sweeper has done it
	defer s.server.mu.Unlock()
	if !s.cut.Load() {
		s.conn.SetDeadline(time.Time{})
	}
}

// serveStep is called when something may have come. It says whether serveInline
// must return.
func (s *session) serveStep(fd uintptr) bool {
	for begun := false; !begun; begun = s.asks() {
		if !s.in.tryRead(fd) {
			return false
		}
		if s.in.err != nil {
			s.ending = closed
			return true
		}
	}
	first := !s.asked // its end may have come with it, of which nobody will tell either
	if !s.begin() {
		s.ending = closed
		return true
	}
	s.fd = fd
	defer func() { s.fd = 0 }()
	full := s.in.to == len(s.in.mem) // so that there may be more, of which nobody will tell
	if !s.parse() || s.ending != going || !s.x.atHand() || !s.ready() {
		return true
	}
	s.answer()
	return s.ending != going || full || first || s.in.len() > 0 || !s.idle()
}

// asks says whether a request has begun in what was read. Empty lines before one are passed
// over (RFC 9112, section 2.2): some clients end a body by one, and may never ask again. So
// many that it is no mistake are left to Parse, to be refused.
func (s *session) asks() bool {
	b := s.in.bytes()
	for len(b) > 1 && b[0] == '\r' && b[1] == '\n' && s.empty < s.server.config.Limits.Head {
		s.in.use(2)
		s.empty += 2
		b = b[2:]
	}
	return len(b) > 1 || len(b) == 1 && b[0] != '\r'
}

// idle begins the time between requests, or goes on with it. It says whether there may be
// another.
func (s *session) idle() bool {
	s.in.release()
	p := idling
	switch {
	case s.rested:
		p = rested
	case !s.asked: // who connects has something to ask, and soon
		p = fresh
	}
	if s.until == 0 {
		s.until = s.server.now.Load() + s.server.config.Idle.Milliseconds()
	}
	if s.watch.set(p, s.until) == expired { // the exchange did, just when it had ended
		s.wake()
	}
	return p == fresh || !s.server.draining.Load()
}

// begin begins a request, with its first bytes.
func (s *session) begin() bool {
	x := exchanges.Get().(*Exchange)
	s.x, x.session = x, s
	x.request.Reset(&s.server.config.Limits)
	s.rested, s.asked, s.until, s.empty = false, true, 0, 0
	before := s.watch.set(heading, s.server.now.Load()+s.server.config.Header.Milliseconds())
	if before == resting {
		s.wake()
	}
	return before != expired
}

// next serves a request, of which some may have been read.
func (s *session) next() {
	if s.x == nil && (!s.await() || !s.begin()) {
		s.ending = closed
		return
	}
	for len(s.x.head) == 0 && !s.parse() {
		if s.in.fill() != nil {
			s.ending = closed
			if s.watch.hasExpired() {
				s.refuse(errSlow)
			}
			return
		}
	}
	if s.ending == going && s.ready() {
		s.answer()
	}
}

// await waits for a request to begin.
func (s *session) await() bool {
	if s.asks() {
		return true
	}
	if !s.idle() {
		return false
	}
	for !s.asks() {
		if s.in.fill() != nil {
			return false
		}
	}
	return true
}

// parse reads the head of a request as far as it is there, and says whether that is
// all. What is wrong with it, the client is told.
func (s *session) parse() bool {
	x := s.x
	n, err := x.request.Parse(s.in.bytes())
	if err != nil {
		s.refuse(x.request.locate(s.in.bytes(), err.(*Fault)))
		return true
	}
	x.head, s.taken = s.in.bytes()[:n], n
	return n > 0
}

// ready ends the time for the head.
func (s *session) ready() bool {
	if phase, _ := s.watch.look(); phase == untimed {
		return true
	}
	if s.watch.set(untimed, 0) == expired {
		s.refuse(errSlow)
		return false
	}
	return true
}

// answer has the request answered.
func (s *session) answer() {
	x := s.x
	defer s.release(x)
	x.closing = !x.request.persists()
	s.server.active.Add(1)
	defer s.server.active.Add(-1)
	switch {
	case !s.handle():
		s.ending = aborted
	case s.ending != going:
	case (x.closing || s.cut.Load()) && x.unread() && !x.tardy():
		s.ending = discards
	case x.closing || s.cut.Load():
		s.ending = lingers
	default:
		s.in.use(s.taken)
	}
}

// handle says whether the handler has answered.
func (s *session) handle() (answered bool) {
	defer func() {
		if fault := recover(); fault != nil {
			s.server.log.Error("panic while serving a request", "panic", fault, "stack", string(debug.Stack()))
			answered = false
		}
	}()
	s.server.config.Handler.Handle(s.x)
	return s.x.status > 0
}

// refuse answers what could not be read, or not in time.
func (s *session) refuse(why *Fault) {
	x, method := s.x, s.x.request.method
	x.request.Reset(&s.server.config.Limits) // it may be half read
	if string(method.of(s.in.bytes())) == "HEAD" {
		// The answer to it has no body, whatever is wrong with it.
		x.request.method, x.head = method, s.in.bytes()[:method.to]
	}
	x.closing = true
	x.Refuse(why.Status, why.what)
	s.server.config.Handler.Refused(x, why)
	s.ending = discards
	if why == errSlow { // it had its time
		s.ending = lingers
	}
}

// exchanges are those that no connection needs just now.
var exchanges = sync.Pool{New: func() any { return new(Exchange) }}

func (s *session) release(x *Exchange) {
	x.reset()
	x.session, s.x = nil, nil
	s.in.size = smallBuffer
	exchanges.Put(x)
}

// pollBody takes what there is of a body that began with the head. It says whether
// that is all of it.
func (s *session) pollBody(x *Exchange) bool {
	want := len(x.head) + int(x.request.length)
	if want > len(s.in.mem)-s.in.from {
		return false
	}
	return s.in.poll() && s.in.len() >= want
}

// arm begins the time in which an exchange must make progress.
func (s *session) arm(timeout time.Duration) {
	s.limit.Store(ticked(timeout))
	s.flow.Store(0)
	s.watch.set(exchanged, s.server.now.Load()+s.limit.Load())
}

// ticked is a time in ms that is over by the server's clock only when it is over: that is
// up to a tick behind.
func ticked(timeout time.Duration) int64 { return (timeout + tick).Milliseconds() }

// rearm gives the exchange that is under way another time for its progress.
func (s *session) rearm(timeout time.Duration) {
	if ms := ticked(timeout); ms != s.limit.Load() {
		s.limit.Store(ms)
		s.touch()
	}
}

// touch notes progress, by which the time begins anew. As with nginx's timeouts for
// bodies, anything that comes or goes counts, not a rate: a sensor, a phone in a tunnel
// and an open stream send little for long, and rightly so. What a client gains that
// trickles to no end is a connection, which MaxConnsPerClient bounds. What moves in between,
// in the kernel, the sweeper sees.
func (s *session) touch() { s.watch.touch(s.server.now.Load() + s.limit.Load()) }

// end closes the connection.
func (s *session) end() {
	if s.x != nil {
		s.release(s.x)
	}
	s.in.drop()
	s.dropOwn()
	switch {
	case s.ending == aborted || s.cut.Load():
		abort(s.conn)
		return
	case s.ending == lingers, s.ending == discards:
		s.linger()
	}
	s.conn.Close()
	s.in.drop()
}

// abort ends a connection by a reset, by which the other side can tell that something was
// cut short.
func abort(conn net.Conn) {
	if over, ok := conn.(interface{ NetConn() net.Conn }); ok {
		conn = over.NetConn()
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		tcp.SetLinger(0)
	}
	conn.Close()
}
