package cluster

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// raftTransport sends Raft's messages to the other nodes. It corrects when Raft
// sends them.
//
// Raft doubles its pause after each message with entries that was lost, up to 10 s,
// and has no way to be told that the node is back. So such a failure is kept from
// Raft until the node answers a heartbeat. That is tried twice a second where it is
// refused, every 2 to 5 s where packets vanish.
type raftTransport struct {
	carrier
	// follows says whether this node leads in the term and has that follower.
	follows func(term uint64, follower raft.ServerID) bool
	// unfit says why this node should not lead, nil if it may.
	unfit func() error

	mu       sync.Mutex
	answered map[raft.ServerID]time.Time // the last heartbeat
}

// carrier is what Raft asks of its transport.
type carrier interface {
	raft.Transport
	raft.WithPreVote
	raft.WithClose
}

// askAgain is how often a message that is kept waiting looks whether it still must.
const askAgain = 50 * time.Millisecond

func (c *Cluster) newRaftTransport() *raftTransport {
	return &raftTransport{
		carrier: raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
			ServerAddressProvider: (*addressBook)(c),
			Logger:                c.library.hclog("raft"),
			Stream:                &raftStream{Cluster: c, closed: make(chan struct{}), conns: map[*raftStreamConn]struct{}{}},
			MaxPool:               3,
			// With more, a follower that refuses entries, as when its disk fails, may get
			// none for as long as the leader leads (hashicorp/raft#612).
			MaxRPCsInFlight: 1,
			Timeout:         5 * time.Second,
		}),
		follows:  c.follows,
		unfit:    c.disk.unfit,
		answered: map[raft.ServerID]time.Time{},
	}
}

// AppendEntries implements raft.Transport.
func (t *raftTransport) AppendEntries(id raft.ServerID, target raft.ServerAddress, request *raft.AppendEntriesRequest, response *raft.AppendEntriesResponse) error {
	began := time.Now()
	err := t.carrier.AppendEntries(id, target, request, response)
	switch {
	case !isHeartbeat(request):
		return t.hold(err, request.Term, id, began)
	case err == nil:
		t.mu.Lock()
		t.answered[id] = began
		t.mu.Unlock()
	}
	return err
}

// isHeartbeat tells the message that says nothing but who leads, as Raft does.
func isHeartbeat(r *raft.AppendEntriesRequest) bool {
	return len(r.Entries) == 0 && r.PrevLogEntry == 0 && r.PrevLogTerm == 0 && r.LeaderCommitIndex == 0
}

// InstallSnapshot implements raft.Transport.
func (t *raftTransport) InstallSnapshot(id raft.ServerID, target raft.ServerAddress, request *raft.InstallSnapshotRequest, response *raft.InstallSnapshotResponse, data io.Reader) error {
	began := time.Now()
	return t.hold(t.carrier.InstallSnapshot(id, target, request, response, data), request.Term, id, began)
}

// hold keeps the error of a message until another is worth sending, or nobody needs
// one any more.
func (t *raftTransport) hold(err error, term uint64, id raft.ServerID, began time.Time) error {
	for err != nil && !t.answeredSince(id, began) && t.follows(term, id) {
		time.Sleep(askAgain)
	}
	return err
}

func (t *raftTransport) answeredSince(id raft.ServerID, began time.Time) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.answered[id].After(began)
}

// RequestPreVote implements raft.WithPreVote. A node whose disk takes no entries
// would be elected, could not lead, and might be elected again.
func (t *raftTransport) RequestPreVote(id raft.ServerID, target raft.ServerAddress, request *raft.RequestPreVoteRequest, response *raft.RequestPreVoteResponse) error {
	if err := t.unfit(); err != nil {
		return err
	}
	return t.carrier.RequestPreVote(id, target, request, response)
}

// follows says whether this node leads in the term and has that follower.
func (c *Cluster) follows(term uint64, follower raft.ServerID) bool {
	now := c.replica.Load()
	if c.transfers.Load() > 0 || c.refusals.lasting() > 0 {
		return false // a transfer waits for the goroutine that sends to a follower, perhaps although it has failed
	}
	if now == nil || now.State() != raft.Leader || now.CurrentTerm() != term {
		return false
	}
	_, ok := findServer(c.servers(), string(follower))
	return ok
}

// raftStream carries the messages of one replica over the port that nodes share.
type raftStream struct {
	*Cluster
	closed chan struct{}
	once   sync.Once

	mu    sync.Mutex
	conns map[*raftStreamConn]struct{} // that are open
}

// raftStreamConn is a connection that ends with its stream.
type raftStreamConn struct {
	net.Conn
	of *raftStream
}

// Close implements net.Conn.
func (c *raftStreamConn) Close() error {
	c.of.mu.Lock()
	delete(c.of.conns, c)
	c.of.mu.Unlock()
	return c.Conn.Close()
}

// Accept implements net.Listener.
func (s *raftStream) Accept() (net.Conn, error) {
	conn, err := s.mux.raft.accept(s.closed)
	if err != nil {
		return nil, err
	}
	return s.keep(conn), nil
}

// keep has the connection closed with the stream.
func (s *raftStream) keep(conn net.Conn) net.Conn {
	kept := &raftStreamConn{conn, s}
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-s.closed:
		conn.Close()
	default:
		s.conns[kept] = struct{}{}
	}
	return kept
}

// Close implements net.Listener. It ends messages that are under way, for which Raft's
// own end would wait.
func (s *raftStream) Close() error {
	s.once.Do(func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		close(s.closed)
		for conn := range s.conns {
			conn.Conn.Close()
		}
	})
	return nil
}

// Addr implements net.Listener: the address that the others know this node by.
func (s *raftStream) Addr() net.Addr { return net.TCPAddrFromAddrPort(s.raftAddr()) }

// Dial implements raft.StreamLayer.
func (s *raftStream) Dial(address raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	clusterID := s.id.clusterID()
	if clusterID == "" {
		return nil, errors.New("this node is in no cluster yet")
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	conn, err := s.dialer.dial(ctx, string(address), append([]byte{raftConn}, clusterID...))
	_, plain := splitNamed(string(address))
	s.gossip.unlike.note(plain, err, time.Now())
	if err != nil {
		return nil, err
	}
	return s.keep(conn), nil
}

// addressBook gives Raft the addresses that nodes have now: one that came back
// with another address is reached there before Raft's members are corrected. They
// name the node: who came to the address of another must not be asked for its vote.
type addressBook Cluster

// ServerAddr implements raft.ServerAddressProvider. An error makes Raft use the
// address that its own list of members has.
func (b *addressBook) ServerAddr(id raft.ServerID) (raft.ServerAddress, error) {
	m, ok := b.gossip.find(string(id))
	if m.ID == b.id.nodeID() { // what this node tells the others of itself
		return raft.ServerAddress(m.RaftAddr), nil
	}
	if ok && m.State == Alive {
		return raft.ServerAddress(named(m.ID, m.RaftAddr)), nil
	}
	if s, ok := findServer((*Cluster)(b).servers(), string(id)); ok {
		return raft.ServerAddress(named(string(id), string(s.Address))), nil
	}
	return "", errors.New("neither known by gossip nor a member")
}
