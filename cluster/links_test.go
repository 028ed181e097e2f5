package cluster

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-msgpack/v2/codec"
	"github.com/hashicorp/memberlist"

	"lbnode/state"
)

// cutGossip makes what a node sends to some addresses be lost; nil mends all.
func cutGossip(n *node, cut func(addr string, tcp bool) bool) {
	if cut == nil {
		n.gossip.transport.cut.Store(nil)
		return
	}
	n.gossip.transport.cut.Store(&cut)
}

// UDP is lost in one direction of one link: nobody is given up, and the node at its
// end names the link.
func TestBlockedUDPIsNamed(t *testing.T) {
	t.Parallel()
	nodes := startCluster(t, 3, nil)
	from, to := nodes[0], nodes[1]
	cutGossip(from, func(addr string, tcp bool) bool { return !tcp && addr == to.cfg.Bind })
	want := fmt.Sprintf("UDP %d blocked from %s to %s", to.gossip.address().Port(), from.cfg.Name, to.cfg.Name)
	says := func(n *node) []string {
		return slices.DeleteFunc(n.report().Problems, func(p string) bool { return !strings.HasPrefix(p, "UDP") })
	}
	eventually(t, 2*waitLong, "the node that hears nothing names the link", func() bool { return slices.Equal(says(to), []string{want}) })
	if got := append(says(nodes[2]), says(from)...); len(got) > 0 {
		t.Errorf("got %q from the others, want nothing", got)
	}
	if s := nodes[2].Status(t.Context()); !slices.Contains(s.Warnings, to.cfg.Name+": "+want) {
		t.Errorf("got warnings %q, want the link", s.Warnings)
	}
	for _, n := range nodes {
		if got := len(n.gossip.alive()); got != 3 {
			t.Errorf("%s counts %d living members, want 3", n.cfg.Name, got)
		}
	}
	cutGossip(from, nil)
	eventually(t, waitLong, "it complains no more", func() bool { return len(says(to)) == 0 })
}

func TestSilenceIsOfThoseWhoLived(t *testing.T) {
	one := member{ID: "one", Addr: netip.MustParseAddrPort("127.0.0.1:1")}
	two := member{ID: "two", Addr: netip.MustParseAddrPort("127.0.0.1:2")}
	var w udpWatch
	now := time.Now()
	// run looks every second for so long while some are heard.
	run := func(seconds int, living, heard []member) []member {
		var silent []member
		for range seconds {
			now = now.Add(time.Second)
			for _, m := range heard {
				w.note(m.Addr, now)
			}
			silent = w.silent(living, now)
		}
		return silent
	}
	both := []member{one, two}
	for _, test := range []struct {
		what          string
		seconds       int
		living, heard []member
		want          []member
	}{
		{"both just came", 11, both, nil, nil},
		{"one is heard late", 1, both, []member{one}, []member{two}},
		{"both are heard again", 1, both, both, nil},
		{"two is silent, not for long", 10, both, []member{one}, nil},
		{"two is silent for long", 1, both, []member{one}, []member{two}},
		{"two died", 1, []member{one}, []member{one}, nil},
		{"two came back", 11, both, []member{one}, nil},
		{"two is silent again", 1, both, []member{one}, []member{two}},
	} {
		got := run(test.seconds, test.living, test.heard)
		if !slices.EqualFunc(got, test.want, func(a, b member) bool { return a.ID == b.ID }) {
			t.Errorf("%s: got %v silent, want %v", test.what, got, test.want)
		}
	}
	now = now.Add(time.Minute) // this process was stopped
	if got := run(1, both, nil); len(got) > 0 {
		t.Errorf("after a pause of its own: got %v silent, want nobody", got)
	}
	w.note(netip.MustParseAddrPort("127.0.0.1:3"), now)
	if got := len(w.heard); got != 2 {
		t.Errorf("got %d addresses kept, want those of the members", got)
	}
}

// TestPartitionHeals cuts one node off from the gossip of the others until each side
// has given the other up.
func TestPartitionHeals(t *testing.T) {
	t.Parallel()
	nodes := startCluster(t, 3, nil)
	lone, rest := nodes[0], nodes[1:]
	seen := func(count int) func() bool {
		return func() bool {
			return len(lone.gossip.alive()) == count && len(rest[0].gossip.alive()) == max(2, count) && len(rest[1].gossip.alive()) == max(2, count)
		}
	}
	eventually(t, waitLong, "all see one another", seen(3))
	began := time.Now()
	cutGossip(lone, func(string, bool) bool { return true })
	for _, n := range rest {
		cutGossip(n, func(addr string, _ bool) bool { return addr == lone.cfg.Bind })
	}
	eventually(t, waitLong, "each side has given the other up", seen(1))
	t.Logf("given up after %s", time.Since(began).Round(time.Millisecond))
	began = time.Now()
	for _, n := range nodes {
		cutGossip(n, nil)
	}
	eventually(t, waitLong, "all see one another again", seen(3))
	t.Logf("healed after %s", time.Since(began).Round(time.Millisecond))
}

