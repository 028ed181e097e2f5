package cluster

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

func TestPlaceYields(t *testing.T) {
	a, b, loopback := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("127.0.0.1")
	for _, test := range []struct {
		name      string
		now, next place
		lost      bool
		want      int
	}{
		{"the same", place{ip: a, worth: towardsListed}, place{ip: a, worth: towardsListed}, false, 0},
		{"a network at last", place{ip: loopback}, place{ip: a, worth: defaultRoute}, false, 1},
		{"no network any more", place{ip: a, worth: defaultRoute}, place{ip: loopback}, true, 0},
		{"names resolve at last", place{ip: a, worth: defaultRoute}, place{ip: b, worth: towardsListed}, false, movesAfter},
		{"names do not resolve any more", place{ip: a, worth: towardsListed}, place{ip: b, worth: defaultRoute}, false, 0},
		{"another lease", place{ip: a, worth: towardsListed}, place{ip: b, worth: defaultRoute}, true, movesAfter},
		{"another route", place{ip: a, worth: towardsListed}, place{ip: b, worth: towardsListed}, false, switchesAfter},
		{"said by somebody", place{ip: a, worth: given}, place{ip: b, worth: towardsListed}, true, 0},
	} {
		if got := test.now.yieldsTo(test.next, func(netip.Addr) bool { return test.lost }); got != test.want {
			t.Errorf("%s: got %v, want %v", test.name, got, test.want)
		}
	}
}

func TestChoosePlace(t *testing.T) {
	at := func(addrs ...string) (all []listed) {
		for _, a := range addrs {
			all = append(all, listed{name: a, addr: netip.MustParseAddrPort(a)})
		}
		return all
	}
	for _, test := range []struct {
		name    string
		listed  []listed
		members []netip.AddrPort
		want    worth
	}{
		{"towards another", at("127.0.0.1:1", "127.0.0.9:2"), nil, towardsListed},
		{"towards a member", at("127.0.0.9:7946"), []netip.AddrPort{netip.MustParseAddrPort("127.0.0.9:2")}, towardsMembers},
		{"its own", at("127.0.0.1:1"), nil, inJoinList},
		{"a member on the same machine", nil, []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:2")}, inJoinList},
	} {
		got := choosePlace(test.listed, test.members, 7946, netip.Addr{})
		if got.worth != test.want || got.ip != netip.MustParseAddr("127.0.0.1") {
			t.Errorf("%s: got %+v, want 127.0.0.1 worth %d", test.name, got, test.want)
		}
	}
	a, b := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.1.0.1")
	r := routes{from: []netip.Addr{a, b}, count: map[netip.Addr]int{a: 1, b: 1}, first: map[netip.Addr]string{a: "x", b: "y"}}
	for now, want := range map[netip.Addr]string{a: "x", b: "y", {}: "x"} {
		if _, to := r.most(now); to != want {
			t.Errorf("two ways that are as good, now at %v: got that to %s, want %s", now, to, want)
		}
	}
	r.count[b]++
	if ip, _ := r.most(a); ip != b {
		t.Errorf("got %v, want the address that reaches more", ip)
	}
	// Its own name is often at 127.0.1.1, which says nothing of where others reach it.
	if got := choosePlace(at("127.0.1.1:7946"), nil, 7946, netip.Addr{}); got.worth > defaultRoute {
		t.Errorf("got %+v by a loopback address of its own", got)
	}
}

// Where two routes share the load, the machine says now this and now that of its own address. The
// node stays; it moves only if the machine goes on preferring the other.
func TestRoutesThatShareTheLoadMoveNobody(t *testing.T) {
	a, b := place{ip: netip.MustParseAddr("10.0.0.1"), worth: towardsListed}, place{ip: netip.MustParseAddr("10.1.0.1"), worth: towardsListed}
	held := func(netip.Addr) bool { return false }
	now, seen, moves := a, wish{}, 0
	look := func(next place) {
		if looks := now.yieldsTo(next, held); looks == 0 {
			seen = wish{}
		} else if seen.again(next) >= looks {
			now, seen, moves = next, wish{}, moves+1
		}
	}
	for range 24 * 60 * 60 { // a day
		look([]place{a, b}[rand.IntN(2)])
	}
	if moves > 0 {
		t.Errorf("got %d moves, want none", moves)
	}
	for range switchesAfter {
		look(b)
	}
	if now != b {
		t.Errorf("got %v, want %v, which the machine prefers for good", now, b)
	}
}

// movable starts nodes that are reached at any loopback address, as a machine is at any of its own.
func movable(t *testing.T, size int) []*node {
	t.Helper()
	var join []string
	for range size {
		join = append(join, freeAddr(t))
	}
	nodes := make([]*node, size)
	for i := range nodes {
		cfg := newConfig(t, fmt.Sprintf("lb%d", i+1), join...)
		cfg.Bind, cfg.Raft = strings.TrimPrefix(join[i], "127.0.0.1"), strings.TrimPrefix(cfg.Raft, "127.0.0.1")
		cfg.Insecure, cfg.Advertise = true, "127.0.0.1"
		nodes[i] = start(t, cfg)
	}
	t.Cleanup(func() { stopAll(nodes) })
	waitFormed(t, nodes)
	return nodes
}

// A node whose machine gets one address after another leaves all the same, and nobody misses it.
func TestNodeMovesWhileItLeaves(t *testing.T) {
	t.Parallel()
	skipRaftRace(t)
	addrs, _ := addressesOfOne(t, 2)
	nodes := movable(t, 4)
	leaver, others := nodes[3], nodes[:3]
	eventually(t, waitLong, "all is well", func() bool { return leaver.Status(t.Context()).Healthy })
	left, moved := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(moved)
		for i := 0; ; i++ {
			select {
			case <-left:
				return
			default:
				leaver.moveTo(place{ip: addrs[i%2], why: "the test says so", worth: given})
			}
		}
	}()
	err := leaver.Leave(t.Context())
	close(left)
	<-moved
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, waitLong, "the others are well without it", func() bool {
		return !slices.ContainsFunc(others, func(n *node) bool {
			s := n.Status(t.Context())
			return !s.Healthy || len(s.Nodes) != len(others)
		})
	})
}

// A node that runs moves, be it the leader: the others follow, no member comes or goes, and
// writes go on.
func TestNodeMovesWhileItRuns(t *testing.T) {
	t.Parallel()
	skipRaftRace(t)
	addrs, _ := addressesOfOne(t, 3)
	nodes := movable(t, 3)
	for i, n := range nodes {
		n.moveTo(place{ip: addrs[i], why: "the test says so", worth: given})
		eventually(t, waitLong, "all are healthy and know where it is", func() bool {
			return !slices.ContainsFunc(nodes, func(other *node) bool {
				s := other.Status(t.Context())
				return !s.Healthy || !slices.ContainsFunc(s.Nodes, func(m NodeStatus) bool {
					return m.Addr == n.gossip.address().String() && m.RaftAddr == n.raftAddr().String() && m.Voter
				})
			})
		})
		eventually(t, waitLong, "raft knows it", func() bool {
			s, _ := findServer(nodes[0].servers(), n.ID())
			return string(s.Address) == n.raftAddr().String()
		})
		propose(t, n, addBackend(n.cfg.Name, 3001+i))
	}
	if got := len(nodes[0].servers()); got != 3 {
		t.Errorf("got %d members, want 3", got)
	}
}
