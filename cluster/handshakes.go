package cluster

import (
	"errors"
	"log/slog"
	"net"

	"lbnode/cluster/strangers"
)

const (
	// maxHandshakes bounds how many connections may be on their way in at once, of
	// peers that have yet to prove that they know the secret; and those of one address.
	maxHandshakes     = 128
	maxHandshakesPeer = maxHandshakes / 2
	// maxHandshakeBytes bounds what such a peer may send; a node sends some 3 KiB.
	maxHandshakeBytes = 16 << 10
	// maxUnprovenCalls bounds the calls under way where there is no secret to prove.
	maxUnprovenCalls = 128
)

func newHandshakes(log *slog.Logger) *strangers.Room {
	return strangers.New(strangers.Config{
		Port: "raft port", Max: maxHandshakes, MaxPeer: maxHandshakesPeer, MaxBusy: maxUnprovenCalls, Log: log,
	})
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