func TestDeathIsNoticed(t *testing.T) {
	t.Parallel()
	nodes := startCluster(t, 3, nil)
	dead := nodes[0]
	eventually(t, waitLong, "all see one another", func() bool {
		return len(nodes[1].gossip.alive()) == 3 && len(nodes[2].gossip.alive()) == 3
	})
	began := time.Now()
	dead.crash()
	eventually(t, waitLong, "the others know it as failed", func() bool {
		one, _ := nodes[1].gossip.find(dead.ID())
		two, _ := nodes[2].gossip.find(dead.ID())
		return one.State == Failed && two.State == Failed
	})
	t.Logf("known after %s", time.Since(began).Round(time.Millisecond))
}

// A listed peer is tried for ever, whoever it turns out to be.
func TestListedPeerIsMetWhenItComes(t *testing.T) {
	t.Parallel()
	first := newConfig(t, "lb1")
	n := start(t, first)
	waitFormed(t, []*node{n})
	n.Stop()
	late := newConfig(t, "late")
	first.Join = []string{first.Bind, late.Bind}
	n = start(t, first)
	waitFormed(t, []*node{n})
	late.Join = []string{late.Bind, freeAddr(t)} // it knows nothing of the first
	peer := start(t, late)
	eventually(t, waitLong, "they have met", func() bool { _, met := n.gossip.at(peer.gossip.address()); return met })
}

func TestLostMembersAreTriedSoonAndThenSometimes(t *testing.T) {
	t.Parallel()
	n := startCluster(t, 1, nil)[0]
	now := time.Now()
	addrs := map[string]netip.AddrPort{}
	for i, m := range []member{
		{ID: "late", State: Failed, Since: now.Add(-removeDeadAfter + time.Minute)},
		{ID: "long gone", State: Failed, Since: now.Add(-100 * removeDeadAfter)},
		{ID: "stopped", State: Left, Since: now},
		{ID: "replaced", State: Failed, Since: now},
		{ID: "replacing", State: Alive, Since: now},
	} {
		m.Addr = netip.AddrPortFrom(netip.MustParseAddr("192.0.2.1"), uint16(min(i, 3)+1)) // the last two share one
		m.ClusterID = n.id.clusterID()
		addrs[m.ID] = m.Addr
		n.gossip.mu.Lock()
		n.gossip.members[m.ID] = m
		n.gossip.mu.Unlock()
	}
	for all, want := range map[bool][]netip.AddrPort{
		false: {addrs["late"]},
		true:  {addrs["late"], addrs["long gone"], addrs["stopped"]},
	} {
		got := n.lost(now, all)
		slices.SortFunc(got, netip.AddrPort.Compare)
		if !slices.Equal(got, want) {
			t.Errorf("all %v: got %v, want %v", all, got, want)
		}
	}
}

// below opens a transport with nobody but the test to read from it.
func below(t *testing.T) *gossipTransport {
	t.Helper()
	listening, err := listenGossip("127.0.0.1:0", &memberlist.NetTransportConfig{Logger: newLibraryLog(slog.New(slog.DiscardHandler)).std()})
	if err != nil {
		t.Fatal(err)
	}
	transport := newGossipTransport(listening, nil, false, func(netip.AddrPort, time.Time) {}, slog.New(slog.DiscardHandler))
	t.Cleanup(func() { transport.Shutdown() })
	return transport
}

func dial(t *testing.T, transport *gossipTransport) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", transport.GetAutoBindPort()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(waitLong))
	return conn
}

// So many connections are served at once, and who opens more, from one address, loses
// the oldest: a member from another is served all the same.
func TestGossipServesOnlySoManyAtOnce(t *testing.T) {
	t.Parallel()
	transport := below(t)
	var served, dialed []net.Conn
	open := func() {
		dialed = append(dialed, dial(t, transport))
		served = append(served, <-transport.StreamCh())
	}
	open()
	member, err := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}).Dial("tcp", dialed[0].RemoteAddr().String())
	if err != nil {
		t.Skipf("cannot come from another address: %v", err)
	}
	defer member.Close()
	<-transport.StreamCh()
	for range maxGossipPeer {
		open()
	}
	if _, err := dialed[0].Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("got %v for the oldest, want it closed: one address may have %d", err, maxGossipPeer)
	}
	for range 3 * maxGossipConns {
		open()
		served[len(served)-1].Close()
		served[len(served)-1].Close() // frees one place, not two
	}
	member.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	if _, err := member.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("got %v for a member, want it served on", err)
	}
}

