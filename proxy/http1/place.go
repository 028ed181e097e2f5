package http1

import (
	"context"
	"net"
	"net/netip"
	"slices"
)

// place is the one address of a backend's host at which it is known to be well.
type place struct{ addr netip.Addr }

// Settle says at which address of its host the backend is known to be well: it is tried
// before the others from now on, and idle connections to others are closed. The zero address
// leaves it to the name again, which connections that are there outlive.
func (b *Backend) Settle(at netip.Addr) {
	if !at.IsValid() {
		b.place.Store(nil)
		return
	}
	b.place.Store(&place{at.Unmap()})
	for i := range b.shards {
		for _, u := range b.shards[i].take((*upstream).misplaced) {
			u.close()
		}
	}
}

// misplaced says whether a connection goes to another address than the backend's place, and
// was opened before that was known. One that was opened later goes there because the place
// took none.
func (u *upstream) misplaced() bool {
	at := u.backend.place.Load()
	return at != nil && u.place != at && u.addr != at.addr
}

// reachAt connects to a backend's place. It returns nil if there is none, or it takes no
// connection; then there is as much time left for what else the name may stand for.
func (b *Backend) reachAt(ctx context.Context, at *place) net.Conn {
	if at == nil {
		return nil
	}
	_, port, err := net.SplitHostPort(b.config.Addr)
	if err != nil {
		return nil // as connecting will say
	}
	dialer := b.dialer
	dialer.Timeout = b.config.Connect / 2
	conn, err := dialer.DialContext(ctx, "tcp", net.JoinHostPort(at.addr.String(), port))
	if err != nil {
		return nil
	}
	return conn
}

// take takes out those of which that holds.
func (s *shard) take(holds func(*upstream) bool) (taken []*upstream) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.idle = slices.DeleteFunc(s.idle, func(u *upstream) bool {
		if holds(u) {
			taken = append(taken, u)
			return true
		}
		return false
	})
	return taken
}
