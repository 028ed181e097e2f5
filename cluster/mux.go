package cluster

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"time"

	"lbnode/cluster/strangers"
)

// One TCP port carries Raft and the calls between nodes. A connection begins with
// a byte that says which; on Raft's, the id of the cluster follows, so that a
// node never takes part in the log of another cluster than its own.
const (
	callConn byte = 'C'
	raftConn byte = 'R'
	// preambleWithin bounds the TLS handshake and the preamble together.
	preambleWithin = 5 * time.Second
)

// mux accepts the connections of the port and sorts them.
type mux struct {
	listener net.Listener
	from     networks
	keys     *keys // nil: not protected
	raft     *chanListener
	calls    *chanListener
	waiting  *strangers.Room
	// admit says whether Raft's connections of that cluster may come in.
	admit func(clusterID string) error
	log   *slog.Logger

	running sync.WaitGroup
}

func newMux(listener net.Listener, from networks, log *slog.Logger) *mux {
	return &mux{
		listener: listener,
		from:     from,
		raft:     newChanListener(listener.Addr()),
		calls:    newChanListener(listener.Addr()),
		waiting:  newHandshakes(log),
		log:      log,
	}
}

// start begins to accept; close ends it.
func (m *mux) start() { m.running.Go(m.acceptLoop) }

func (m *mux) close() {
	m.listener.Close()
	m.raft.Close()
	m.calls.Close()
	m.running.Wait()
}

func (m *mux) acceptLoop() {
	for {
		conn, err := m.listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // such as too many open files: it passes
			m.log.Warn("cannot accept a connection from a node", "error", err)
			time.Sleep(50 * time.Millisecond)
			continue
		}
		if !m.from.allow(conn.RemoteAddr()) {
			conn.Close()
			continue
		}
		m.waiting.Enter(conn)
		m.running.Go(func() { m.sort(conn) })
	}
}

// sort hands a new connection to whom it is for, or closes it.
func (m *mux) sort(raw net.Conn) {
	conn, kind, err := m.open(raw)
	if err == nil && kind == raftConn {
		err = m.admitRaft(conn)
	}
	m.waiting.Leave(raw)
	if err != nil {
		conn.Close()
		if !errors.Is(err, io.EOF) {
			m.log.Debug("refused a connection", "from", raw.RemoteAddr(), "error", err)
		}
		return
	}
	conn.SetDeadline(time.Time{})
	if kind == raftConn {
		m.raft.deliver(conn)
	} else {
		m.calls.deliver(conn)
	}
}

// unproven is the room for those who call, nil if they have proved the secret.
func (m *mux) unproven() *strangers.Room {
	if m.keys != nil {
		return nil
	}
	return m.waiting
}

// open returns raw, or the protected connection over it, also with an error.
func (m *mux) open(raw net.Conn) (net.Conn, byte, error) {
	raw.SetDeadline(time.Now().Add(preambleWithin))
	conn := raw
	if m.keys != nil {
		secured, err := m.keys.secure(context.Background(), raw, tls.Server, "")
		if err != nil {
			return raw, 0, err
		}
		conn = secured
	}
	var kind [1]byte
	if _, err := io.ReadFull(conn, kind[:]); err != nil {
		return conn, 0, err
	}
	if kind[0] != callConn && kind[0] != raftConn {
		return conn, 0, fmt.Errorf("unknown kind of connection %q: another program, or a node with another -secret", kind[0])
	}
	return conn, kind[0], nil
}

func (m *mux) admitRaft(conn net.Conn) error {
	if peer, ok := conn.(*peerConn); ok {
		if err := peer.refuseDouble(); err != nil {
			return err
		}
	}
	var id [32]byte
	if _, err := io.ReadFull(conn, id[:]); err != nil {
		return err
	}
	return m.admit(string(id[:]))
}

// dialer opens connections to the ports of other nodes.
type dialer struct {
	keys *keys // nil: not protected
	// watch sees each new connection and may replace or refuse it; nil but in tests,
	// which cut links with it.
	watch func(addr string, conn net.Conn) (net.Conn, error)
}

// dial opens a connection that begins with the preamble to an address, which may
// name the node that must be there. It has a deadline of its own: net/http dials on
// after the call that wanted the connection was given up.
func (d *dialer) dial(ctx context.Context, address string, preamble []byte) (net.Conn, error) {
	want, addr := splitNamed(address)
	ctx, cancel := context.WithTimeout(ctx, callWithin)
	defer cancel()
	var net net.Dialer
	conn, err := net.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	if d.watch != nil {
		watched, err := d.watch(addr, conn)
		if err != nil {
			conn.Close()
			return nil, err
		}
		conn = watched
	}
	if deadline, ok := ctx.Deadline(); ok {
		conn.SetDeadline(deadline)
	}
	if d.keys != nil {
		secured, err := d.keys.secure(ctx, conn, tls.Client, want)
		if err != nil {
			conn.Close()
			return nil, err
		}
		conn = secured
	}
	if _, err := conn.Write(preamble); err != nil {
		conn.Close()
		return nil, err
	}
	conn.SetDeadline(time.Time{})
	return conn, nil
}

// named is the address of a Raft port that also says which node must be there:
// id@host:port. Raft and net/http keep their idle connections by address, so that
// with the id in it none that leads to one node is ever used for another that was,
// or is said to be, at the same place.
func named(id, addr string) string {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return addr // to dial it will say what is wrong with it
	}
	return net.JoinHostPort(id+"@"+host, port)
}

// splitNamed takes such an address apart; the id of a plain one is empty.
func splitNamed(address string) (id, addr string) {
	host, port, err := net.SplitHostPort(address)
	id, host, found := strings.Cut(host, "@")
	if err != nil || !found {
		return "", address
	}
	return id, net.JoinHostPort(host, port)
}

// chanListener is a net.Listener whose connections are handed to it.
type chanListener struct {
	addr   net.Addr
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func newChanListener(addr net.Addr) *chanListener {
	return &chanListener{addr: addr, conns: make(chan net.Conn), closed: make(chan struct{})}
}

func (l *chanListener) deliver(conn net.Conn) {
	select {
	case l.conns <- conn:
	case <-l.closed:
		conn.Close()
	}
}

// Accept implements net.Listener.
func (l *chanListener) Accept() (net.Conn, error) { return l.accept(nil) }

// accept is Accept for one who may stop listening before the listener is closed.
func (l *chanListener) accept(done <-chan struct{}) (net.Conn, error) {
	select {
	case conn := <-l.conns:
		return conn, nil
	case <-done:
		return nil, net.ErrClosed
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (l *chanListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

// Addr implements net.Listener.
func (l *chanListener) Addr() net.Addr { return l.addr }
