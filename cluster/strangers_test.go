package cluster

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// startMux listens with the secret 's' as node n0.
func startMux(t *testing.T) *mux {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	m := newMux(listener, nil, slog.New(slog.DiscardHandler))
	m.keys = testKeys(t, "n0", 's')
	m.admit = func(string) error { return nil }
	m.start()
	t.Cleanup(m.close)
	return m
}

// closedByPeer waits for the peer to hang up.
func closedByPeer(t *testing.T, what string, conn net.Conn) {
	t.Helper()
	conn.SetReadDeadline(time.Now().Add(waitLong))
	if _, err := io.Copy(io.Discard, conn); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("%s: the connection is still open", what)
	}
}

// Certificates in the right shape, of the right name, for which the peer lacks the
// key that the secret gives.
func TestWrongCertificateIsRefused(t *testing.T) {
	m := startMux(t)
	_, otherKey, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	otherShape, err := selfSigned(otherKey, "n1")
	if err != nil {
		t.Fatal(err)
	}
	real := testKeys(t, "n1", 's').accepted[0].certificate
	for name, certificates := range map[string][]tls.Certificate{
		"made of another key":                 {otherShape},
		"a member's, signed with another key": {{Certificate: real.Certificate, PrivateKey: otherKey}},
		"none":                                nil,
	} {
		conn, err := tls.Dial("tcp", m.listener.Addr().String(), &tls.Config{Certificates: certificates, InsecureSkipVerify: true})
		if err != nil {
			continue
		}
		conn.Write([]byte{callConn}) // may fail: it is being hung up on
		closedByPeer(t, name, conn)
		conn.Close()
	}
	select {
	case <-m.calls.conns:
		t.Error("one of them was let in")
	default:
	}
}

