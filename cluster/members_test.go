package cluster

import (
	"bytes"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	autopilot "github.com/hashicorp/raft-autopilot"

	"lbnode/state"
)

// failure waits for the reason why a node cannot go on.
func failure(t *testing.T, n *node) string {
	t.Helper()
	select {
	case err := <-n.Failed():
		return err.Error()
	case <-time.After(waitLong):
		t.Fatalf("%s goes on", n.cfg.Name)
		return ""
	}
}

// notFailed checks that a node goes on.
func notFailed(t *testing.T, nodes ...*node) {
	t.Helper()
	for _, n := range nodes {
		select {
		case err := <-n.Failed():
			t.Errorf("%s at %s ended: %v", n.cfg.Name, n.cfg.Bind, err)
		default:
		}
	}
}

func leaderOf(t *testing.T, nodes []*node) *node {
	t.Helper()
	var leader *node
	eventually(t, waitLong, "a node leads", func() bool {
		i := slices.IndexFunc(nodes, func(n *node) bool { return n.raft().State() == raft.Leader })
		if i >= 0 {
			leader = nodes[i]
		}
		return i >= 0
	})
	return leader
}

// votes says whether all of the nodes have the same members, all of them voters.
func allVote(nodes []*node) bool {
	return !slices.ContainsFunc(nodes, func(n *node) bool {
		return voters(n.servers()) != len(nodes) || len(n.servers()) != len(nodes)
	})
}

func TestTakenNameIsRefused(t *testing.T) {
	t.Parallel()
	nodes := startCluster(t, 2, nil)
	holder := nodes[0]
	says := "the name " + holder.cfg.Name + " belongs to node " + holder.ID() + " at " + holder.cfg.Bind + ": start this node with another -node"

	comer := start(t, newConfig(t, holder.cfg.Name, holder.cfg.Bind))
	if got := failure(t, comer); got != says {
		t.Errorf("a new node: got %q, want %q", got, says)
	}
	comer.Stop()
	nodes[1].Stop()
	renamed := nodes[1].cfg
	renamed.Name = holder.cfg.Name
	nodes[1] = start(t, renamed)
	if got := failure(t, nodes[1]); got != says {
		t.Errorf("a node that comes back with another name: got %q, want %q", got, says)
	}
	if _, added := findServer(holder.servers(), comer.ID()); added {
		t.Error("a node with a taken name became a member")
	}
	notFailed(t, holder)
}

func TestOneOfTwoWithOneNameFoundsNothing(t *testing.T) {
	t.Parallel()
	one, two := newConfig(t, "lb1"), newConfig(t, "lb1")
	join := []string{one.Bind, two.Bind}
	one.Join, two.Join = join, join
	first, second := start(t, one), start(t, two)
	select {
	case err := <-first.Failed():
		first, second = second, first
		t.Log(err)
	case err := <-second.Failed():
		t.Log(err)
	case <-time.After(waitLong):
		t.Fatal("both go on")
	}
	notFailed(t, first)
	if first.id.clusterID() != "" || second.id.clusterID() != "" {
		t.Error("two nodes of one name founded a cluster")
	}
}

// A machine that lost its power and its disk comes back under its old name, at
// another address, while the others still count on the node that it was.
func TestNameOfADeadNodeIsFree(t *testing.T) {
	t.Parallel()
	nodes := startCluster(t, 3, nil)
	dead := nodes[2]
	dead.crash()
	wiped := newConfig(t, dead.cfg.Name, nodes[0].cfg.Bind)
	nodes[2] = start(t, wiped)
	eventually(t, waitLong, "the node that was wiped votes", func() bool {
		s, _ := findServer(nodes[0].servers(), nodes[2].ID())
		return s.Suffrage == raft.Voter && s.ID != ""
	})
	notFailed(t, nodes...)
}

// copyDir copies the directory of a node that does not run.
func copyDir(t *testing.T, cfg Config) Config {
	t.Helper()
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(cfg.DataDir)); err != nil {
		t.Fatal(err)
	}
	cfg.DataDir, cfg.Bind, cfg.Raft = dir, freeAddr(t), freeAddr(t)
	return cfg
}

