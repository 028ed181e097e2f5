package http1

import (
	"net"
	"syscall"
	"time"
)

// upstream is a connection to a backend, of one exchange at a time.
type upstream struct {
	inlet
	backend *Backend
	below   syscall.RawConn // what a connection that is not the kernel's own goes over
	since   int64           // when it became idle, on the backend's clock, in ms
	used    bool            // it has carried an exchange

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
	u := &upstream{backend: backend}
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
// say.
func (u *upstream) rest(now int64) bool {
	if !u.drained() {
		u.close()
		return false
	}
	u.release()
	u.used, u.since = true, now
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
	u.conn.Close()
	u.drop()
	u.backend.closed()
}

// expired says whether it has been idle for too long.
func (u *upstream) expired(now int64, limit time.Duration) bool {
	return now-u.since > limit.Milliseconds()
}
