package http1

import (
	"container/list"
	"math"
	"math/rand/v2"
	"net"
	"net/netip"
	"syscall"
	"time"
)

// upstream is a connection to a backend, of one exchange at a time.
type upstream struct {
	inlet
	backend *Backend
	below   syscall.RawConn // what a connection that is not the kernel's own goes over
	since   int64           // when it became idle, on the backend's clock, in ms
	until   int64           // when it is too old to be used again, on the same
	used    bool            // it has carried an exchange
	tied    bool            // a client authenticates by it
	addr    netip.Addr      // that it goes to
	place   *place          // that its backend had when it was opened
	held    *list.Element   // of Backend.held

	ask  func(fd uintptr) bool // tryAsk, made once
	out  []byte                // what is asked
	sent int
	step askStep
}

type askStep uint8

const (
	checking askStep = iota // that the connection is quiet
	sending
	awaiting
)

func newUpstream(conn net.Conn, backend *Backend) *upstream {
	u := &upstream{backend: backend, addr: addrOf(conn.RemoteAddr())}
	u.open(conn, largeBuffer)
	u.ask = u.tryAsk
	if over, ok := conn.(interface{ NetConn() net.Conn }); ok {
		u.below = rawConn(over.NetConn())
	}
	return u
}

// exchange sends a request and waits for the first bytes of the answer. It says
// whether anything may have been sent. A connection that was used before must be
// quiet first: one that has ended, or on which something came that nobody asked
// for, is stale.
//
// Looking, sending and waiting share one wait for the connection, so that the look
// takes the place of the read that would come before the wait anyway.
func (u *upstream) exchange(out []byte) (sent bool, err error) {
	if u.raw == nil {
		return u.exchangePlain(out)
	}
	u.out, u.sent, u.step = out, 0, sending
	if u.used {
		u.step = checking
	}
	if err := u.raw.Read(u.ask); err != nil {
		return u.sent > 0, err
	}
	u.out = nil
	if u.err != nil {
		return u.sent > 0, u.err
	}
	if u.step == sending {
		if _, err := u.conn.Write(out[u.sent:]); err != nil {
			return true, err
		}
		return true, u.fill()
	}
	return true, nil
}

func (u *upstream) exchangePlain(out []byte) (sent bool, err error) {
	if !u.quiet() {
		return false, errStale
	}
	if _, err := u.conn.Write(out); err != nil {
		return true, err
	}
	return true, u.fill()
}

// tryAsk goes on with an exchange for as long as that needs no waiting. It is called
// first, and then each time when something came. It ends in sending if the socket
// took less than all.
func (u *upstream) tryAsk(fd uintptr) bool {
	if u.step != sending {
		if settled := u.tryRead(fd); settled || u.step == awaiting {
			if u.step == checking {
				u.err = errStale
			}
			return settled
		}
		u.step = sending
	}
	u.sent, u.err = send(fd, u.out)
	if u.err != nil || u.sent < len(u.out) {
		return true
	}
	u.step = awaiting
	return false
}

// quiet says whether a connection that waits for a request may get one.
func (u *upstream) quiet() bool {
	if !u.used {
		return true
	}
	if u.raw == nil {
		return !stirs(u.below)
	}
	return !u.poll() && u.err == nil
}

// rest makes a connection wait for the next request. It closes one that has more to
// say, or is not to be used again.
func (u *upstream) rest(now int64) bool {
	if !u.used {
		u.used, u.until = true, u.backend.end(now)
	}
	u.since = now
	if u.spent(now) || !u.drained() {
		u.close()
		return false
	}
	u.release()
	return true
}

// drained says whether a connection with TLS has nothing more to say that was read
// from the kernel already, where quiet could not see it.
func (u *upstream) drained() bool {
	if u.raw != nil {
		return true
	}
	u.conn.SetReadDeadline(past)
	n, err := u.conn.Read(u.room(u.size))
	u.conn.SetReadDeadline(time.Time{})
	return n == 0 && isTimeout(err)
}

// close closes the connection for good.
func (u *upstream) close() {
	u.discard()
	u.backend.closed()
}

// discard closes it for another in its place.
func (u *upstream) discard() {
	u.conn.Close()
	u.drop()
}

// spent says whether it is not to be used again: it was idle for too long, is too old, or
// goes to where the backend is no more. One that a client authenticates by may become as old
// as the client's: the client would have to do so anew each time.
func (u *upstream) spent(now int64) bool {
	idle := u.backend.config.Idle
	return idle > 0 && now-u.since > idle.Milliseconds() || now >= u.until && !u.tied || u.misplaced()
}

// end is when a connection is too old that is new now. Those that were opened together do not
// end together.
func (b *Backend) end(now int64) int64 {
	age := b.config.Age.Milliseconds()
	if age <= 0 {
		return math.MaxInt64
	}
	return now + age - rand.Int64N(age/8+1)
}
