package cluster

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/raft"

	"lbnode/state"
)

func TestDecide(t *testing.T) {
	own := peer{own: true, listed: listed{name: "self"}}
	empty := func(id string) peer { return peer{listed: listed{name: id}, hello: helloReply{ID: id, Name: id}} }
	in := func(id, clusterID string) peer {
		return peer{listed: listed{name: id}, hello: helloReply{ID: id, Name: id, ClusterID: clusterID}}
	}
	observer := func(id string) peer {
		return peer{listed: listed{name: id}, hello: helloReply{ID: id, Name: id, NonVoter: true}}
	}
	named := func(id, name string) peer {
		return peer{listed: listed{name: id}, hello: helloReply{ID: id, Name: name}}
	}
	absent := func(name, why string) peer { return peer{listed: listed{name: name}, reason: why} }
	ownByName := func(name string) peer { return peer{own: true, listed: listed{name: name, byName: true}} }
	unresolved := func(name string) peer {
		return peer{listed: listed{name: name, err: errors.New("no such host")}, reason: "does not resolve"}
	}
	for _, test := range []struct {
		name  string
		self  helloReply
		peers []peer
		want  step
	}{
		{"lowest of all present and empty", helloReply{ID: "a"}, []peer{own, empty("b"), empty("c")}, step{found: true}},
		{"alone in its list", helloReply{ID: "a"}, []peer{own}, step{found: true}},
		{"not the lowest", helloReply{ID: "b"}, []peer{own, empty("a")}, step{waiting: "node a to found the cluster"}},
		{"one absent", helloReply{ID: "a"}, []peer{own, empty("b"), absent("lb3:7946", "refused")}, step{waiting: "1 of 3: lb3:7946 refused"}},
		{"a peer has a cluster", helloReply{ID: "a"}, []peer{own, in("b", "x")}, step{join: "x"}},
		{"a peer has a cluster, another is absent", helloReply{ID: "a"}, []peer{own, in("b", "x"), absent("c", "refused")}, step{join: "x"}},
		{"two peers in one cluster", helloReply{ID: "a"}, []peer{own, in("b", "x"), in("c", "x")}, step{join: "x"}},
		{"a foreign address with a cluster", helloReply{ID: "a"}, []peer{in("b", "x")}, step{join: "x"}},
		{"the lowest may not vote", helloReply{ID: "b"}, []peer{own, observer("a")}, step{found: true}},
		{"two clusters", helloReply{ID: "a"}, []peer{own, in("b", "x"), in("c", "y")},
			step{waiting: "the listed peers to belong to one cluster: they belong to x and y"}},
		{"foreign addresses alone", helloReply{ID: "a"}, []peer{empty("b"), absent("c", "refused")},
			step{hopeless: "it does not list this node's own address", waiting: "a listed peer to have a cluster (c refused)"}},
		{"nobody may vote", helloReply{ID: "a", NonVoter: true}, []peer{own, observer("b")},
			step{hopeless: "all nodes that it lists have -non-voter", waiting: "a listed peer that may vote"}},
		{"another has its name", helloReply{ID: "a", Name: "lb1"}, []peer{own, named("b", "lb1")},
			step{waiting: "one of the two listed nodes named lb1 to be given another -node"}},
		{"two others share a name", helloReply{ID: "a"}, []peer{own, named("b", "lb2"), named("c", "lb2")},
			step{waiting: "one of the two listed nodes named lb2 to be given another -node"}},
		{"one name that leads to itself alone", helloReply{ID: "a"}, []peer{ownByName("lb.test:7946")},
			step{waiting: "another node: lb.test:7946 leads to this node alone; for a cluster of one, start it without -join"}},
		{"names that all lead to itself", helloReply{ID: "a"}, []peer{ownByName("lb1:7946"), ownByName("lb2:7946"), own},
			step{waiting: "another node: lb1:7946 and lb2:7946 leads to this node alone; for a cluster of one, start it without -join"}},
		{"a name that leads to another as well", helloReply{ID: "a"}, []peer{ownByName("lb.test:7946"), empty("b")}, step{found: true}},
		{"no name resolves yet", helloReply{ID: "a"}, []peer{unresolved("lb1:7946"), unresolved("lb2:7946")},
			step{waiting: "2 of 2: lb1:7946 does not resolve, lb2:7946 does not resolve"}},
		{"its own name does not resolve yet", helloReply{ID: "a"}, []peer{unresolved("lb1:7946"), empty("b")},
			step{waiting: "1 of 2: lb1:7946 does not resolve"}},
		{"listed under two addresses of its own", helloReply{ID: "a"}, []peer{own, own, empty("b")}, step{found: true}},
	} {
		if got := decide(test.self, test.peers); got != test.want {
			t.Errorf("%s: got %+v, want %+v", test.name, got, test.want)
		}
	}
}

