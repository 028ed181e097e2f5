package cluster

import (
	"bytes"
	"context"
	"encoding/binary"
	"flag"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"
)

var hostileFor = flag.Duration("hostile", 2*time.Second, "how long hostile packets are sent, with a secret and without one")

// What a hostile peer may make a process of three nodes hold, at most. Measured with
// -hostile 3m: see DESIGN.md.
const (
	maxHostileHeap       = 512 << 20 // bytes above what it was before
	maxHostileGoroutines = 1000      // above one for each connection to gossip that is held open
)

// With a secret: whatever is sent to the ports, nobody gets in, nobody drops out and
// the nodes hold no more than they may.
func TestHostilePacketsWithSecret(t *testing.T) {
	nodes := startCluster(t, 3, func(c *Config) { c.Secrets = testSecrets('s') })
	own := testKeys(t, "n1", 's').keyring
	a := newAttack(t, nodes, own, testKeys(t, "n1", 'x').keyring, nil)
	a.besiege(t)
	for _, n := range nodes {
		if got := len(n.gossip.all()); got != 3 {
			t.Errorf("gossip of %s knows %d nodes, want 3", n.cfg.Name, got)
		}
	}
	eventually(t, 2*waitLong, "the cluster is healthy", func() bool { return nodes[0].Status(t.Context()).Healthy })
}

// Without a secret, gossip believes what it can read, so that mangled packets make
// nodes that are not there. They get no further.
func TestHostilePacketsWithoutSecret(t *testing.T) {
	nodes := startCluster(t, 3, nil)
	newAttack(t, nodes, testKeys(t, "n1", 'x').keyring, nil).besiege(t)
}

// attack sends hostile packets to all ports of the nodes.
type attack struct {
	nodes   []*node
	seed    uint64
	packets [][]byte // valid ones, to be mangled
	streams [][]byte
	sent    atomic.Int64
	failed  atomic.Int64 // connections that could not be opened or were closed early
}

// newAttack records valid packets of gossip with each of the keyrings, nil for none.
func newAttack(t *testing.T, nodes []*node, keyrings ...*memberlist.Keyring) *attack {
	t.Helper()
	a := &attack{nodes: nodes, seed: rand.Uint64()}
	for _, keyring := range keyrings {
		g := haunt(t, nodes[0].id.clusterID(), keyring, nil)
		for _, packet := range g.recorder.sent() {
			a.packets = append(a.packets, packet)
			if label := []byte("\xf4\x06lbnode"); bytes.HasPrefix(packet, label) {
				a.packets = append(a.packets, packet[len(label):])
			}
		}
		for _, stream := range g.recorder.streams {
			a.streams = append(a.streams, stream.Bytes())
		}
	}
	return a
}

// besiege attacks for as long as -hostile says, watches what the process holds, and
// then looks at what is left.
func (a *attack) besiege(t *testing.T) {
	t.Helper()
	t.Logf("seed %d", a.seed)
	want := memberIDs(a.nodes[0])
	runtime.GC()
	before := measure()
	ctx, cancel := context.WithTimeout(t.Context(), *hostileFor)
	defer cancel()
	var attacking sync.WaitGroup
	for i, way := range []func(context.Context, *rand.Rand){a.noise, a.noise, a.mangle, a.mangle, a.swell, a.drip, a.fallSilent} {
		attacking.Go(func() { way(ctx, rand.New(rand.NewPCG(a.seed, uint64(i)))) })
	}
	peak := before
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for ctx.Err() == nil {
		<-tick.C
		peak = peak.max(measure())
	}
	attacking.Wait()
	t.Logf("%d packets and streams, %d cut short; heap %d MiB before, %d MiB at most; goroutines %d before, %d at most",
		a.sent.Load(), a.failed.Load(), before.heap>>20, peak.heap>>20, before.goroutines, peak.goroutines)
	if peak.heap-before.heap > maxHostileHeap || peak.goroutines-before.goroutines > maxHostileGoroutines+maxHeld {
		t.Errorf("got %d MiB and %d goroutines more than before, want at most %d and %d", (peak.heap-before.heap)>>20, peak.goroutines-before.goroutines,
			maxHostileHeap>>20, maxHostileGoroutines+maxHeld)
	}
	a.checkLeft(t, want, before)
}

