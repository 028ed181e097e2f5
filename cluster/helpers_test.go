package cluster

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"lbnode/state"
)

var long = flag.Bool("long", false, "run the long forms")

// TestMain runs more tests at once than there are cores: nodes spend their time
// waiting for one another.
func TestMain(m *testing.M) {
	flag.Parse()
	flag.Set("test.parallel", "6")
	os.Exit(m.Run())
}

// handedOut are the addresses that a test has, whose node may not have begun to
// listen there.
var handedOut sync.Map

// freeAddr returns a loopback address whose port is free for TCP and UDP. It
// stays below the range from which the system picks ports for clients, so that
// no connection takes it before a node does, or while the node is down.
func freeAddr(t testing.TB) string {
	t.Helper()
	for range 100 {
		addr := fmt.Sprintf("127.0.0.1:%d", 10000+rand.IntN(20000))
		if _, taken := handedOut.LoadOrStore(addr, true); taken {
			continue
		}
		tcp, err := net.Listen("tcp", addr)
		if err != nil {
			continue
		}
		udp, err := net.ListenPacket("udp", addr)
		tcp.Close()
		if err != nil {
			continue
		}
		udp.Close()
		return addr
	}
	t.Fatal("no free port")
	return ""
}

// node is a Cluster under test and what it was told.
type node struct {
	*Cluster
	cfg Config

	mu           sync.Mutex
	observations map[string]LocalBackend
	viewCount    int

	links links
}

// crash ends the node without a word to the others.
func (n *node) crash() {
	n.stopped.Do(func() {
		n.gossip.list.Shutdown()
		n.cancel()
		n.running.Wait()
		n.close()
	})
}

// links are the connections that a node has opened, for Raft and for calls.
type links struct {
	mu   sync.Mutex
	open map[net.Conn]string // to which address
	cut  func(addr string) bool
}

// watch is a dialer's.
func (l *links) watch(addr string, conn net.Conn) (net.Conn, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cut(addr) {
		return nil, syscall.EHOSTUNREACH
	}
	l.open[conn] = addr
	return conn, nil
}

// set closes the connections to the addresses that are cut, and lets no new ones
// come up until it is called again.
func (l *links) set(cut func(addr string) bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cut = cut
	for conn, addr := range l.open {
		if cut(addr) {
			conn.Close()
			delete(l.open, conn)
		}
	}
}

// newConfig returns the configuration of a node with ports and a directory of
// its own.
func newConfig(t testing.TB, name string, join ...string) Config {
	return Config{
		Name: name, Version: "test", DataDir: t.TempDir(),
		Join: join, Bind: freeAddr(t), Raft: freeAddr(t), RaftMultiplier: 1,
		Log: testLog(t, name),
	}
}

// testLog writes to the test's log with -v, else nowhere.
func testLog(t testing.TB, name string) *slog.Logger {
	if !testing.Verbose() {
		return slog.New(slog.DiscardHandler)
	}
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelInfo})).With("at", name)
}

// start opens and starts a node and stops it when the test ends.
func start(t testing.TB, cfg Config) *node {
	t.Helper()
	n := &node{cfg: cfg, observations: map[string]LocalBackend{}}
	n.links.open, n.links.cut = map[net.Conn]string{}, func(string) bool { return false }
	cfg.OnView = func(*state.View) { n.mu.Lock(); n.viewCount++; n.mu.Unlock() }
	cfg.OnMembers = func() {}
	cfg.OnAutonomous = func(bool) {}
	cfg.Local = n.local
	if cfg.hooks.dialed == nil {
		cfg.hooks.dialed = n.links.watch
	}
	c, err := Open(t.Context(), cfg)
	if err != nil {
		t.Fatalf("cannot open %s: %v", cfg.Name, err)
	}
	n.Cluster = c
	c.Start(context.WithoutCancel(t.Context()), Addrs{Admin: "127.0.0.1:1", HTTP: "127.0.0.1:2"})
	t.Cleanup(c.Stop)
	return n
}