// Whoever of a set of empty nodes looks at whatever part of the others that
// answers, at most one decides to found, and none while one is missing.
func TestAtMostOneDecidesToFound(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for round := range 2000 {
		size := 1 + random.IntN(7)
		nonVoter := make([]bool, size)
		for i := range nonVoter {
			nonVoter[i] = random.IntN(4) == 0
		}
		founders, someMissing := 0, false
		for self := range size {
			var peers []peer
			missing := false
			for other := range size {
				p := peer{own: other == self, hello: helloReply{ID: fmt.Sprint(other), Name: fmt.Sprint(other), NonVoter: nonVoter[other]}}
				if !p.own && random.IntN(8) == 0 {
					p.hello, p.reason, missing = helloReply{}, "refused", true
				}
				peers = append(peers, p)
			}
			next := decide(helloReply{ID: fmt.Sprint(self), NonVoter: nonVoter[self]}, peers)
			if next.found {
				founders++
			}
			if next.found && missing {
				t.Fatalf("round %d: node %d founds although a peer is missing", round, self)
			}
			someMissing = someMissing || missing
		}
		if founders > 1 {
			t.Fatalf("round %d: %d nodes of %d decide to found", round, founders, size)
		}
		if founders == 0 && !someMissing && slices.Contains(nonVoter, false) {
			t.Fatalf("round %d: all of %d are there and nobody founds", round, size)
		}
	}
}

func TestFoundingMembers(t *testing.T) {
	var peers []peer
	for _, id := range []string{"h", "c", "g", "b", "f", "e"} {
		peers = append(peers, peer{hello: helloReply{ID: id, NonVoter: id == "b"}, raft: "addr-" + id})
	}
	peers = append(peers, peer{own: true})
	members := foundingMembers(helloReply{ID: "d"}, "addr-d", peers)
	if !slices.IsSortedFunc(members, func(a, b raft.Server) int { return cmp.Compare(a.ID, b.ID) }) || len(members) != 7 {
		t.Fatalf("got %v, want 7 members in order", members)
	}
	var voting []string
	for _, m := range members {
		if m.Suffrage == raft.Voter {
			voting = append(voting, string(m.ID))
		}
		if string(m.Address) != "addr-"+string(m.ID) {
			t.Errorf("got address %s for %s", m.Address, m.ID)
		}
	}
	if got, want := strings.Join(voting, ""), "cdefg"; got != want {
		t.Errorf("got voters %s, want the lowest %d that may vote, %s", got, maxVoters, want)
	}
}

func TestPromiseIsGivenOnce(t *testing.T) {
	var p promised
	first, second := promiseCall{ClusterID: "x", From: "a"}, promiseCall{ClusterID: "y", From: "b"}
	if !p.give(first) || !p.holds("x") {
		t.Fatal("an empty node does not promise")
	}
	if p.give(second) || p.holds("y") {
		t.Error("a promised node promises to another founder")
	}
	if again := (promiseCall{ClusterID: "z", From: "a"}); !p.give(again) || !p.holds("z") || p.holds("x") {
		t.Error("a founder that tries again does not get the promise")
	}
	p.release(first)
	if !p.holds("z") {
		t.Error("a late release takes back a newer promise")
	}
	p.release(promiseCall{ClusterID: "z", From: "a"})
	if !p.give(second) {
		t.Error("a released node does not promise")
	}
}

func TestTwentyNodesFormOneCluster(t *testing.T) {
	t.Parallel()
	nodes := startCluster(t, 20, func(c *Config) { c.RaftMultiplier = 3 })
	if got := voters(nodes[0].servers()); got != maxVoters {
		t.Errorf("got %d voters, want %d", got, maxVoters)
	}
	propose(t, nodes[7], addBackend("web-1", 3001))
	want := nodes[7].View().Digest()
	for _, n := range nodes {

		eventually(t, waitLong, "all nodes have the write", func() bool { return n.View().Digest() == want })
	}
}

// A cluster of one grows by nodes that name only it.
func TestGrowsFromOne(t *testing.T) {
	t.Parallel()
	first := start(t, newConfig(t, "lb1"))
	waitFormed(t, []*node{first})
	propose(t, first, addBackend("web-1", 3001))
	nodes := []*node{first}
	for i := range 2 {
		nodes = append(nodes, start(t, newConfig(t, fmt.Sprintf("lb%d", i+2), first.cfg.Bind)))
	}
	waitFormed(t, nodes)
	eventually(t, waitLong, "three voters", func() bool { return voters(nodes[2].servers()) == 3 })
	eventually(t, waitLong, "one view", func() bool { return nodes[2].View().Digest() == first.View().Digest() })
}

func TestNonVoterNeverVotes(t *testing.T) {
	t.Parallel()
	first := start(t, newConfig(t, "lb1"))
	waitFormed(t, []*node{first})
	cfg := newConfig(t, "lb2", first.cfg.Bind)
	cfg.NonVoter = true
	second, third := start(t, cfg), start(t, newConfig(t, "lb3", first.cfg.Bind))
	waitFormed(t, []*node{first, second, third})
	eventually(t, waitLong, "the other new node votes", func() bool { return voters(first.servers()) == 2 })
	if s, ok := findServer(first.servers(), second.ID()); !ok || s.Suffrage != raft.Nonvoter {
		t.Errorf("got %+v, want a member without a vote", s)
	}
}

