package cluster

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

// fakeDNS is what one node's resolver knows of one name, and when it came to know it.
type fakeDNS struct {
	began time.Time
	at    map[netip.Addr]time.Duration
}

func (d *fakeDNS) lookup(_ context.Context, host string) ([]netip.Addr, error) {
	var known []netip.Addr
	for addr, at := range d.at {
		if time.Since(d.began) >= at {
			known = append(known, addr)
		}
	}
	if len(known) == 0 {
		return nil, &net.DNSError{Err: "no such host", Name: host}
	}
	rand.Shuffle(len(known), func(i, j int) { known[i], known[j] = known[j], known[i] })
	return known, nil
}

// addressesOfOne returns addresses of this machine, with a port that is free on all of them.
func addressesOfOne(t *testing.T, count int) (addrs []netip.Addr, port string) {
	t.Helper()
	if runtime.GOOS != "linux" {
		t.Skip("needs more loopback addresses than one")
	}
	_, port, err := net.SplitHostPort(freeAddr(t))
	if err != nil {
		t.Fatal(err)
	}
	a, b := byte(1+rand.IntN(254)), byte(rand.IntN(256))
	for i := range count {
		addrs = append(addrs, netip.AddrFrom4([4]byte{127, a, b, byte(1 + i)}))
	}
	return addrs, port
}

// Twenty times, nodes start with one name, of which each one's resolver knows only the
// node's own record at first, or none, and the others one by one.
func TestNameThatIsCompletedLate(t *testing.T) {
	t.Parallel()
	for round := range 20 {
		t.Run(fmt.Sprint(round), func(t *testing.T) {
			t.Parallel()
			size := 3 + round%3
			addrs, port := addressesOfOne(t, size)
			nodes := make([]*node, size)
			for i, addr := range addrs {
				dns := &fakeDNS{began: time.Now(), at: map[netip.Addr]time.Duration{}}
				for _, other := range addrs {
					dns.at[other] = time.Duration(rand.Int64N(int64(3 * time.Second)))
				}
				if round%2 == 0 {
					dns.at[addr] = 0
				}
				cfg := newConfig(t, fmt.Sprintf("lb%d", i+1), "lb.test:"+port)
				cfg.Bind, cfg.Raft = net.JoinHostPort(addr.String(), port), net.JoinHostPort(addr.String(), "0")
				cfg.hooks.lookup = dns.lookup
				nodes[i] = start(t, cfg)
			}
			t.Cleanup(func() { stopAll(nodes) })
			waitFormed(t, nodes)
			if got := nodes[0].gossip.otherClusters(time.Now()); len(got) > 0 {
				t.Errorf("got %q, want no other cluster ever met", got)
			}
		})
	}
}

// A name that leads to nobody else founds nothing, however long that lasts; an address does.
func TestNobodyFoundsAloneByName(t *testing.T) {
	t.Parallel()
	addrs, port := addressesOfOne(t, 1)
	cfg := newConfig(t, "lb1", "lb1.test:"+port, "lb2.test:"+port)
	cfg.Bind, cfg.Raft = net.JoinHostPort(addrs[0].String(), port), net.JoinHostPort(addrs[0].String(), "0")
	cfg.hooks.lookup = (&fakeDNS{at: map[netip.Addr]time.Duration{addrs[0]: 0}}).lookup
	n := start(t, cfg)
	eventually(t, waitLong, "it says what it waits for", func() bool {
		return strings.Contains(n.degraded(), "waiting for another node: lb1.test:"+port+" leads to this node alone")
	})
	if id := n.id.clusterID(); id != "" {
		t.Errorf("it founded cluster %s", id)
	}
	n.Stop()
	cfg.Join = []string{cfg.Bind}
	waitFormed(t, []*node{start(t, cfg)})
}

func TestNamesMustHoldStill(t *testing.T) {
	now := time.Now()
	at := func(addrs ...string) (peers []peer) {
		for _, a := range addrs {
			peers = append(peers, peer{listed: listed{addr: netip.MustParseAddrPort(a), byName: true}})
		}
		return peers
	}
	two, three := at("10.0.0.1:1", "10.0.0.2:1"), at("10.0.0.3:1", "10.0.0.1:1", "10.0.0.2:1")
	again := at("10.0.0.2:1", "10.0.0.1:1", "10.0.0.3:1")
	one, each := []JoinTarget{{"lb.test", 1}}, []JoinTarget{{"lb1", 1}, {"lb2", 1}, {"lb3", 1}}
	founds := func(s *steady, targets []JoinTarget, peers []peer, after time.Duration) bool {
		next := step{found: true}
		s.hold(&next, targets, peers, now.Add(after))
		return next.found
	}
	var s steady
	for _, test := range []struct {
		peers []peer
		after time.Duration
		want  bool
	}{
		{two, 0, false}, {two, namesSteady - 1, false}, {three, namesSteady, false},
		{again, 2*namesSteady - 1, false}, {again, 2 * namesSteady, true},
	} {
		if got := founds(&s, one, test.peers, test.after); got != test.want {
			t.Errorf("%d addresses after %s: got founding %v, want %v", len(test.peers), test.after, got, test.want)
		}
	}
	if !founds(&steady{}, each, three, 0) {
		t.Error("a name for each node must hold still")
	}
	if founds(&steady{}, each, two, 0) {
		t.Error("three names of two nodes need not hold still")
	}
	literal := slices.Clone(two)
	for i := range literal {
		literal[i].byName = false
	}
	if !founds(&steady{}, one, literal, 0) {
		t.Error("addresses must hold still")
	}
}