// Every byte that a node sent in a good connection, sent once more.
func TestReplayedHandshakeIsRefused(t *testing.T) {
	m := startMux(t)
	recorded := &bytes.Buffer{}
	relay := startRelay(t, m.listener.Addr().String(), recorded)
	conn, err := (&dialer{keys: testKeys(t, "n1", 's')}).dial(t.Context(), relay, []byte{callConn})
	if err != nil {
		t.Fatal(err)
	}
	inside, err := m.calls.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Write([]byte("POST")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(inside, make([]byte, 4)); err != nil {
		t.Fatal(err)
	}
	inside.Close()
	closedByPeer(t, "the good connection", conn) // so that the relay is done, too
	conn.Close()
	again, err := net.Dial("tcp", m.listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if _, err := again.Write(recorded.Bytes()); err != nil {
		t.Fatal(err)
	}
	closedByPeer(t, "replay", again)
	select {
	case <-m.calls.conns:
		t.Errorf("%d recorded bytes were let in", recorded.Len())
	default:
	}
}

// startRelay passes one connection on to addr and records what the caller sends.
func startRelay(t *testing.T, addr string, recorded *bytes.Buffer) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var relaying sync.WaitGroup
	relaying.Go(func() {
		in, err := listener.Accept()
		if err != nil {
			return
		}
		defer in.Close()
		out, err := net.Dial("tcp", addr)
		if err != nil {
			return
		}
		defer out.Close()
		var back sync.WaitGroup
		back.Go(func() { io.Copy(in, out); in.Close() })
		io.Copy(out, io.TeeReader(in, recorded))
		out.Close()
		back.Wait()
	})
	t.Cleanup(func() { listener.Close(); relaying.Wait() })
	return listener.Addr().String()
}

// allButClosed waits until of these connections no more than so many are open.
func allButClosed(t *testing.T, open int, conns []net.Conn) {
	t.Helper()
	closed := make(chan struct{}, len(conns))
	for _, conn := range conns {
		go func() {
			io.Copy(io.Discard, conn) // until the test ends, at the latest
			closed <- struct{}{}
		}()
	}
	for i := range len(conns) - open {
		select {
		case <-closed:
		case <-time.After(waitLong):
			t.Fatalf("%d of %d connections are still open, want at most %d", len(conns)-i, len(conns), open)
		}
	}
}

// Many connections that fall silent, or ask for nothing, do not keep a node out. The
// node comes from their very address.
func TestSilentConnectionsMakeRoom(t *testing.T) {
	m := startMux(t)
	addr := m.listener.Addr().String()
	var silent []net.Conn
	for range 3 * maxHandshakes {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		silent = append(silent, conn)
	}
	allButClosed(t, maxHandshakesPeer, silent)
	conn, err := (&dialer{keys: testKeys(t, "n1", 's')}).dial(t.Context(), addr, []byte{callConn})
	if err != nil {
		t.Fatalf("a node is kept out: %v", err)
	}
	defer conn.Close()
	inside, err := m.calls.Accept()
	if err != nil {
		t.Fatal(err)
	}
	inside.Close()
}

// Without a secret there is nothing to prove: who asks nothing, does not go on, or asks
// nothing more is a stranger.
func TestUnfinishedCallsMakeRoom(t *testing.T) {
	t.Parallel()
	n := startCluster(t, 1, nil)[0]
	const call = "POST /node/v1/hello HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}"
	var silent []net.Conn
	for i := range 3 * maxHandshakes {
		conn, err := net.Dial("tcp", n.cfg.Raft)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		said := []string{"", call[:30], call}[i%3]
		if _, err := io.WriteString(conn, string(callConn)+said); err != nil {
			continue // it is closed already
		}
		silent = append(silent, conn)
	}
	allButClosed(t, maxHandshakesPeer, silent)
	calls := newCaller(&dialer{})
	defer calls.stop()
	ctx, cancel := context.WithTimeout(t.Context(), waitLong)
	defer cancel()
	var hello helloReply
	if err := calls.call(ctx, n.cfg.Raft, helloPath, none{}, &hello); err != nil || hello.ID != n.ID() {
		t.Errorf("got %v and %+v, want an answer", err, hello)
	}
}

func TestStrangersMaySendLittle(t *testing.T) {
	near, far := net.Pipe()
	defer near.Close()
	go func() {
		far.Write(make([]byte, 2*maxHandshakeBytes))
		far.Close()
	}()
	stranger := &strangerConn{Conn: near, left: maxHandshakeBytes}
	if n, err := io.Copy(io.Discard, stranger); n != maxHandshakeBytes || !errors.Is(err, errTooMuch) {
		t.Errorf("got %d bytes, %v, want %d and then errTooMuch", n, err, maxHandshakeBytes)
	}
	stranger.trusted = true
	if n, err := io.Copy(io.Discard, stranger); n != maxHandshakeBytes || err != nil {
		t.Errorf("got %d bytes, %v of a peer that is trusted, want the other %d", n, err, maxHandshakeBytes)
	}
}

// A member may speak for nobody but itself: to remove another, to report in its name,
// or to promise.
func TestCallInTheNameOfAnotherIsRefused(t *testing.T) {
	t.Parallel()
	n := startCluster(t, 1, func(c *Config) { c.Secrets = testSecrets('s') })[0]
	impostor, err := newKeys(testSecrets('s'), NewID(), newLibraryLog(slog.New(slog.DiscardHandler)))
	if err != nil {
		t.Fatal(err)
	}
	calls := newCaller(&dialer{keys: impostor})
	defer calls.stop()
	ctx, cancel := context.WithTimeout(t.Context(), waitLong)
	defer cancel()
	for path, in := range map[string]any{
		observePath: observeCall{From: n.ID()},
		removePath:  removeCall{ID: n.ID()},
		promisePath: promiseCall{From: n.ID(), To: n.ID(), ClusterID: NewID()},
	} {
		err := calls.call(ctx, named(n.ID(), n.cfg.Raft), path, in, &none{})
		if err == nil || !strings.Contains(err.Error(), "in the name of") {
			t.Errorf("%s: got %v, want it refused", path, err)
		}
	}
	if err := calls.call(ctx, named(n.ID(), n.cfg.Raft), observePath, observeCall{From: impostor.nodeID}, &none{}); err != nil {
		t.Errorf("got %v for a call in its own name", err)
	}
	var hello helloReply
	if err := calls.call(ctx, named(NewID(), n.cfg.Raft), helloPath, none{}, &hello); !errors.Is(err, errUnreached) {
		t.Errorf("got %v and %+v from a node that was not meant, want errUnreached", err, hello)
	}
}

// A node with this node's own id was started from a copy of its directory. It may say
// hello, and nothing else.
func TestCopyMayOnlySayHello(t *testing.T) {
	t.Parallel()
	n := startCluster(t, 1, func(c *Config) { c.Secrets = testSecrets('s') })[0]
	twin := &dialer{keys: testKeys(t, n.ID(), 's')}
	calls := newCaller(twin)
	defer calls.stop()
	ctx, cancel := context.WithTimeout(t.Context(), waitLong)
	defer cancel()
	for path, want := range map[string]string{helloPath: "", reportPath: "own id", proposePath: "own id", observePath: "own id"} {
		err := calls.call(ctx, n.cfg.Raft, path, observeCall{From: n.ID()}, &struct{}{})
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: got %v, want %q", path, err, want)
		}
	}
	conn, err := twin.dial(ctx, n.cfg.Raft, []byte("R"+n.id.clusterID()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	closedByPeer(t, "raft", conn)
}

// An acknowledgement as nodes send them, recorded, and the one byte changed that says
// how it is encrypted: memberlist would end the process.
func TestOldEncryptionIsRefused(t *testing.T) {
	t.Parallel()
	n := startCluster(t, 1, func(c *Config) { c.Secrets = testSecrets('s') })[0]
	ack := append([]byte("\x02\x82\xa7Payload\xc0\xa5SeqNo"), 0xcc, 255)
	packet := sealed(t, testKeys(t, "n1", 's').accepted[0].gossip, 0, ack, gossipLabel)
	label := append([]byte{0xf4, byte(len(gossipLabel))}, gossipLabel...)
	udp, err := net.Dial("udp", n.cfg.Bind)
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	header := binary.BigEndian.AppendUint32([]byte{10}, uint32(len(packet))) // encryptMsg and the size
	inStream := sealed(t, testKeys(t, "n1", 's').accepted[0].gossip, 0, ack, string(header)+gossipLabel)
	for range 10 {
		if _, err := udp.Write(append(bytes.Clone(label), packet...)); err != nil {
			t.Fatal(err)
		}
		tcp, err := net.Dial("tcp", n.cfg.Bind)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := tcp.Write(slices.Concat(label, header, inStream)); err != nil {
			t.Fatal(err)
		}
		closedByPeer(t, "old encryption", tcp)
		tcp.Close()
	}
	propose(t, n, addBackend("web-1", 3001))
}

// sealed encrypts as memberlist does: version, nonce, and what AES-GCM makes of text.
func sealed(t *testing.T, key []byte, version byte, text []byte, label string) []byte {
	t.Helper()
	block, err := aes.NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		t.Fatal(err)
	}
	nonce := make([]byte, gcm.NonceSize())
	rand.Read(nonce)
	return gcm.Seal(append([]byte{version}, nonce...), nonce, text, []byte(label))
}

// memberlist takes an old packet that is sent again, so for a while gossip may believe
// in a node that is gone. It never gets into Raft, and the others go on.
func TestReplayedJoinIsNotLetIn(t *testing.T) {
	t.Parallel()
	nodes := startCluster(t, 3, func(c *Config) { c.Secrets = testSecrets('s') })
	propose(t, nodes[0], addBackend("web-1", 3001))
	g := haunt(t, nodes[0].id.clusterID(), testKeys(t, "n1", 's').keyring, nodes)
	seen := false
	eventually(t, waitLong, "gossip has met the ghost and given it up", func() bool {
		if _, isServer := findServer(nodes[0].servers(), g.id); isServer {
			t.Fatal("the ghost is a member of raft")
		}
		m, known := nodes[0].gossip.find(g.id)
		seen = seen || known
		return seen && m.State != Alive
	})
	propose(t, nodes[1], addBackend("web-2", 3002))
	for _, n := range nodes {
		if got := len(n.servers()); got != 3 {
			t.Errorf("got %d members of raft, want 3", got)
		}
	}
	stranger := haunt(t, nodes[0].id.clusterID(), testKeys(t, "n1", 'x').keyring, nodes)
	if _, known := nodes[0].gossip.find(stranger.id); known {
		t.Error("gossip knows a node that has another secret")
	}
}
