package cluster

import (
	"bytes"
	"log/slog"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"
)

// recorder is a gossip transport that keeps what it sends.
type recorder struct {
	*memberlist.NetTransport
	mu      sync.Mutex
	packets [][]byte
	streams []*bytes.Buffer
}

// WriteToAddress implements memberlist.NodeAwareTransport.
func (r *recorder) WriteToAddress(b []byte, a memberlist.Address) (time.Time, error) {
	r.mu.Lock()
	r.packets = append(r.packets, bytes.Clone(b))
	r.mu.Unlock()
	return r.NetTransport.WriteToAddress(b, a)
}

// sent is a copy of the packets so far.
func (r *recorder) sent() [][]byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.packets)
}

// DialAddressTimeout implements memberlist.NodeAwareTransport.
func (r *recorder) DialAddressTimeout(a memberlist.Address, timeout time.Duration) (net.Conn, error) {
	conn, err := r.NetTransport.DialAddressTimeout(a, timeout)
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	stream := &bytes.Buffer{}
	r.streams = append(r.streams, stream)
	return recordedConn{conn, r, stream}, nil
}

type recordedConn struct {
	net.Conn
	recorder *recorder
	stream   *bytes.Buffer
}

// Write implements net.Conn.
func (c recordedConn) Write(p []byte) (int, error) {
	c.recorder.mu.Lock()
	c.stream.Write(p)
	c.recorder.mu.Unlock()
	return c.Conn.Write(p)
}

// ghost is a member that only gossips, and keeps all that it sends.
type ghost struct {
	recorder *recorder
	list     *memberlist.Memberlist
	id       string
}

// startGhost starts one that says it is of the cluster, under a new id.
func startGhost(t *testing.T, clusterID string, keyring *memberlist.Keyring) *ghost {
	t.Helper()
	id := &identity{data: identityFile{ID: NewID(), ClusterID: clusterID}}
	transport, err := listenGossip(freeAddr(t), &memberlist.NetTransportConfig{Logger: newLibraryLog(slog.New(slog.DiscardHandler)).std()})
	if err != nil {
		t.Fatal(err)
	}
	g := &gossip{id: id, self: meta{Name: "ghost", RaftAddr: freeAddr(t)}}
	config := memberlist.DefaultLANConfig()
	config.Name, config.Label, config.Keyring = id.nodeID(), gossipLabel, keyring
	config.EnableCompression = false
	config.Delegate = g
	config.AdvertiseAddr, config.AdvertisePort = "127.0.0.1", transport.GetAutoBindPort()
	config.BindPort = config.AdvertisePort
	config.GossipInterval, config.ProbeInterval = 20*time.Millisecond, 50*time.Millisecond
	config.Logger = newLibraryLog(slog.New(slog.DiscardHandler)).std()
	r := &recorder{NetTransport: transport}
	config.Transport = r
	list, err := memberlist.Create(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { list.Shutdown() })
	return &ghost{recorder: r, list: list, id: id.nodeID()}
}

func (g *ghost) addr() string { return g.list.LocalNode().Address() }

// haunt records what a ghost sends to another one, ends both, and sends all of it
// again to the nodes.
func haunt(t *testing.T, clusterID string, keyring *memberlist.Keyring, to []*node) *ghost {
	t.Helper()
	g, partner := startGhost(t, clusterID, keyring), startGhost(t, clusterID, keyring)
	if _, err := g.list.Join([]string{partner.addr()}); err != nil {
		t.Fatal(err)
	}
	enough := func() bool {
		g.recorder.mu.Lock()
		defer g.recorder.mu.Unlock()
		return len(g.recorder.packets) > 10
	}
	eventually(t, waitLong, "packets are recorded", enough)
	g.list.Shutdown()
	partner.list.Shutdown()
	for _, n := range to {
		udp, err := net.Dial("udp", n.cfg.Bind)
		if err != nil {
			t.Fatal(err)
		}
		for _, packet := range g.recorder.sent() {
			udp.Write(packet) // a full buffer loses it, as networks do
		}
		udp.Close()
		for _, stream := range g.recorder.streams {
			tcp, err := net.Dial("tcp", n.cfg.Bind)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := tcp.Write(stream.Bytes()); err != nil {
				t.Fatal(err)
			}
			closedByPeer(t, "replayed gossip", tcp)
			tcp.Close()
		}
	}
	return g
}