// An address that a name gives, too, is by name, in whatever order.
func TestAddressThatIsListedTwice(t *testing.T) {
	addr := netip.MustParseAddr("10.0.0.1")
	look := (&fakeDNS{at: map[netip.Addr]time.Duration{addr: 0}}).lookup
	for _, list := range [][]JoinTarget{{{"10.0.0.1", 1}, {"lb.test", 1}}, {{"lb.test", 1}, {"10.0.0.1", 1}}} {
		all := resolve(t.Context(), list, look)
		if len(all) != 1 || !all[0].byName || all[0].addr.Addr() != addr {
			t.Errorf("%v: got %+v, want one address by name", list, all)
		}
	}
}

// A resolver that never answers keeps no node from starting, nor from serving what it kept.
func TestStartWaitsForNoName(t *testing.T) {
	t.Parallel()
	n := startCluster(t, 1, nil)[0]
	propose(t, n, addBackend("web-1", 3001))
	n.Stop()
	answers := make(chan struct{})
	defer close(answers)
	cfg := n.cfg
	cfg.Join = []string{"lb1.test", "lb2.test"}
	cfg.hooks.lookup = func(context.Context, string) ([]netip.Addr, error) {
		<-answers
		return nil, errNotLeader
	}
	again := start(t, cfg)
	if again.View().Digest() != n.View().Digest() {
		t.Error("got another view than it kept")
	}
	fresh := newConfig(t, "lb2", cfg.Join...)
	fresh.hooks = cfg.hooks
	if got := start(t, fresh); got.View().Index != 0 {
		t.Error("a new node has a view")
	}
}

// Two clusters with one secret do not merge, and both say so.
func TestForeignClusterIsNamed(t *testing.T) {
	t.Parallel()
	one, other := startCluster(t, 1, nil)[0], startCluster(t, 2, nil)
	eventually(t, waitLong, "both say so in their status", func() bool {
		one.gossip.join(other[0].gossip.address()) // as a join list that was completed late would have it
		return warns(t, one, "another cluster is there, "+other[0].id.clusterID()+": lb1 at ") &&
			warns(t, other[1], "another cluster is there, "+one.id.clusterID()+": lb1 at "+one.gossip.address().String())
	})
}

// warns says whether one of the warnings in a node's status holds the words.
func warns(t *testing.T, n *node, words string) bool {
	return slices.ContainsFunc(n.Status(t.Context()).Warnings, func(w string) bool { return strings.Contains(w, words) })
}

func TestForeignersAreForgotten(t *testing.T) {
	var f foreigners
	now, cluster := time.Now(), NewID()
	addr := netip.MustParseAddrPort("10.0.0.1:7946")
	f.note(NewID(), foreigner{"lb1", cluster, addr, now})
	f.note("no id", foreigner{"lb2", cluster, addr, now})
	f.note(NewID(), foreigner{"bad\x1bname", cluster, addr, now})
	for range 2 * maxForeign {
		f.note(NewID(), foreigner{"lb3", cluster, addr, now.Add(-time.Hour)})
	}
	none := func(netip.AddrPort) bool { return false }
	if got := f.problems(NewID(), none, now); len(got) != 1 || strings.Contains(got[0], "lb2") || strings.Contains(got[0], "bad") || strings.Contains(got[0], "lb3") {
		t.Errorf("got %q, want one cluster with lb1", got)
	}
	if got := f.problems(cluster, none, now); len(got) != 0 {
		t.Errorf("got %q of this node's own cluster", got)
	}
	f.note(NewID(), foreigner{"lb1", cluster, addr, now})
	if got := f.problems(NewID(), func(at netip.AddrPort) bool { return at == addr }, now); len(got) != 0 {
		t.Errorf("got %q although a node of this cluster is there now", got)
	}
	if len(f.met) != 0 {
		t.Errorf("got %d remembered, want none", len(f.met))
	}
}
