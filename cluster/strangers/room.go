// Package strangers bounds the connections to a port whose peers have yet to show that
// they may use it: each costs a file and a goroutine, and who opens it needs to prove
// nothing.
//
// Invariant: there are never more of them than there is room for, and who opens many
// displaces its own before anybody else's.
package strangers

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// saidEvery is the least time between two lines about connections that were closed.
const saidEvery = 30 * time.Second

// Config says how much room there is. All fields but MaxBusy must be there.
type Config struct {
	Port    string // what they connect to, for the log
	Max     int    // at once
	MaxPeer int    // at once of one address, or of one /64 of IPv6
	// MaxBusy bounds the requests that Begin lets in at once; 0: no bound.
	MaxBusy int
	Log     *slog.Logger
}

// Room has the connections of strangers to one port. When there are too many, those
// that have been there for longest are closed: who means something needs milliseconds,
// so that one who opens connections and falls silent keeps nobody out. All methods may
// be called concurrently.
type Room struct {
	config Config

	mu     sync.Mutex
	inside []stranger // the longest first
	peers  map[netip.Addr]int
	busy   map[net.Conn]struct{} // that left for a request
	closed int                   // to make room, in all
	said   time.Time             // when that was last logged
}

type stranger struct {
	conn net.Conn
	peer netip.Addr
}

// New returns an empty room.
func New(config Config) *Room {
	return &Room{config: config, peers: map[netip.Addr]int{}, busy: map[net.Conn]struct{}{}}
}

// Enter adds a connection, and closes another if that is one too many: of the same peer,
// if it has more than it may, else of the one that has most.
func (r *Room) Enter(conn net.Conn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.busy, conn)
	if r.find(conn) >= 0 {
		return
	}
	peer := peerOf(conn)
	r.inside = append(r.inside, stranger{conn, peer})
	r.peers[peer]++
	if r.peers[peer] > r.config.MaxPeer {
		r.displace(func(s stranger) bool { return s.peer == peer })
	} else if len(r.inside) > r.config.Max {
		most := 0
		for _, n := range r.peers {
			most = max(most, n)
		}
		r.displace(func(s stranger) bool { return r.peers[s.peer] == most })
	}
}

// displace closes the first connection that is meant. The room's lock is held.
func (r *Room) displace(meant func(stranger) bool) {
	i := slices.IndexFunc(r.inside, meant)
	gone := r.inside[i]
	r.remove(i)
	gone.conn.Close()
	r.closed++
	if now := time.Now(); now.Sub(r.said) > saidEvery {
		r.said = now
		r.config.Log.Warn("too many connections to the "+r.config.Port+" on which nothing is asked: closing the oldest",
			"at_once", len(r.inside), "closed_so_far", r.closed, "last", gone.conn.RemoteAddr())
	}
}

// Leave takes a connection out, because it has ended or is no stranger's any more.
func (r *Room) Leave(conn net.Conn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.busy, conn)
	r.remove(r.find(conn))
}

func (r *Room) find(conn net.Conn) int {
	return slices.IndexFunc(r.inside, func(s stranger) bool { return s.conn == conn })
}

// remove forgets a connection; of index -1 there is none.
func (r *Room) remove(i int) {
	if i < 0 {
		return
	}
	peer := r.inside[i].peer
	r.inside = slices.Delete(r.inside, i, i+1)
	if r.peers[peer]--; r.peers[peer] == 0 {
		delete(r.peers, peer)
	}
}

type connKey struct{}

// Watch has the connections of a server in the room, but for the time of a request that
// Begin lets in. It goes before the server serves.
func (r *Room) Watch(server *http.Server) {
	before := server.ConnContext
	server.ConnContext = func(ctx context.Context, conn net.Conn) context.Context {
		if before != nil {
			ctx = before(ctx, conn)
		}
		return context.WithValue(ctx, connKey{}, conn)
	}
	server.ConnState = func(conn net.Conn, state http.ConnState) {
		switch state {
		case http.StateNew, http.StateIdle:
			r.Enter(conn)
		case http.StateHijacked, http.StateClosed:
			r.Leave(conn)
		}
	}
}

// Begin says whether a request, of which ctx is the context, may go on: if there are not
// too many. Until it ends, its connection is no stranger's.
func (r *Room) Begin(ctx context.Context) bool {
	conn, ok := ctx.Value(connKey{}).(net.Conn)
	if !ok {
		return true // it came over no connection that is watched
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.config.MaxBusy > 0 && len(r.busy) >= r.config.MaxBusy {
		return false
	}
	r.busy[conn] = struct{}{}
	r.remove(r.find(conn))
	return true
}

// peerOf is the address that a connection counts for. Who has one address of IPv6 has
// all of its /64.
func peerOf(conn net.Conn) netip.Addr {
	at, err := netip.ParseAddrPort(conn.RemoteAddr().String())
	if err != nil {
		return netip.Addr{}
	}
	addr := at.Addr().Unmap().WithZone("")
	if network, err := addr.Prefix(64); err == nil && addr.Is6() {
		return network.Addr()
	}
	return addr
}
