package http1

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// Handler decides what becomes of requests. Its methods are called concurrently.
type Handler interface {
	// Handle answers a request, by Forward or Refuse. If it does neither, the connection
	// is closed.
	Handle(x *Exchange)
	// Refused is told of a request that the engine itself has refused, of which only
	// the client is known.
	Refused(x *Exchange, why *Fault)
	// Rejected is told of a connection that was closed before there was a request.
	Rejected(why Rejection)
	// Connections is told that so many connections more, or fewer, are open.
	Connections(delta int)
}

// Config is what a Server needs. Handler must be there.
type Config struct {
	Handler Handler
	Limits  Limits
	Header  time.Duration // from a request's first byte to the end of its head
	Idle    time.Duration // between requests
	// Trusted says whether a client at that address may say for whom it sends a
	// request. Nobody may if it is nil.
	Trusted func(netip.Addr) bool
	// Proxied says whether connections from that address begin with a header of the
	// PROXY protocol, version 1 or 2, which tells the client's. None do if it is nil.
	Proxied func(netip.Addr) bool
	// MaxConns bounds the connections that are open; 0: no bound. What is more is
	// closed at once.
	MaxConns int
	// MaxConnsPerClient bounds those of one address, or of one /64 of IPv6; 0: no bound.
	MaxConnsPerClient int
	// Times has the times of exchanges kept, for Account.
	Times bool
	Log   *slog.Logger
}

// Server serves connections of clients. All methods may be called concurrently.
type Server struct {
	config   Config
	log      *slog.Logger
	began    time.Time
	now      atomic.Int64           // ms that it has run, not older than a tick
	ran      time.Duration          // the same, as the sweeper counts it
	ticked   atomic.Int64           // ns from began to when the sweeper last looked
	resumed  atomic.Int64           // the same, when the process had been stopped; 0 if never
	date     atomic.Pointer[[]byte] // for Date fields
	retiring atomic.Bool
	draining atomic.Bool
	active   atomic.Int64 // exchanges
	stopped  chan struct{}
	once     sync.Once
	sweeping sync.WaitGroup
	resting  *restingPlace
	serving  sync.WaitGroup // sessions
	notices  map[Rejection]*Notice

	accepting sync.WaitGroup // calls of Serve

	mu        sync.Mutex
	listeners map[net.Listener]struct{}
	shut      bool // no listener is served any more
	sessions  map[*session]struct{}
	clients   clients
	lingering clients // of those that linger because they go on sending
	lingers   int     // how many there are
	count     int     // of sessions ever
}

// NewServer returns a server that serves nothing yet. It must be shut down.
func NewServer(config Config) *Server {
	s := &Server{
		config:    config,
		log:       config.Log,
		began:     time.Now(),
		stopped:   make(chan struct{}),
		listeners: map[net.Listener]struct{}{},
		sessions:  map[*session]struct{}{},
		clients:   clients{config.MaxConnsPerClient, map[netip.Addr]int{}},
		lingering: clients{maxLingeringOfClient, map[netip.Addr]int{}},
		notices:   map[Rejection]*Notice{RejectedPreface: {}, RejectedConnections: {}, RejectedClient: {}},
	}
	s.setDate(time.Now())
	s.resting = newRestingPlace()
	s.sweeping.Go(s.resting.watch)
	s.sweeping.Go(s.sweepLoop)
	return s
}

func (s *Server) setDate(now time.Time) {
	date := []byte(now.UTC().Format(http.TimeFormat))
	s.date.Store(&date)
}

// Serve serves what the listener accepts, until it fails or the server is shut down,
// when the error is net.ErrClosed.
func (s *Server) Serve(l net.Listener) error {
	if !s.listens(l) {
		l.Close()
		return net.ErrClosed
	}
	defer s.accepting.Done()
	for {
		conn, err := l.Accept()
		switch {
		case err == nil:
			s.begin(conn)
		case s.isShut(), errors.Is(err, net.ErrClosed):
			for _, conn := range unlisten(l) {
				s.begin(conn)
			}
			return net.ErrClosed
		case temporary(err):
			s.log.Warn("cannot accept connections; trying again", "error", err)
			time.Sleep(tick)
		default:
			return err
		}
	}
}