func (n *node) local() Local {
	n.mu.Lock()
	defer n.mu.Unlock()
	backends := map[string]LocalBackend{}
	for id, b := range n.observations {
		backends[id] = b
	}
	return Local{Ready: true, Backends: backends}
}

// observe makes the node believe that its probes found a backend so.
func (n *node) observe(b *state.Backend, healthy bool) {
	n.observeAs(Observation{BackendID: b.ID, URL: b.URL(), Healthy: healthy, At: time.Now()})
}

// observeAs makes the node believe that its probes found these things.
func (n *node) observeAs(found ...Observation) {
	n.mu.Lock()
	for _, o := range found {
		n.observations[o.BackendID] = LocalBackend{Observation: &o}
	}
	n.mu.Unlock()
	n.Observed()
}

// startCluster starts size nodes with one join list and waits until all are in
// one cluster with a leader.
func startCluster(t testing.TB, size int, change func(*Config)) []*node {
	t.Helper()
	var configs []Config
	var join []string
	for i := range size {
		cfg := newConfig(t, fmt.Sprintf("lb%d", i+1))
		if change != nil {
			change(&cfg)
		}
		configs = append(configs, cfg)
		join = append(join, cfg.Bind)
	}
	rand.Shuffle(size, func(i, j int) { configs[i], configs[j] = configs[j], configs[i] })
	nodes := make([]*node, size)
	for i, cfg := range configs {
		cfg.Join = join
		nodes[i] = start(t, cfg)
	}
	t.Cleanup(func() { stopAll(nodes) })
	waitFormed(t, nodes)
	return nodes
}

// stopAll stops nodes together, which takes no longer than one: each waits for its
// goodbye to be heard.
func stopAll(nodes []*node) {
	var stopping sync.WaitGroup
	for _, n := range nodes {
		stopping.Go(n.Stop)
	}
	stopping.Wait()
}

func waitFormed(t testing.TB, nodes []*node) {
	t.Helper()
	eventually(t, waitLong, "all nodes are in one cluster with a leader", func() bool {
		for _, n := range nodes {
			if id, _ := n.leader(); id == "" || n.id.clusterID() != nodes[0].id.clusterID() || n.View().ClusterID == "" {
				return false
			}
		}
		return true
	})
}

// eventually polls until ok holds.
func eventually(t testing.TB, within time.Duration, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(within)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("not within %s: %s", within, what)
		}
	}
}

// skipRaftRace skips a test in which a member's address changes if the race detector
// looks: raft writes the new one under a lock that its replication does not take
// (updateLastAppended reads peer.ID, which stays the same).
func skipRaftRace(t *testing.T) {
	t.Helper()
	if raceDetector {
		t.Skip("raft reads a peer without its lock while the address is changed")
	}
}

// waitLong is for what takes elections, promotions or the wait for a silent node.
const waitLong = 2 * time.Minute

func addBackend(name string, port int) *state.AddBackend {
	return &state.AddBackend{Pool: state.DefaultPool, Backend: state.Backend{ID: NewID(), Name: name, Host: "127.0.0.1", Port: port}}
}

func propose(t testing.TB, n *node, op state.Op) state.Result {
	t.Helper()
	var result state.Result
	var err error
	id := NewID()
	eventually(t, waitLong, "a write is taken", func() bool { // an election may take longer than a write waits
		result, err = n.Propose(t.Context(), Write{Op: op, RequestID: id})
		return !errors.Is(err, ErrNoLeader) && !errors.Is(err, ErrUnknownOutcome)
	})
	if err != nil {
		t.Fatalf("cannot propose on %s: %v", n.cfg.Name, err)
	}
	return result
}

// openOnly opens a node that is not started.
func openOnly(t *testing.T, cfg Config) *Cluster {
	t.Helper()
	c, err := Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Stop)
	return c
}

// listenSilently accepts connections and never answers, as a stopped process does.
func listenSilently(t *testing.T) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l.Addr().(*net.TCPAddr).AddrPort()
}
