package cluster

import (
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/memberlist"

	"lbnode/cluster/strangers"
)

// What strangers can make gossip hold in memory is bounded by these two, and by
// screen.
const (
	gossipLabel    = "lbnode"
	maxGossipConns = 64                 // TCP connections served at once
	maxGossipPeer  = maxGossipConns / 2 // of one address
	maxGossipRead  = 4 << 20            // bytes read from each
)

var errTooMuchGossip = errors.New("the peer sends more than a gossip connection may carry")

// gossipTransport is memberlist's transport, with bounds on whom and what it serves,
// and a note of who was heard by UDP.
type gossipTransport struct {
	*memberlist.NetTransport
	from      networks
	encrypted bool
	heard     func(from netip.AddrPort, at time.Time)
	// cut says which addresses cannot be reached; nil but in tests.
	cut atomic.Pointer[func(addr string, tcp bool) bool]

	packets chan *memberlist.Packet
	streams chan net.Conn
	served  *strangers.Room // who has which key, only memberlist gets to know
	closing chan struct{}   // nobody reads packets and streams any more
	closed  chan struct{}   // nothing comes from below any more
	once    sync.Once
	running sync.WaitGroup
}

func newGossipTransport(below *memberlist.NetTransport, from networks, encrypted bool, heard func(netip.AddrPort, time.Time), log *slog.Logger) *gossipTransport {
	t := &gossipTransport{
		NetTransport: below,
		from:         from,
		encrypted:    encrypted,
		heard:        heard,
		packets:      make(chan *memberlist.Packet),
		streams:      make(chan net.Conn),
		served:       strangers.New(strangers.Config{Port: "gossip port", Max: maxGossipConns, MaxPeer: maxGossipPeer, Log: log}),
		closing:      make(chan struct{}),
		closed:       make(chan struct{}),
	}
	t.running.Go(t.packetLoop)
	t.running.Go(t.streamLoop)
	return t
}

func (t *gossipTransport) packetLoop() {
	for {
		select {
		case p := <-t.NetTransport.PacketCh():
			if !t.from.allow(p.From) || t.encrypted && oldPacket(p.Buf) {
				continue
			}
			if from, ok := p.From.(*net.UDPAddr); ok {
				t.heard(unmapped(from.AddrPort()), p.Timestamp)
			}
			select {
			case t.packets <- p:
			case <-t.closing:
			}
		case <-t.closed:
			return
		}
	}
}

func (t *gossipTransport) streamLoop() {
	for {
		select {
		case conn := <-t.NetTransport.StreamCh():
			t.admit(conn)
		case <-t.closed:
			return
		}
	}
}

// admit passes a connection on, or closes it if nobody may come from there. If too many
// are served, one of those ends.
func (t *gossipTransport) admit(conn net.Conn) {
	if !t.from.allow(conn.RemoteAddr()) {
		conn.Close()
		return
	}
	t.served.Enter(conn)
	bounded := &boundedConn{Conn: t.modern(conn, streamVersionAt), screened: true, left: maxGossipRead, release: func() { t.served.Leave(conn) }}
	select {
	case t.streams <- bounded:
	case <-t.closing:
		bounded.Close()
	}
}

// modern refuses gossip's first encryption, whose version stands so many bytes after
// the beginning.
func (t *gossipTransport) modern(conn net.Conn, versionAt int) net.Conn {
	if !t.encrypted {
		return conn
	}
	return &modernConn{Conn: conn, versionAt: versionAt}
}

// PacketCh implements memberlist.Transport.
func (t *gossipTransport) PacketCh() <-chan *memberlist.Packet { return t.packets }

// StreamCh implements memberlist.Transport.
func (t *gossipTransport) StreamCh() <-chan net.Conn { return t.streams }

// WriteToAddress implements memberlist.NodeAwareTransport.
func (t *gossipTransport) WriteToAddress(b []byte, to memberlist.Address) (time.Time, error) {
	if cut := t.cut.Load(); cut != nil && (*cut)(to.Addr, false) {
		return time.Now(), nil // lost on its way
	}
	return t.NetTransport.WriteToAddress(b, to)
}

// DialAddressTimeout implements memberlist.NodeAwareTransport.
func (t *gossipTransport) DialAddressTimeout(to memberlist.Address, timeout time.Duration) (net.Conn, error) {
	if cut := t.cut.Load(); cut != nil && (*cut)(to.Addr, true) {
		return nil, errUnreached
	}
	conn, err := t.NetTransport.DialAddressTimeout(to, timeout)
	if err != nil {
		return nil, err
	}
	return &boundedConn{Conn: t.modern(conn, answerVersionAt), left: maxGossipRead, release: func() {}}, nil
}

// Shutdown implements memberlist.Transport. What comes from below is taken until
// the listeners have ended, because they wait for that.
func (t *gossipTransport) Shutdown() (err error) {
	t.once.Do(func() {
		close(t.closing)
		err = t.NetTransport.Shutdown()
		close(t.closed)
		t.running.Wait()
	})
	return err
}

// boundedConn is a connection from which so much is read and no more.
type boundedConn struct {
	net.Conn
	screened bool      // what it begins with is looked at first
	from     io.Reader // what is read, nil before the first time
	left     int
	release  func()
	once     sync.Once
}

// Read implements net.Conn.
func (c *boundedConn) Read(b []byte) (int, error) {
	if c.left == 0 {
		return 0, errTooMuchGossip
	}
	if c.from == nil {
		if err := c.begin(); err != nil {
			return 0, err
		}
	}
	n, err := c.from.Read(b[:min(len(b), c.left)])
	c.left -= n
	return n, err
}

func (c *boundedConn) begin() (err error) {
	c.from = c.Conn
	if c.screened {
		c.from, err = screen(c.Conn)
	}
	return err
}

// Close implements net.Conn.
func (c *boundedConn) Close() error {
	err := c.Conn.Close()
	c.once.Do(c.release)
	return err
}

func unmapped(addr netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(addr.Addr().Unmap(), addr.Port())
}