// A machine whose disk was wiped comes back as another node at the old address
// and takes the place of the one it was.
func TestWipedNodeIsReplaced(t *testing.T) {
	t.Parallel()
	nodes := startCluster(t, 3, nil)
	propose(t, nodes[0], addBackend("web-1", 3001))
	wiped := nodes[2]
	wiped.Stop()
	cfg := wiped.cfg
	cfg.DataDir = t.TempDir()
	again := start(t, cfg)
	if again.ID() == wiped.ID() {
		t.Fatal("a wiped node has its old id")
	}
	nodes[2] = again
	waitFormed(t, nodes)
	eventually(t, waitLong, "the old id is gone and the new one votes", func() bool {
		_, old := findServer(nodes[0].servers(), wiped.ID())
		return !old && voters(nodes[0].servers()) == 3 && nodes[0].Status(t.Context()).Healthy
	})
}

func TestSecretsMustMatch(t *testing.T) {
	t.Parallel()
	nodes := startCluster(t, 2, func(c *Config) { c.Secrets = testSecrets('s') })
	propose(t, nodes[1], addBackend("web-1", 3001))
	for name, other := range map[string][][]byte{usesOther: testSecrets('x'), onlyItHas: nil} {
		cfg := newConfig(t, name[:2], nodes[0].cfg.Bind)
		cfg.Join = append(cfg.Join, cfg.Bind)
		cfg.Secrets = other
		stranger := start(t, cfg)
		eventually(t, waitLong, name+": it waits and says why", func() bool {
			return strings.Contains(stranger.degraded(), "waiting for 1 of 2: "+nodes[0].cfg.Bind+" "+name)
		})
		if got := len(nodes[0].gossip.all()); got != 2 {
			t.Errorf("%s: got %d members, want 2", name, got)
		}
	}
}

// A crash between the two writes of Raft's bootstrap leaves a term and no log: the
// cluster was never born, and the node founds another one.
func TestFoundingCutShortIsBegunAgain(t *testing.T) {
	t.Parallel()
	cfg := newConfig(t, "lb1")
	id, err := openIdentity(cfg.DataDir)
	if err != nil {
		t.Fatal(err)
	}
	if err := id.set("stillborn", true); err != nil {
		t.Fatal(err)
	}
	store, err := openStore(cfg.DataDir, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if err := store.SetUint64([]byte("CurrentTerm"), 1); err != nil {
		t.Fatal(err)
	}
	store.Close()
	n := start(t, cfg)
	waitFormed(t, []*node{n})
	if n.id.clusterID() == "stillborn" {
		t.Error("the node belongs to a cluster that was never born")
	}
}

// A crash after the bootstrap and before it was said leaves a cluster.
func TestFoundingThatWasNotSaidIsKept(t *testing.T) {
	t.Parallel()
	n := startCluster(t, 1, nil)[0]
	propose(t, n, addBackend("web-1", 3001))
	want := n.id.clusterID()
	n.Stop()
	if err := n.id.set(want, true); err != nil {
		t.Fatal(err)
	}
	again := start(t, n.cfg)
	waitFormed(t, []*node{again})
	if got := again.id.clusterID(); got != want || again.View().Pool(state.DefaultPool) == nil {
		t.Errorf("got cluster %s with %+v, want %s with its pool", got, again.View(), want)
	}
}

// A node that promised itself to a founder must not be elsewhere when the
// founder has counted it in.
func TestPromisedNodeJoinsNoOtherCluster(t *testing.T) {
	t.Parallel()
	c := openOnly(t, newConfig(t, "lb1"))
	if err := c.promise(promiseCall{ClusterID: "x", From: "a", To: "wiped"}); err == nil {
		t.Error("the node that came to an address promises what its predecessor was asked for")
	}
	if err := c.promise(promiseCall{ClusterID: "x", From: "a", To: c.ID()}); err != nil {
		t.Fatal(err)
	}
	next := step{join: "y"}
	if err := c.take(t.Context(), &next, nil); err != nil || next.waiting == "" || c.id.clusterID() != "" {
		t.Errorf("got %+v, %v and cluster %q, want the node to wait", next, err, c.id.clusterID())
	}
	next = step{found: true}
	if err := c.take(t.Context(), &next, nil); err != nil || next.waiting == "" || c.id.founding() != "" {
		t.Errorf("got %+v, %v, want the node not to found a cluster", next, err)
	}
	if err := c.admitRaft("x"); err != nil || c.id.clusterID() != "x" {
		t.Errorf("got %v and cluster %q, want the founder's connection let in", err, c.id.clusterID())
	}
}

func TestFounderPromisesNothing(t *testing.T) {
	t.Parallel()
	c := openOnly(t, newConfig(t, "lb1"))
	if err := c.id.set("x", true); err != nil {
		t.Fatal(err)
	}
	if err := c.promise(promiseCall{ClusterID: "y", From: "a", To: c.ID()}); err == nil {
		t.Error("a node that is founding a cluster promises itself to another")
	}
	if err := c.adopt("y"); err == nil || c.id.founding() != "x" {
		t.Errorf("got %v, want no other cluster over the one that is being founded", err)
	}
}
