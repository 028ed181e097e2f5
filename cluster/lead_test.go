package cluster

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"lbnode/state"
)

func TestRefusedSeedDoesNotKeepTheLeaderFromItsDuties(t *testing.T) {
	t.Parallel()
	cfg := newConfig(t, "lb1")
	cfg.Seed = []state.Backend{addBackend("a", 3001).Backend, addBackend("b", 3001).Backend}
	first := start(t, cfg)
	second := start(t, newConfig(t, "lb2", first.cfg.Bind))
	waitFormed(t, []*node{first, second})
	eventually(t, waitLong, "the second node votes", func() bool { return voters(first.servers()) == 2 })
}

// A disk so slow that a lone node is elected before its founding is on disk must
// not leave the cluster without its id.
func TestNoOfficeBeforeTheFoundingIsOnDisk(t *testing.T) {
	t.Parallel()
	c := openOnly(t, newConfig(t, "lb1"))
	if err := c.id.set("x", true); err != nil {
		t.Fatal(err)
	}
	members := foundingMembers(c.hello(), c.raftAddr().String(), nil)
	if err := c.raft().BootstrapCluster(raft.Configuration{Servers: members}).Error(); err != nil {
		t.Fatal(err)
	}
	eventually(t, waitLong, "the node leads", func() bool { return c.raft().State() == raft.Leader })
	if err := c.takeOffice(t.Context()); err == nil {
		t.Error("the leader took office in a cluster that has no id yet")
	}
	if err := c.id.set("x", false); err != nil {
		t.Fatal(err)
	}
	if err := c.takeOffice(t.Context()); err != nil || c.fsm.view().ClusterID != "x" {
		t.Errorf("got %v and cluster %q, want the office taken once it is on disk", err, c.fsm.view().ClusterID)
	}
}

func TestReportsOfAnEarlierTenureAreForgotten(t *testing.T) {
	t.Parallel()
	n := startCluster(t, 1, nil)[0]
	n.mu.Lock() // so that it makes no other report
	defer n.mu.Unlock()
	self := n.id.nodeID()
	n.observers.put(observeCall{From: self, Observations: []Observation{{BackendID: "b"}}}, "lb1", time.Now())
	n.leading <- false
	n.leading <- true
	eventually(t, 5*time.Second, "the report is forgotten", func() bool {
		_, kept := n.observers.fresh([]string{self}, time.Now())[self]
		return !kept
	})
}

// Two of three machines come back with one another's address, and a new node with
// them.
func TestNodesSwapAddresses(t *testing.T) {
	skipRaftRace(t)
	t.Parallel()
	nodes := startCluster(t, 3, nil)
	stopAll(nodes)
	one, two := &nodes[0].cfg, &nodes[1].cfg
	one.Raft, two.Raft = two.Raft, one.Raft
	for i, n := range nodes {
		nodes[i] = start(t, n.cfg)
	}
	nodes = append(nodes, start(t, newConfig(t, "lb4", nodes[2].cfg.Bind)))
	t.Cleanup(func() { stopAll(nodes) })
	eventually(t, waitLong, "all vote under the addresses that they have now", func() bool {
		servers := nodes[2].servers()
		return !slices.ContainsFunc(nodes, func(n *node) bool {
			s, ok := findServer(servers, n.ID())
			return !ok || s.Suffrage != raft.Voter || string(s.Address) != n.cfg.Raft
		})
	})
	propose(t, nodes[1], addBackend("web-1", 3001))
}

// A machine that dies and comes back at another address, under another name and
// with another join list, is the same node.
func TestNodeMovesAfterACrash(t *testing.T) {
	skipRaftRace(t)
	t.Parallel()
	nodes := startCluster(t, 3, nil)
	nodes[0].crash()
	cfg := nodes[0].cfg
	cfg.Name, cfg.Bind, cfg.Raft = "renamed", freeAddr(t), freeAddr(t)
	cfg.Join = []string{nodes[1].cfg.Bind, cfg.Bind}
	nodes[0] = start(t, cfg)
	// The others must first give the old address up.
	eventually(t, 2*waitLong, "the members have its new address and are three", func() bool {
		return !slices.ContainsFunc(nodes, func(n *node) bool {
			s, _ := findServer(n.servers(), nodes[0].ID())
			return string(s.Address) != cfg.Raft || len(n.servers()) != 3 || !n.Status(t.Context()).Healthy
		})
	})
}

// A node that stops waits for what it has begun, and must not wait for each silent
// peer in turn.
func TestSilentPeersAreTriedTogether(t *testing.T) {
	t.Parallel()
	c := openOnly(t, newConfig(t, "lb1"))
	var silent []netip.AddrPort
	for range 8 {
		silent = append(silent, listenSilently(t))
	}
	began := time.Now()
	c.gossip.joinAll(silent)
	if got := time.Since(began); got > 10*time.Second {
		t.Errorf("8 silent peers took %s", got)
	}
}

func TestForgetsTheDeadThatRaftHasRemoved(t *testing.T) {
	t.Parallel()
	n := startCluster(t, 1, nil)[0]
	for id, since := range map[string]time.Duration{"long": rejoinEvery + time.Second, "late": time.Second} {
		n.gossip.mu.Lock()
		n.gossip.members[id] = member{
			ID: id, State: Failed, Since: time.Now().Add(-since),
			Addr: netip.MustParseAddrPort("127.0.0.1:1"), meta: meta{ClusterID: n.id.clusterID()},
		}
		n.gossip.mu.Unlock()
	}
	n.forgetGone()
	if _, known := n.gossip.find("long"); known {
		t.Error("one that has been gone for a while is still shown")
	}
	if _, known := n.gossip.find("late"); !known {
		t.Error("one that died of late is forgotten too")
	}
}