func TestCopyOfADirectoryIsRefused(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		size   int
		join   bool
		forget bool // the copy does not know where others are, but by its join list
	}{
		"one of three":                   {3, true, false},
		"one of three, without a list":   {3, false, false},
		"one of three, without its past": {3, true, true},
		"a cluster of one":               {1, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			nodes := startCluster(t, test.size, nil)
			nodes[0].Stop()
			twin := copyDir(t, nodes[0].cfg)
			nodes[0] = start(t, nodes[0].cfg)
			waitFormed(t, nodes)
			if !test.join {
				twin.Join = nil
			}
			if test.forget {
				if err := os.Remove(filepath.Join(twin.DataDir, "peers.json")); err != nil {
					t.Fatal(err)
				}
			}
			twin.OnView, twin.OnMembers, twin.OnAutonomous = func(*state.View) {}, func() {}, func(bool) {}
			twin.Local = func() Local { return Local{} }
			want := twin.DataDir + " is a copy: node " + nodes[0].ID() + " runs already at " + nodes[0].cfg.Bind + "; start with an empty -data-dir"
			if c, err := Open(t.Context(), twin); err == nil || err.Error() != want {
				t.Errorf("got %v, want %s", err, want)
				if err == nil {
					c.Stop()
				}
			}
			notFailed(t, nodes...)
			propose(t, nodes[0], addBackend("web-1", 3001))
		})
	}
}

// A copy that could ask nobody when it started ends when it meets the others, and
// its end is not taken for the original's.
func TestCopyThatMeetsItsOriginalLaterEnds(t *testing.T) {
	t.Parallel()
	var log said
	nodes := startCluster(t, 3, func(c *Config) { c.Log = slog.New(slog.NewTextHandler(&log, nil)) })
	nodes[0].Stop()
	cfg := copyDir(t, nodes[0].cfg)
	if err := os.Remove(filepath.Join(cfg.DataDir, "peers.json")); err != nil {
		t.Fatal(err)
	}
	nodes[0] = start(t, nodes[0].cfg)
	waitFormed(t, nodes)
	eventually(t, waitLong, "the original has run for a while", func() bool { return time.Since(nodes[0].began) > 2*tieWithin })
	cfg.Join = []string{cfg.Bind}
	twin := start(t, cfg)
	for range 10 { // what it says of itself outdoes what the original says
		if err := twin.gossip.tell(func(*meta) {}); err != nil {
			t.Fatal(err)
		}
	}
	log.forget()
	if err := twin.gossip.join(nodes[1].gossip.address()); err != nil {
		t.Fatal(err)
	}
	if got := failure(t, twin); !strings.Contains(got, "is a copy: node "+nodes[0].ID()+" runs already at "+nodes[0].cfg.Bind) {
		t.Errorf("got %q, want it to say what it is a copy of", got)
	}
	twin.Stop()
	propose(t, nodes[0], addBackend("web-1", 3001))
	for _, n := range nodes[1:] {
		if m, _ := n.gossip.find(nodes[0].ID()); m.State != Alive || m.Addr != nodes[0].gossip.address() {
			t.Errorf("%s takes the original for %s at %s", n.cfg.Name, m.State, m.Addr)
		}
	}
	if strings.Contains(log.String(), "node is left") {
		t.Error("the others took the end of the copy for the original's")
	}
	notFailed(t, nodes...)
}

// said keeps what nodes log.
type said struct {
	mu   sync.Mutex
	text bytes.Buffer
}

// Write implements io.Writer.
func (s *said) Write(line []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(line)
}

// String returns all that was said since forget.
func (s *said) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

func (s *said) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.text.Reset()
}

func TestOfTwoTheLaterOneEnds(t *testing.T) {
	for _, test := range []struct {
		name      string
		mine      time.Duration
		theirs    time.Duration
		instances [2]string
		want      bool
	}{
		{"it is much older", time.Hour, time.Minute, [2]string{"b", "a"}, false},
		{"it is much younger", time.Minute, time.Hour, [2]string{"a", "b"}, true},
		{"a tie, the higher instance", time.Minute, time.Minute, [2]string{"b", "a"}, true},
		{"a tie, the lower instance", time.Minute, time.Minute, [2]string{"a", "b"}, false},
	} {
		c := &Cluster{instance: test.instances[0], began: time.Now().Add(-test.mine)}
		if got := c.startedAfter(helloReply{Instance: test.instances[1], Uptime: test.theirs}); got != test.want {
			t.Errorf("%s: got %v, want %v", test.name, got, test.want)
		}
	}
}

