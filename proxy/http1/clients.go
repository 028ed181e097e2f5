package http1

import (
	"net/netip"
	"sync/atomic"
	"time"
)

// Rejection is why a connection was closed before there was a request.
type Rejection string

// Why connections are closed.
const (
	// RejectedPreface did not begin with a PROXY header, or not in time, although it
	// comes from where it must.
	RejectedPreface Rejection = "proxy_protocol"
	// RejectedConnections is one more than Config.MaxConns.
	RejectedConnections Rejection = "connections"
	// RejectedClient is one more than Config.MaxConnsPerClient.
	RejectedClient Rejection = "client_connections"
)

// clients counts the open connections of each client. It holds no more than there are
// connections.
type clients struct {
	max  int // of each; 0: nothing is counted
	open map[netip.Addr]int
}

// clientOf is the address that a client's connections are counted by. Who has one
// address of IPv6 has all of its /64.
func clientOf(addr netip.Addr) netip.Addr {
	if addr.Is6() {
		if network, err := addr.Prefix(64); err == nil {
			return network.Addr()
		}
	}
	return addr
}

// enter counts a connection of that client, unless it has as many as it may.
func (c *clients) enter(client netip.Addr) bool {
	switch {
	case c.max == 0:
		return true
	case c.open[client] >= c.max:
		return false
	}
	c.open[client]++
	return true
}

func (c *clients) leave(client netip.Addr) {
	if c.max == 0 {
		return
	}
	if c.open[client]--; c.open[client] <= 0 {
		delete(c.open, client)
	}
}

// noticeEvery is how often the log is told of what happens for one reason.
const noticeEvery = 10 * time.Second

// Notice holds back what would fill the log. Its zero value is ready to use.
type Notice struct {
	next  atomic.Int64 // when it may be told again
	since atomic.Int64 // how many there were since it was told
}

// Take counts one more, at a time in ms by any clock. It returns how many there are to tell
// of; 0: tell nothing yet.
func (n *Notice) Take(now int64) int64 {
	n.since.Add(1)
	next := n.next.Load()
	if now < next || !n.next.CompareAndSwap(next, now+noticeEvery.Milliseconds()) {
		return 0
	}
	return n.since.Swap(0)
}

// rejected tells of a connection that is closed before there was a request.
func (s *Server) rejected(why Rejection, client netip.Addr) {
	s.config.Handler.Rejected(why)
	if n := s.notices[why].Take(s.now.Load()); n > 0 {
		s.log.Warn("closed connections of clients at once", "reason", string(why), "count", n, "last", client)
	}
}