// checkLeft looks whether the nodes have let go of all, and still agree and write.
func (a *attack) checkLeft(t *testing.T, want map[string]string, before usage) {
	t.Helper()
	eventually(t, 2*waitLong, "the connections are gone", func() bool { return measure().goroutines < before.goroutines+100 })
	for i, n := range a.nodes {
		propose(t, n, addBackend(NewID()[:8], 3001+i))
	}
	eventually(t, 2*waitLong, "all are alive to one another and agree", func() bool {
		return !slices.ContainsFunc(a.nodes, func(n *node) bool {
			alive := n.gossip.alive()
			return n.View().Digest() != a.nodes[0].View().Digest() || slices.ContainsFunc(a.nodes, func(other *node) bool {
				return !slices.ContainsFunc(alive, func(m member) bool { return m.ID == other.ID() })
			})
		})
	})
	for _, n := range a.nodes {
		if got := memberIDs(n); !maps.Equal(got, want) {
			t.Errorf("raft of %s has the members %v, want %v", n.cfg.Name, got, want)
		}
	}
}

// memberIDs are Raft's members and their addresses.
func memberIDs(n *node) map[string]string {
	ids := map[string]string{}
	for _, s := range n.servers() {
		ids[string(s.ID)] = string(s.Address)
	}
	return ids
}

type usage struct {
	heap       uint64
	goroutines int
}

func measure() usage {
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return usage{heap: stats.HeapInuse, goroutines: runtime.NumGoroutine()}
}

func (u usage) max(other usage) usage {
	return usage{heap: max(u.heap, other.heap), goroutines: max(u.goroutines, other.goroutines)}
}

// each calls do about every millisecond until ctx is done.
func each(ctx context.Context, do func()) {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for ctx.Err() == nil {
		do()
		<-tick.C
	}
}

func (a *attack) target(rng *rand.Rand) *node { return a.nodes[rng.IntN(len(a.nodes))] }

// datagram sends one packet to the gossip of some node.
func (a *attack) datagram(rng *rand.Rand, packet []byte) {
	conn, err := net.Dial("udp", a.target(rng).cfg.Bind)
	if err != nil {
		a.failed.Add(1)
		return
	}
	defer conn.Close()
	if _, err := conn.Write(packet); err != nil {
		a.failed.Add(1)
	}
	a.sent.Add(1)
}

// stream sends bytes to a TCP port of some node and hangs up, at once or after the
// node has.
func (a *attack) stream(ctx context.Context, rng *rand.Rand, addr string, text []byte) {
	a.sent.Add(1)
	conn, err := net.DialTimeout("tcp", addr, callWithin)
	if err != nil {
		a.failed.Add(1)
		return
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(10 * time.Millisecond))
	if _, err := conn.Write(text); err != nil {
		a.failed.Add(1)
	}
	if rng.IntN(2) == 0 {
		io.Copy(io.Discard, conn)
	}
}

// noise sends random bytes, some after what the ports expect to come first.
func (a *attack) noise(ctx context.Context, rng *rand.Rand) {
	clusterID := a.nodes[0].id.clusterID()
	openings := []string{"", "", "C", "R", "R" + clusterID, "R" + NewID(), "\x16\x03\x01", "CPOST /node/v1/propose HTTP/1.1\r\nHost: x\r\n", "\xf4\x06lbnode", "\xf4\x06lbnode\x0a"}
	each(ctx, func() {
		n, text := a.target(rng), []byte(openings[rng.IntN(len(openings))])
		for range rng.IntN(1200) {
			text = append(text, byte(rng.Uint32()))
		}
		a.datagram(rng, text)
		a.stream(ctx, rng, n.cfg.Raft, text)
		a.stream(ctx, rng, n.cfg.Bind, text)
	})
}

// mangle sends valid packets with some bits changed or a part missing.
func (a *attack) mangle(ctx context.Context, rng *rand.Rand) {
	each(ctx, func() {
		for range 4 {
			a.datagram(rng, mangled(rng, a.packets))
		}
		a.stream(ctx, rng, a.target(rng).cfg.Bind, mangled(rng, a.streams))
	})
}

// mangled never returns a packet as it was.
func mangled(rng *rand.Rand, valid [][]byte) []byte {
	original := valid[rng.IntN(len(valid))]
	packet := bytes.Clone(original)
	switch way := rng.IntN(8); {
	case way == 0:
		packet = packet[:rng.IntN(len(packet))]
	case way == 1 && len(packet) > streamVersionAt:
		packet[packetVersionAt], packet[streamVersionAt] = 0, 0
	}
	for bytes.Equal(packet, original) {
		for range 1 + rng.IntN(4) {
			packet[rng.IntN(len(packet))] ^= 1 + byte(rng.IntN(255))
		}
	}
	return packet
}

