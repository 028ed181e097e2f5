package cluster

import (
	"net/netip"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"
)

// mute lets a node gossip with those alone whom it joins: whatever it has to say
// stays in its queue.
func mute(c *memberlist.Config) {
	c.GossipInterval, c.ProbeInterval, c.PushPullInterval = time.Hour, time.Hour, 0
}

// Nodes whose news never leaves their queues become a cluster that agrees on health.
func TestUnsentNewsIsHeard(t *testing.T) {
	t.Parallel()
	nodes := startCluster(t, 3, func(cfg *Config) { cfg.hooks.gossip = mute })
	propose(t, nodes[0], addBackend("web-1", 3001))
	b := nodes[0].View().Pool("default").Backend("web-1")
	for _, n := range nodes {
		n.observe(b, true)
	}
	eventually(t, waitLong, "all say that it is healthy", func() bool {
		for _, n := range nodes {
			if pool := n.View().Pool("default"); pool == nil || !pool.Backend("web-1").Healthy() {
				return false
			}
		}
		return true
	})
	for _, teller := range nodes {
		sayUnheard(teller.gossip, func(m *meta) { m.HTTPAddr = "127.0.0.1:" + teller.cfg.Name[2:] })
	}
	eventually(t, waitLong, "all know of all what they said last", func() bool {
		for _, n := range nodes {
			for _, teller := range nodes {
				if m, _ := n.gossip.find(teller.ID()); m.HTTPAddr != "127.0.0.1:"+teller.cfg.Name[2:] || m.ClusterID != n.id.clusterID() {
					return false
				}
			}
		}
		return true
	})
}

// sayUnheard puts something in the queue and does not look what becomes of it.
func sayUnheard(g *gossip, change func(*meta)) {
	g.mu.Lock()
	change(&g.self)
	g.mu.Unlock()
	g.list.UpdateNode(time.Nanosecond)
}

// gossipAlone is the gossip of a node that is nothing else.
func gossipAlone(t *testing.T, name string, tune func(*memberlist.Config)) *gossip {
	t.Helper()
	id, err := openIdentity(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	g, err := newGossip(id, gossipConfig{
		bind: freeAddr(t), advertise: netip.MustParseAddr("127.0.0.1"), changed: func() {},
		self: meta{Name: name, RaftAddr: "127.0.0.1:1"}, tune: tune,
	}, testLog(t, name))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { g.stop("") })
	return g
}

// memberlist loses what a node says if another's message of the same length comes before
// it was sent, and the node had said something else just before.
func TestNewsLostInTheQueueIsHeard(t *testing.T) {
	t.Parallel()
	rarely := func(c *memberlist.Config) {
		c.GossipInterval, c.RetransmitMult, c.ProbeInterval, c.PushPullInterval = time.Second, 1, time.Hour, 0
	}
	often := func(c *memberlist.Config) {
		c.GossipInterval, c.RetransmitMult, c.ProbeInterval, c.PushPullInterval = time.Millisecond, 1, time.Hour, 0
	}
	one, two := gossipAlone(t, "lb1", rarely), gossipAlone(t, "lb2", often)
	if err := one.join(two.address()); err != nil {
		t.Fatal(err)
	}
	say := func(g *gossip, what string) { g.tell(func(m *meta) { m.AdminAddr = what }) }
	for range 5 {
		say(one, "nothing") // once that is sent, the queue is empty
		for _, what := range []string{"a", "b"} {
			sayUnheard(one, func(m *meta) { m.AdminAddr = what })
		}
		told := make(chan struct{})
		go func() { defer close(told); say(one, "c") }()
		say(two, "x")
		<-told
	}
	eventually(t, waitLong, "what was said last is heard", func() bool {
		m, _ := two.find(one.id.nodeID())
		return m.AdminAddr == "c"
	})
}

// A leader that has not heard that a node leaves would add it again as soon as it has removed it.
func TestLeavingIsHeardBeforeRemoval(t *testing.T) {
	t.Parallel()
	nodes := startCluster(t, 3, func(cfg *Config) { cfg.hooks.gossip = mute })
	leader, _ := nodes[0].leader()
	var leads, leaver *node
	for _, n := range nodes {
		if n.ID() == leader {
			leads = n
		} else {
			leaver = n
		}
	}
	eventually(t, waitLong, "the leader knows the node", func() bool {
		m, _ := leads.gossip.find(leaver.ID())
		return m.State == Alive && m.ClusterID == leads.id.clusterID()
	})
	if err := leads.remove(t.Context(), removeCall{ID: leaver.ID()}); err == nil {
		t.Error("the leader removed a node that does not say that it leaves")
	}
	sayUnheard(leaver.gossip, func(m *meta) { m.Going = leaves })
	if err := leads.remove(t.Context(), removeCall{ID: leaver.ID()}); err != nil {
		t.Fatal(err)
	}
	if m, _ := leads.gossip.find(leaver.ID()); m.Going != leaves {
		t.Errorf("got %q as what the node says that the leader has removed, want %q", m.Going, leaves)
	}
}
