package cluster

import (
	"errors"
	"log/slog"
	"net"
	"slices"
	"sync"
	"time"
)

const (
	// maxHandshakes bounds how many connections may be on their way in at once, of
	// peers that have yet to prove that they know the secret.
	maxHandshakes = 128
	// maxHandshakeBytes bounds what such a peer may send; a node sends some 3 KiB.
	maxHandshakeBytes = 16 << 10
	// turnedAwayEvery is the least time between two lines about peers turned away.
	turnedAwayEvery = 30 * time.Second
)

// handshakes are the connections on their way in. When there are too many, the one
// that has been at it for longest is closed: a node needs milliseconds, so that one
// who opens connections and falls silent does not keep nodes out.
type handshakes struct {
	log *slog.Logger

	mu         sync.Mutex
	waiting    []net.Conn // the longest first
	turnedAway uint64     // in all
	said       time.Time  // when turnedAway was last logged
}

func newHandshakes(log *slog.Logger) *handshakes { return &handshakes{log: log} }

// enter adds a connection and makes room for it.
func (h *handshakes) enter(conn net.Conn) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.waiting = append(h.waiting, conn)
	if len(h.waiting) <= maxHandshakes {
		return
	}
	h.waiting[0].Close()
	h.waiting = slices.Delete(h.waiting, 0, 1)
	h.turnedAway++
	if now := time.Now(); now.Sub(h.said) > turnedAwayEvery {
		h.said = now
		h.log.Warn("too many connections to the raft port have yet to say who they are: closing those that have taken longest",
			"at_once", maxHandshakes, "closed_so_far", h.turnedAway, "newest", conn.RemoteAddr())
	}
}

// leave removes a connection whose handshake has ended.
func (h *handshakes) leave(conn net.Conn) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if i := slices.Index(h.waiting, conn); i >= 0 {
		h.waiting = slices.Delete(h.waiting, i, i+1)
	}
}

// strangerConn is a connection whose peer may send little until it is trusted.
type strangerConn struct {
	net.Conn
	left    int
	trusted bool
}

var errTooMuch = errors.New("the peer sends too much before it has proved the secret")

// Read implements net.Conn.
func (c *strangerConn) Read(p []byte) (int, error) {
	if c.trusted {
		return c.Conn.Read(p)
	}
	if c.left == 0 {
		return 0, errTooMuch
	}
	n, err := c.Conn.Read(p[:min(len(p), c.left)])
	c.left -= n
	return n, err
}