// What gossip says of a node makes it no member, until the node itself says so.
func TestGossipAloneAddsNobody(t *testing.T) {
	t.Parallel()
	nodes := startCluster(t, 2, nil)
	other := startCluster(t, 1, nil)[0]
	leader := leaderOf(t, nodes)
	silent := listenSilently(t).String()
	for id, addr := range map[string]string{
		"nobody":                    freeAddr(t),
		"silent":                    silent,
		"another node's":            leader.cfg.Raft,
		other.ID():                  other.cfg.Raft, // lives, in another cluster
		"an address of this system": other.cfg.Bind,
	} {
		leader.gossip.mu.Lock()
		leader.gossip.members[id] = member{ID: id, State: Alive, Addr: netip.MustParseAddrPort(addr), meta: meta{Name: id, RaftAddr: addr, ClusterID: leader.id.clusterID()}}
		leader.gossip.mu.Unlock()
	}
	honest := start(t, newConfig(t, "lb3", leader.cfg.Bind))
	eventually(t, waitLong, "a node that answers votes", func() bool {
		s, _ := findServer(leader.servers(), honest.ID())
		return s.Suffrage == raft.Voter && s.ID != ""
	})
	if got := len(leader.servers()); got != 3 {
		t.Errorf("got members %+v, want three", leader.servers())
	}
}

func TestVoteIsGivenUpAndTakenBack(t *testing.T) {
	t.Parallel()
	nodes := startCluster(t, 3, nil)
	i := slices.Index(nodes, leaderOf(t, nodes)) // the hardest to do without
	restart := func(nonVoter bool) {
		nodes[i].Stop()
		cfg := nodes[i].cfg
		cfg.NonVoter = nonVoter
		nodes[i] = start(t, cfg)
	}
	is := func(want raft.ServerSuffrage) func() bool {
		return func() bool {
			for _, n := range nodes {
				if s, ok := findServer(n.servers(), nodes[i].ID()); !ok || s.Suffrage != want {
					return false
				}
			}
			return true
		}
	}
	restart(true)
	eventually(t, waitLong, "it votes no more", is(raft.Nonvoter))
	restart(false)
	eventually(t, waitLong, "it votes again", is(raft.Voter))
}

// Of two voters the one that no longer means to vote hands its office over; a lone
// one keeps it.
func TestUnwillingLeaderHandsOver(t *testing.T) {
	t.Parallel()
	var log said
	nodes := startCluster(t, 2, func(c *Config) { c.Log = slog.New(slog.NewTextHandler(&log, nil)) })
	eventually(t, waitLong, "both vote", func() bool { return allVote(nodes) })
	eventually(t, waitLong, "the leader warns of two voters", func() bool { return strings.Contains(log.String(), twoVoters) })
	stopAll(nodes)
	nodes[0].cfg.NonVoter = true
	for i, n := range nodes {
		nodes[i] = start(t, n.cfg)
	}
	eventually(t, waitLong, "the other one leads and votes alone", func() bool {
		s, _ := findServer(nodes[1].servers(), nodes[1].ID())
		return nodes[1].raft().State() == raft.Leader && voters(nodes[1].servers()) == 1 && s.Suffrage == raft.Voter
	})
	alone := start(t, newConfig(t, "alone"))
	waitFormed(t, []*node{alone})
	alone.Stop()
	alone.cfg.NonVoter = true
	alone = start(t, alone.cfg)
	propose(t, alone, addBackend("web-1", 3001))
}

func TestUnwillingVoterIsDemotedOnlyIfQuorumStays(t *testing.T) {
	type server struct {
		state autopilot.RaftState
		kind  autopilot.NodeType
		alive bool
	}
	leader := server{autopilot.RaftLeader, autopilot.NodeVoter, true}
	voter := server{autopilot.RaftVoter, autopilot.NodeVoter, true}
	dead := server{autopilot.RaftVoter, autopilot.NodeVoter, false}
	unwilling := server{autopilot.RaftVoter, neverVotes, true}
	for _, test := range []struct {
		name    string
		servers map[raft.ServerID]server
		want    []raft.ServerID
	}{
		{"one of three", map[raft.ServerID]server{"a": leader, "b": voter, "c": unwilling}, []raft.ServerID{"c"}},
		{"two of three, one at a time", map[raft.ServerID]server{"a": leader, "b": unwilling, "c": unwilling}, []raft.ServerID{"b"}},
		{"one of two", map[raft.ServerID]server{"a": leader, "b": unwilling}, []raft.ServerID{"b"}},
		{"its vote is needed", map[raft.ServerID]server{"a": leader, "b": dead, "c": unwilling}, nil},
		{"the leader itself", map[raft.ServerID]server{"a": {autopilot.RaftLeader, neverVotes, true}, "b": voter}, nil},
		{"nobody", map[raft.ServerID]server{"a": leader, "b": voter}, nil},
	} {
		s := &autopilot.State{Servers: map[raft.ServerID]*autopilot.ServerState{}}
		for id, server := range test.servers {
			status := autopilot.NodeFailed
			if server.alive {
				status = autopilot.NodeAlive
			}
			s.Servers[id] = &autopilot.ServerState{State: server.state, Server: autopilot.Server{ID: id, NodeType: server.kind, NodeStatus: status}}
			s.Voters = append(s.Voters, id)
		}
		got := voterLimit{&autopilot.StablePromoter{}}.CalculatePromotionsAndDemotions(&autopilot.Config{}, s)
		if !slices.Equal(got.Demotions, test.want) || len(got.Promotions) > 0 {
			t.Errorf("%s: got %+v, want %v demoted", test.name, got, test.want)
		}
	}
}