// listens says whether a listener is to be served.
func (s *Server) listens(l net.Listener) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.shut {
		return false
	}
	s.listeners[l] = struct{}{}
	s.accepting.Add(1)
	return true
}

func (s *Server) isShut() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.shut
}

// wakeUp ends the wait of who accepts, so that it closes the listener itself: until it
// wakes, the kernel goes on accepting.
func wakeUp(l net.Listener) {
	if timed, ok := l.(interface{ SetDeadline(time.Time) error }); ok && timed.SetDeadline(past) == nil {
		return
	}
	l.Close()
}

// temporary says whether an error of Accept is for want of something that may be
// there again.
func temporary(err error) bool {
	var failed interface{ Temporary() bool }
	return errors.As(err, &failed) && failed.Temporary()
}

func (s *Server) begin(conn net.Conn) {
	peer := addrOf(conn.RemoteAddr())
	proxied := s.config.Proxied != nil && s.config.Proxied(peer)
	s.mu.Lock()
	if why, ok := s.admit(peer, proxied); !ok {
		s.mu.Unlock()
		if why != "" {
			s.rejected(why, peer) // first: who sees the end can see the count
		}
		conn.Close()
		return
	}
	s.count++
	session := newSession(s, conn, peer, s.count)
	session.proxied, session.counted = proxied, !proxied
	s.sessions[session] = struct{}{}
	s.serving.Add(1)
	s.mu.Unlock()
	s.config.Handler.Connections(1)
	go session.start()
}

// admit says whether there may be one more connection, and counts it. Whose it is that
// begins with a PROXY header is not known yet. s.mu is held.
func (s *Server) admit(peer netip.Addr, proxied bool) (why Rejection, ok bool) {
	switch {
	case s.config.MaxConns > 0 && len(s.sessions) >= s.config.MaxConns:
		return RejectedConnections, false
	case !proxied && !s.clients.enter(clientOf(peer)):
		return RejectedClient, false
	}
	return "", true
}

// enter counts a connection whose client has just become known. It says whether it may
// go on.
func (s *Server) enter(session *session) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	session.counted = s.clients.enter(clientOf(session.addr))
	return session.counted
}

func (s *Server) leave(session *session) {
	s.mu.Lock()
	delete(s.sessions, session)
	if session.counted {
		s.clients.leave(clientOf(session.addr))
	}
	s.mu.Unlock()
	s.config.Handler.Connections(-1)
	s.serving.Done()
}

// Active is how many exchanges are under way, tunnels among them.
func (s *Server) Active() int64 { return s.active.Load() }

// Retire serves on, but asks clients to come back over another connection, and so to
// another node.
func (s *Server) Retire() { s.retiring.Store(true) }

// Shutdown accepts nothing any more, closes idle connections, lets exchanges end
// until ctx is done, and cuts those that are left, of which the error says how many.
func (s *Server) Shutdown(ctx context.Context) error {
	s.drain()
	over := make(chan struct{})
	go func() {
		s.serving.Wait()
		close(over)
	}()
	var err error
	select {
	case <-over:
	case <-ctx.Done():
		err = s.cut()
		<-over
	}
	s.once.Do(func() {
		close(s.stopped)
		s.resting.close()
	})
	s.sweeping.Wait()
	return err
}

// drain closes the listeners; the sweeper closes what is idle. What was accepted until then
// is served: its client may have sent a request.
func (s *Server) drain() {
	s.Retire()
	s.mu.Lock()
	s.shut = true
	for l := range s.listeners {
		wakeUp(l)
	}
	s.mu.Unlock()
	s.accepting.Wait()
	s.draining.Store(true)
}