// swell announces much more than it sends.
func (a *attack) swell(ctx context.Context, rng *rand.Rand) {
	huge := func(before string, size uint32, after string) []byte {
		return append(binary.BigEndian.AppendUint32([]byte(before), size), after...)
	}
	clusterID := a.nodes[0].id.clusterID()
	gossip := [][]byte{
		huge("\xf4\x06lbnode\x0a", 1<<32-1, "x"),                               // encrypted
		huge("\xf4\x06lbnode\x0a", 20<<20, "x"),                                // encrypted, just allowed
		huge("\xf4\x06lbnode\x06\x83\xa5Nodes\xce", 1<<20, ""),                 // members
		huge("\xf4\x06lbnode\x06\x81\xacUserStateLen\xce", 1<<32-1, ""),        // state
		huge("\xf4\x06lbnode\x08\x81\xaaUserMsgLen\xce", 20<<20, "x"),          // message
		huge("\xf4\x06lbnode\x09\x82\xa4Algo\x00\xa3Buf\xc6", 1<<32-1, "\x1f"), // compressed
	}
	raft := [][]byte{
		huge("\x16\x03\x01\xff\xff\x01", 1<<32-1, ""),
		huge("R"+clusterID+"\x00\x81\xa7Entries\xdd", 1<<32-1, "x"),
		huge("R"+clusterID+"\x00\x81\xa6Leader\xc6", 1<<32-1, "x"),
		huge("R"+clusterID+"\x02\x81\xa4Size\xce", 1<<32-1, "x"),
		[]byte("CPOST /node/v1/propose HTTP/1.1\r\nHost: x\r\nContent-Length: 9223372036854775807\r\n\r\n{"),
		[]byte("CPOST /" + string(bytes.Repeat([]byte{'x'}, 64<<10))),
	}
	each(ctx, func() {
		n := a.target(rng)
		a.datagram(rng, gossip[rng.IntN(len(gossip))])
		a.stream(ctx, rng, n.cfg.Bind, gossip[rng.IntN(len(gossip))])
		a.stream(ctx, rng, n.cfg.Raft, raft[rng.IntN(len(raft))])
	})
}

// maxHeld is how many connections drip and fallSilent hold open together.
const maxHeld = 3200

// drip feeds connections a byte at a time.
func (a *attack) drip(ctx context.Context, rng *rand.Rand) {
	hello := append([]byte("\x16\x03\x01\x3f\xff\x01\x00\x3f\xfb"), bytes.Repeat([]byte{3}, 1<<14)...)
	a.hold(ctx, rng, maxHeld/16, func(conn net.Conn, round int) error {
		_, err := conn.Write(hello[round%len(hello) : round%len(hello)+1])
		return err
	})
}

// fallSilent opens connections and sends nothing.
func (a *attack) fallSilent(ctx context.Context, rng *rand.Rand) {
	a.hold(ctx, rng, maxHeld-maxHeld/16, nil)
}

// hold keeps up to so many connections open, does something with one after another,
// and opens another for each that was closed.
func (a *attack) hold(ctx context.Context, rng *rand.Rand, count int, do func(conn net.Conn, round int) error) {
	held := make([]net.Conn, count)
	rounds := make([]int, count)
	defer func() {
		for _, conn := range held {
			if conn != nil {
				conn.Close()
			}
		}
	}()
	for i := 0; ctx.Err() == nil; i = (i + 1) % count {
		if i%8 == 0 {
			runtime.Gosched()
		}
		switch {
		case held[i] == nil || do == nil && rounds[i] > 0:
			if held[i] != nil {
				held[i].Close()
			}
			held[i], rounds[i] = a.open(rng), 0
		case do != nil && do(held[i], rounds[i]) != nil:
			held[i].Close()
			held[i] = nil
			a.failed.Add(1)
			continue
		}
		rounds[i]++
		pause(ctx, 200*time.Microsecond)
	}
}

// open connects to some port.
func (a *attack) open(rng *rand.Rand) net.Conn {
	n := a.target(rng)
	addr := n.cfg.Raft
	if rng.IntN(2) == 0 {
		addr = n.cfg.Bind
	}
	a.sent.Add(1)
	conn, err := net.DialTimeout("tcp", addr, callWithin)
	if err != nil {
		a.failed.Add(1)
		return nil
	}
	return conn
}
