package cluster

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// faults are what can befall a cluster. Each begins, and returns its name and how it
// ends.
var faults = []func(*suite) (name string, end func()){
	(*suite).cutOff, (*suite).holdBack, (*suite).oneWay, (*suite).split, (*suite).delay,
	(*suite).crashOne, (*suite).powerCut, (*suite).transfer, (*suite).replace,
	(*suite).hangDisk, (*suite).failDisk,
}

// victim is the leader, or any node, with even chances.
func (s *suite) victim() (n *node, role string) {
	n = s.nodes[s.rand.IntN(len(s.nodes))]
	if lead := s.leader(); lead != nil && s.rand.IntN(2) == 0 {
		n = lead
	}
	if n.raft().State() == raft.Leader {
		return n, "the leader"
	}
	return n, "a follower"
}

// leader is a node that leads, or thinks so, nil if none does.
func (s *suite) leader() *node { return s.leaderBut(nil) }

// leaderBut is a leader other than old.
func (s *suite) leaderBut(old *node) *node {
	for _, n := range s.nodes {
		if n != old && n.raft().State() == raft.Leader {
			return n
		}
	}
	return nil
}

// alsoGossip draws whether gossip goes with the links.
func (s *suite) alsoGossip() (bool, string) {
	if s.rand.IntN(2) == 0 {
		return false, ""
	}
	return true, " with gossip"
}

// cutOff breaks all links of one node.
func (s *suite) cutOff() (string, func()) {
	n, role := s.victim()
	gossip, what := s.alsoGossip()
	return "cutting off " + role + what, s.network.add(allLinks(n, passage{cut: true, gossip: gossip}))
}

// allLinks is the rule for what a node sends and is sent.
func allLinks(n *node, p passage) ruling {
	return func(from, to string) passage {
		if from == n.cfg.Raft || to == n.cfg.Raft {
			return p
		}
		return passage{}
	}
}

// holdBack keeps all that one node sends and is sent, so that it comes late.
func (s *suite) holdBack() (string, func()) {
	n, role := s.victim()
	gossip, what := s.alsoGossip()
	return "holding back all from and to " + role + what, s.network.add(allLinks(n, passage{held: true, gossip: gossip}))
}

// oneWay lets nothing through from one node to another.
func (s *suite) oneWay() (string, func()) {
	n, role := s.victim()
	others := slices.DeleteFunc(slices.Clone(s.nodes), func(other *node) bool { return other == n })
	other := others[s.rand.IntN(len(others))]
	source, target := n.cfg.Raft, other.cfg.Raft
	way := "from"
	if s.rand.IntN(2) == 0 {
		source, target, way = target, source, "to"
	}
	gossip, what := s.alsoGossip()
	return "one way " + way + " " + role + what, s.network.add(func(from, to string) passage {
		return passage{held: from == source && to == target, gossip: gossip}
	})
}

// split parts the nodes into two groups.
func (s *suite) split() (string, func()) {
	side := map[string]bool{}
	for _, i := range s.rand.Perm(len(s.nodes))[:1+s.rand.IntN(len(s.nodes)-1)] {
		side[s.nodes[i].cfg.Raft] = true
	}
	gossip, what := s.alsoGossip()
	return "split" + what, s.network.add(func(from, to string) passage {
		return passage{cut: side[from] != side[to], gossip: gossip}
	})
}

// delay slows all links, each by its own time.
func (s *suite) delay() (string, func()) {
	var mu sync.Mutex
	delays := map[[2]string]time.Duration{}
	return "delay", s.network.add(func(from, to string) passage {
		mu.Lock()
		defer mu.Unlock()
		link := [2]string{from, to}
		if delays[link] == 0 {
			delays[link] = 1 + rand.N(150*time.Millisecond)
		}
		return passage{delay: delays[link]}
	})
}

// crash ends a node. Its disk must not hang, because the test could not open it
// again.
func (s *suite) crash(n *node) {
	s.disks[n.cfg.DataDir].cure()
	n.crash()
}

// crashOne ends a node and starts it again.
func (s *suite) crashOne() (string, func()) {
	n, role := s.victim()
	s.exit(n)
	s.crash(n)
	return "a crash of " + role, func() { s.enter(start(s.t, n.cfg)) }
}

// powerCut ends all nodes at once and starts them again, in any order.
func (s *suite) powerCut() (string, func()) {
	all := slices.Clone(s.nodes)
	var crashing sync.WaitGroup
	for _, n := range all {
		crashing.Go(func() { s.crash(n) })
	}
	crashing.Wait()
	for _, i := range s.rand.Perm(len(all)) {
		s.enter(start(s.t, all[i].cfg))
		s.exit(all[i])
	}
	return "a crash of all", func() {}
}

// transfer has the leader hand over, again and again.
func (s *suite) transfer() (string, func()) {
	for range 1 + s.rand.IntN(3) {
		if lead := s.leader(); lead != nil {
			lead.handOver()
		}
		s.wait(500 * time.Millisecond)
	}
	return "a transfer", func() {}
}

// replace adds a node and has another one leave, if it can do so now; else it leaves
// after the faults.
func (s *suite) replace() (string, func()) {
	n, role := s.victim()
	cfg := newConfig(s.t, fmt.Sprintf("new%d", s.rounds+1))
	cfg.Join = []string{cfg.Bind}
	for _, other := range s.nodes {
		cfg.Join = append(cfg.Join, other.cfg.Bind)
	}
	s.hook(&cfg)
	s.enter(start(s.t, cfg))
	s.leaving = append(s.leaving, n.cfg.DataDir)
	s.leave(5 * time.Second)
	return "a new node for " + role, func() {}
}

// leave has those leave that are to, and says whether they could.
func (s *suite) leave(within time.Duration) bool {
	ctx, cancel := context.WithTimeout(s.t.Context(), within)
	defer cancel()
	s.leaving = slices.DeleteFunc(s.leaving, func(dir string) bool {
		i := slices.IndexFunc(s.nodes, func(n *node) bool { return n.cfg.DataDir == dir })
		if i < 0 || s.nodes[i].Leave(ctx) != nil { // it is down now, or alone
			return false
		}
		s.exit(s.nodes[i])
		return true
	})
	return len(s.leaving) == 0
}

// hangDisk stops the storing of one node's log for a while.
func (s *suite) hangDisk() (string, func()) {
	n, role := s.victim()
	disk := s.disks[n.cfg.DataDir]
	disk.ail(hangs)
	return "a hanging disk of " + role, disk.cure
}

// failDisk makes the storing of one node's log fail for a while.
func (s *suite) failDisk() (string, func()) {
	n, role := s.victim()
	disk := s.disks[n.cfg.DataDir]
	disk.ail(fails)
	return "a failing disk of " + role, disk.cure
}
