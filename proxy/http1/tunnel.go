package http1

import (
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"syscall"
)

// tunnel is a client's connection and a backend's that carry another protocol.
type tunnel struct {
	session         *session
	client, backend side

	mu    sync.Mutex
	ends  int64  // when it is over at the latest, once one side has ended; until then 0
	moved uint64 // bytes in all that both had sent and got, when that was looked at
}

// side is the connection to one of the two.
type side struct {
	net.Conn
	raw  syscall.RawConn // which it goes over; nil if it is not the kernel's own
	shut atomic.Bool     // it was told that the other one has ended
}

func (s *session) newTunnel(u *upstream) *tunnel {
	t := &tunnel{session: s}
	t.client.Conn, t.client.raw = s.conn, s.in.raw
	t.backend.Conn, t.backend.raw = u.conn, u.raw
	if u.raw == nil {
		t.backend.raw = u.below
	}
	return t
}

// tunnel passes the answer on that hands the connection over to another protocol,
// and then whatever comes from either side, until both have ended.
func (x *Exchange) tunnel(u *upstream) error {
	s := x.session
	x.closing, x.begun, x.status, s.ending = true, true, http.StatusSwitchingProtocols, closed
	x.outlet.open(s, false)
	x.outlet.mem = x.appendResponse(x.outlet.head(), &x.response, u.bytes(), noBody)
	u.use(x.response.at)
	ahead := int64(u.len())
	if x.outlet.write(u.bytes()) != nil || x.outlet.flush() != nil {
		return ErrClientLeft
	}
	early := s.in.bytes()[len(x.head):]
	if len(early) > 0 {
		if _, err := u.conn.Write(early); err != nil {
			s.ending = aborted
			return ErrCut
		}
	}
	t := s.newTunnel(u)
	s.tunnel.Store(t)
	defer s.tunnel.Store(nil)
	if s.watch.set(tunneled, s.server.now.Load()+lingerQuiet.Milliseconds()) == expired {
		s.ending = aborted
		return ErrBackendStalled
	}
	up := make(chan struct{})
	go func() {
		defer close(up)
		x.account.BytesIn = int64(len(early)) + t.carry(&t.backend, &t.client)
	}()
	x.account.BytesOut = ahead + t.carry(&t.client, &t.backend)
	<-up
	s.watch.set(untimed, 0)
	return nil
}

// carry copies until src ends, and then ends dst's direction. What fails ends both
// connections: by a reset, unless it is the time that is over.
func (t *tunnel) carry(dst, src *side) int64 {
	n, err := io.Copy(dst.Conn, src.Conn)
	if errors.Is(err, syscall.EPIPE) {
		// It was closed after its end came. A reset would take from the other side what it
		// has not read yet.
		t.ending()
		_, err = io.Copy(io.Discard, src.Conn)
	}
	half, ok := dst.Conn.(interface{ CloseWrite() error })
	switch {
	case err == nil && !src.shut.Load() && wasReset(src.raw):
		t.ending() // at once, as who writes there has got the error
	case err == nil && ok:
		t.ending()
		dst.shut.Store(true)
		half.CloseWrite()
	case err == nil || isTimeout(err):
		dst.Close()
		src.Close()
	default:
		abort(dst.Conn)
		abort(src.Conn)
	}
	return n
}

// ending begins the time that is left once one side has ended.
func (t *tunnel) ending() {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.session
	now := s.server.now.Load()
	if t.ends == 0 && s.watch.set(tunneled, now+lingerQuiet.Milliseconds()) != expired {
		t.ends = now + lingerAll.Milliseconds()
		_, t.moved = t.look()
	}
}

// look says whether both sides are there, and what they have sent and got so far. It sees the
// end of one behind bytes that the other does not take.
func (t *tunnel) look() (whole bool, moved uint64) {
	client, got := flow(t.client.raw)
	backend, sent := flow(t.backend.raw)
	return client && backend, got + sent
}

// sweep looks at a tunnel after lingerQuiet. It says whether the tunnel is over: one side has
// ended, and nothing moved since, or it did for lingerAll.
func (t *tunnel) sweep(now int64, draining bool) (over bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	whole, moved := t.look()
	switch {
	case t.ends == 0 && whole:
	case t.ends == 0:
		t.ends = now + lingerAll.Milliseconds()
	case moved == t.moved, now >= t.ends, draining:
		return true
	}
	t.moved = moved
	t.session.watch.set(tunneled, now+lingerQuiet.Milliseconds())
	return false
}
