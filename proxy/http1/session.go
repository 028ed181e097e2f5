package http1

import (
	"context"
	"io"
	"net"
	"net/netip"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// lastWords is how long a client has to take the end of an answer, or to stop
	// sending what nobody will read, before its connection is closed.
	lastWords = time.Second
	// unread bounds what is read, and thrown away, so that a client which is still
	// sending gets the answer instead of a reset.
	unread = 1 << 20
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
	client  []byte // the address
	scheme  []byte

	upstream   atomic.Pointer[upstream]           // for the sweeper
	connecting atomic.Pointer[context.CancelFunc] // for the sweeper
	gone       atomic.Bool                        // the sweeper found that the client left
	ended      int64                              // when the client was seen to have sent its last byte; the sweeper's
}

func newSession(server *Server, conn net.Conn, shard int) *session {
	s := &session{server: server, conn: conn, shard: shard, scheme: []byte("http")}
	s.in.open(conn, smallBuffer)
	if addr, ok := conn.RemoteAddr().(*net.TCPAddr); ok {
		ip, _ := netip.AddrFromSlice(addr.IP)
		ip = ip.Unmap()
		s.client = []byte(ip.String())
		s.trusted = server.config.Trusted != nil && server.config.Trusted(ip)
	}
	return s
}

// serve serves one request after the other.
func (s *session) serve() {
	defer s.server.leave(s)
	defer s.conn.Close()
	defer s.in.drop()
	for s.await() && s.next() {
	}
}

// await waits for the first byte of a request.
func (s *session) await() bool {
	s.in.release()
	if s.in.len() == 0 {
		if !s.watch.set(idling, s.server.now.Load()+s.server.config.Idle.Milliseconds()) ||
			s.server.draining.Load() || s.in.fill() != nil {
			return false
		}
	}
	return s.watch.set(heading, s.server.now.Load()+s.server.config.Header.Milliseconds())
}

// next serves a request. It says whether another may follow.
func (s *session) next() (more bool) {
	x := exchanges.Get().(*Exchange)
	s.x, x.session = x, s
	defer s.release(x)
	if !s.readHead() {
		return false
	}
	x.closing = !x.request.persists()
	s.server.active.Add(1)
	defer s.server.active.Add(-1)
	if !s.handle() {
		s.abort()
		return false
	}
	return s.finish()
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

// finish ends an exchange.
func (s *session) finish() (more bool) {
	x := s.x
	if x.closing || s.watch.hasExpired() {
		s.linger()
		return false
	}
	if s.taken > 0 {
		s.in.use(s.taken)
	}
	return true
}

// readHead reads the head of a request. What is wrong with it, the client is told.
func (s *session) readHead() bool {
	x := s.x
	x.request.Reset(&s.server.config.Limits)
	for {
		n, err := x.request.Parse(s.in.bytes())
		if err != nil {
			s.refuse(err.(*Fault))
			return false
		}
		if n > 0 {
			x.head, s.taken = s.in.bytes()[:n], n
			break
		}
		if err := s.in.fill(); err != nil {
			if s.watch.hasExpired() {
				s.refuse(errSlow)
			}
			return false
		}
	}
	if !s.watch.set(untimed, 0) {
		s.refuse(errSlow)
		return false
	}
	return true
}

// refuse answers what could not be read, or not in time.
func (s *session) refuse(why *Fault) {
	x := s.x
	x.request.Reset(&s.server.config.Limits) // it may be half read
	x.closing = true
	x.Refuse(why.Status, why.what)
	s.server.config.Handler.Refused(why)
	s.linger()
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
	s.limit.Store(timeout.Milliseconds())
	s.watch.set(exchanged, s.server.now.Load()+timeout.Milliseconds())
}

// touch notes progress.
func (s *session) touch() { s.watch.touch(s.server.now.Load() + s.limit.Load()) }

// abort closes the connection so that an answer that was begun does not seem to have
// ended.
func (s *session) abort() {
	s.x.closing = true
	s.reset()
}

// reset closes the connection without what was not sent yet.
func (s *session) reset() {
	if tcp, ok := s.conn.(*net.TCPConn); ok {
		tcp.SetLinger(0)
	}
	s.conn.Close()
}

// linger closes the connection so that the client gets all of the answer although it
// may still be sending: an unread byte would make the kernel reset it.
func (s *session) linger() {
	half, ok := s.conn.(interface{ CloseWrite() error })
	if !ok || half.CloseWrite() != nil {
		return
	}
	s.conn.SetReadDeadline(time.Now().Add(lastWords))
	io.CopyBuffer(struct{ io.Writer }{io.Discard}, io.LimitReader(struct{ io.Reader }{s.conn}, unread), s.in.room(smallBuffer))
}