func TestGossipReadsOnlySoMuch(t *testing.T) {
	t.Parallel()
	transport := below(t)
	from := dial(t, transport)
	conn := <-transport.StreamCh()
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		from.Write(append([]byte(gossipHead+"\x00"), make([]byte, maxGossipRead)...)) // fails once the other side is closed
	}()
	n, err := io.Copy(io.Discard, conn)
	if n != maxGossipRead || err != errTooMuchGossip {
		t.Errorf("got %d bytes and %v, want %d", n, err, maxGossipRead)
	}
	conn.Close()
	<-sent
}

// gossipHead is how every gossip connection begins; its kind follows.
const gossipHead = "\xf4\x06lbnode"

func TestGossipIsScreened(t *testing.T) {
	exchange := func(nodes, state int) string {
		var out bytes.Buffer
		header := struct {
			Nodes, UserStateLen int
			Join                bool
		}{nodes, state, true}
		if err := codec.NewEncoder(&out, &codec.MsgpackHandle{}).Encode(header); err != nil {
			t.Fatal(err)
		}
		return gossipHead + "\x06" + out.String()
	}
	for _, test := range []struct {
		name, text string
		want       error
	}{
		{"a ping", gossipHead + "\x00 and more", nil},
		{"encrypted", gossipHead + "\x0a and more", nil},
		{"an exchange", exchange(maxGossipNodes, 0) + strings.Repeat("x", 2*maxGossipHead), nil},
		{"an exchange of too many", exchange(maxGossipNodes+1, 0), errNotGossip},
		{"an exchange with a state", exchange(1, 1), errNotGossip},
		{"an exchange that begins without end", gossipHead + "\x06\x81\xdb\xff\xff\xff\xff" + strings.Repeat("x", 2*maxGossipHead), errNotGossip},
		{"compressed", gossipHead + "\x09", errNotGossip},
		{"a user's message", gossipHead + "\x08", errNotGossip},
		{"no label", "\x06", io.ErrUnexpectedEOF},
		{"no label, but more", "\x06\x83\xa5Nodes", errNotGossip},
		{"another label", "\xf4\x05other\x00", errNotGossip},
		{"a label cut short", "\xf4\x06lb", errNotGossip},
		{"nothing", "", io.EOF},
	} {
		from, err := screen(strings.NewReader(test.text))
		if !errors.Is(err, test.want) {
			t.Errorf("%s: got %v, want %v", test.name, err, test.want)
		}
		if err != nil {
			continue
		}
		if got, err := io.ReadAll(from); err != nil || string(got) != test.text {
			t.Errorf("%s: got %d bytes and %v after the look, want all %d", test.name, len(got), err, len(test.text))
		}
	}
}

// Its listeners must not wait for ever for a reader that is gone.
func TestGossipTransportEndsWithoutAReader(t *testing.T) {
	t.Parallel()
	transport := below(t)
	conn := dial(t, transport)
	packet, err := net.Dial("udp", conn.RemoteAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer packet.Close()
	for range 3 {
		packet.Write([]byte("x"))
		dial(t, transport)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		transport.Shutdown()
	}()
	select {
	case <-ended:
	case <-time.After(waitLong):
		t.Error("it waits for a reader")
	}
}

// A node that is sent the whole state again and again falls behind.
func TestRepeatedSnapshotsAreWarnedOf(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	f := newFSM(func(*state.View) {}, func(error) {})
	c := &Cluster{fsm: f, log: slog.New(slog.NewTextHandler(&log, nil))}
	var w selfWatch
	now := time.Now()
	look := func(after time.Duration, installs int) bool {
		for range installs {
			data, err := f.machine.Snapshot().Encode()
			if err == nil {
				err = f.Restore(io.NopCloser(bytes.NewReader(data)))
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		now = now.Add(after)
		log.Reset()
		c.watchSnapshots(&w, now)
		return strings.Contains(log.String(), "level=WARN")
	}
	for _, test := range []struct {
		after    time.Duration
		installs int
		want     bool
	}{{0, 0, false}, {time.Second, 1, false}, {time.Minute, 0, false}, {time.Minute, 1, true}, {time.Hour, 1, false}, {time.Hour, 2, true}} {
		if got := look(test.after, test.installs); got != test.want {
			t.Errorf("%d after %s: got warned %v, want %v", test.installs, test.after, got, test.want)
		}
	}
}

func FuzzGossipHead(f *testing.F) {
	f.Add([]byte(gossipHead + "\x06\x83\xa5Nodes\x01\xacUserStateLen\x00\xa4Join\xc3"))
	f.Fuzz(func(t *testing.T, text []byte) {
		from, err := screen(bytes.NewReader(text))
		if err != nil {
			return
		}
		if got, err := io.ReadAll(from); err != nil || !bytes.Equal(got, text) {
			t.Errorf("got %q and %v after the look, want %q", got, err, text)
		}
	})
}