// All machines were given other addresses at once.
func TestAllNodesMoveAtOnce(t *testing.T) {
	skipRaftRace(t)
	t.Parallel()
	nodes := startCluster(t, 3, nil)
	propose(t, nodes[0], addBackend("web-1", 3001))
	want, id := nodes[0].View().Pool(state.DefaultPool), nodes[0].id.clusterID()
	stopAll(nodes)
	var join []string
	for _, n := range nodes {
		n.cfg.Bind, n.cfg.Raft = freeAddr(t), freeAddr(t)
		join = append(join, n.cfg.Bind)
	}
	for i, n := range nodes {
		n.cfg.Join = join
		nodes[i] = start(t, n.cfg)
	}
	t.Cleanup(func() { stopAll(nodes) })
	eventually(t, 2*waitLong, "all vote under their new addresses and agree", func() bool {
		return allVote(nodes) && !slices.ContainsFunc(nodes, func(n *node) bool {
			s, _ := findServer(nodes[0].servers(), n.ID())
			return string(s.Address) != n.cfg.Raft || !n.Status(t.Context()).Healthy
		})
	})
	propose(t, nodes[1], addBackend("web-2", 3002))
	for _, n := range nodes {
		eventually(t, waitLong, "all views have one digest", func() bool { return n.View().Digest() == nodes[1].View().Digest() })
		if got := n.View().Pool(state.DefaultPool); n.id.clusterID() != id || got.Backend("web-1").ID != want.Backend("web-1").ID {
			t.Errorf("%s: got cluster %s with %+v, want %s with what it had", n.cfg.Name, n.id.clusterID(), got, id)
		}
	}
}

// A member that was taken out although it lives is taken back. While that cannot be
// it says so itself.
func TestRemovedNodeThatLivesIsTakenBack(t *testing.T) {
	t.Parallel()
	nodes := startCluster(t, 3, nil)
	eventually(t, waitLong, "all vote", func() bool { return allVote(nodes) })
	leader := leaderOf(t, nodes)
	removed := nodes[(slices.Index(nodes, leader)+1)%3]
	block := func(on bool) { // a living member with its name keeps it out, whoever leads
		for _, n := range nodes {
			if n == removed {
				continue
			}
			n.gossip.mu.Lock()
			delete(n.gossip.members, "ghost")
			if on {
				n.gossip.members["ghost"] = member{ID: "ghost", State: Alive, meta: meta{Name: removed.cfg.Name, ClusterID: n.id.clusterID()}}
			}
			n.gossip.mu.Unlock()
		}
	}
	for told := false; !told; { // Raft makes one try to tell it
		block(true)
		if err := await(t.Context(), leaderOf(t, nodes).raft().RemoveServer(raft.ServerID(removed.ID()), 0, officeWithin)); err != nil {
			t.Fatal(err)
		}
		for deadline := time.Now().Add(5 * time.Second); !told && time.Now().Before(deadline) && pause(t.Context(), 10*time.Millisecond); {
			_, is := findServer(removed.servers(), removed.ID())
			told = !is
		}
		if !told {
			block(false)
			eventually(t, waitLong, "all vote again", func() bool { return allVote(nodes) })
		}
	}
	complains := func() bool {
		return slices.ContainsFunc(removed.report().Problems, func(p string) bool { return strings.HasPrefix(p, "this node was removed from raft") })
	}
	eventually(t, waitLong, "it says that it was removed", complains)
	block(false)
	eventually(t, waitLong, "it votes again and complains no more", func() bool { return allVote(nodes) && !complains() })
	propose(t, removed, addBackend("web-1", 3001))
}
