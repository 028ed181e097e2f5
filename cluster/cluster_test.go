package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"lbnode/state"
)

func TestThreeNodesAgree(t *testing.T) {
	t.Parallel()
	nodes := startCluster(t, 3, nil)
	for i, n := range nodes {
		result := propose(t, n, addBackend([]string{"web-1", "web-2", "web-3"}[i], 3001+i))
		if result.Err != nil {
			t.Fatalf("got %v, want the backend added", result.Err)
		}
		if pool := n.View().Pool(state.DefaultPool); pool == nil || len(pool.Backends) != i+1 {
			t.Fatalf("the node that was written to does not show write %d: %+v", i+1, pool)
		}
	}
	eventually(t, time.Second, "all views have one digest", func() bool {
		return nodes[0].View().Digest() == nodes[1].View().Digest() && nodes[1].View().Digest() == nodes[2].View().Digest()
	})
	eventually(t, 5*time.Second, "the cluster is healthy as seen by every node", func() bool {
		for _, n := range nodes {
			s := n.Status(t.Context())
			if !s.Healthy || !s.Agreement || s.Quorum != 2 || s.FailureTolerance != 1 || len(s.Nodes) != 3 {
				return false
			}
		}
		return true
	})
}

func TestBusinessFailureIsAResult(t *testing.T) {
	t.Parallel()
	n := startCluster(t, 1, nil)[0]
	result := propose(t, n, &state.DeletePool{Name: "nowhere"})
	if result.Err == nil || result.Err.Code != state.NotFound {
		t.Errorf("got %+v, want not_found", result)
	}
}

func TestSurvivesLeaderAndRestart(t *testing.T) {
	t.Parallel()
	nodes := startCluster(t, 3, nil)
	propose(t, nodes[0], addBackend("web-1", 3001))
	old, _ := nodes[0].leader()
	var rest []*node
	var lost *node
	for _, n := range nodes {
		if n.ID() == old {
			lost = n
			n.Stop()
		} else {
			rest = append(rest, n)
		}
	}
	eventually(t, 15*time.Second, "another leader", func() bool {
		id, _ := rest[0].leader()
		return id != "" && id != old
	})
	propose(t, rest[0], addBackend("web-2", 3002))
	back := start(t, lost.cfg)
	eventually(t, 15*time.Second, "the node that was lost has caught up", func() bool {
		return back.View().Digest() == rest[0].View().Digest() && !back.views.stale.Load()
	})
	eventually(t, 15*time.Second, "the cluster is healthy", func() bool { return rest[1].Status(t.Context()).Healthy })
}

func TestLoneRestartServesKeptView(t *testing.T) {
	t.Parallel()
	nodes := startCluster(t, 3, nil)
	propose(t, nodes[0], addBackend("web-1", 3001))
	want := nodes[0].View().Digest()
	for _, n := range nodes {
		eventually(t, 5*time.Second, "all have applied", func() bool { return n.View().Digest() == want })
	}
	for _, n := range nodes {
		n.Stop()
	}
	alone := start(t, nodes[1].cfg)
	if got := alone.View().Digest(); got != want {
		t.Errorf("got digest %s right after the start, want %s", got, want)
	}
	s := alone.Status(t.Context())
	if len(s.Nodes) != 3 {
		t.Errorf("got %d nodes, want 3: %+v", len(s.Nodes), s.Nodes)
	}
	eventually(t, 15*time.Second, "it says that it is degraded", func() bool { return alone.Status(t.Context()).Degraded != "" })
	if _, err := alone.Propose(t.Context(), Write{Op: addBackend("web-2", 3002)}); !errors.Is(err, ErrNoLeader) {
		t.Errorf("got %v, want ErrNoLeader", err)
	}
	start(t, nodes[0].cfg)
	eventually(t, 20*time.Second, "two of three take writes", func() bool {
		_, err := alone.Propose(t.Context(), Write{Op: addBackend("web-2", 3002)})
		return err == nil
	})
	if alone.views.stale.Load() {
		t.Error("the view is still called stale")
	}
}

func TestLeaveRemovesTheNode(t *testing.T) {
	t.Parallel()
	nodes := startCluster(t, 3, nil)
	leader, _ := nodes[0].leader()
	for _, n := range nodes {
		if n.ID() == leader { // the hardest to lose
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			if err := n.Leave(ctx); err != nil {
				t.Fatalf("cannot leave: %v", err)
			}
			continue
		}
		defer eventually(t, 15*time.Second, "two members are left", func() bool {
			s := n.Status(t.Context())
			return len(n.servers()) == 2 && s.Healthy
		})
	}
}

func TestNodesOfTwoClustersRefuseToMerge(t *testing.T) {
	t.Parallel()
	first, second := startCluster(t, 1, nil)[0], startCluster(t, 1, nil)[0]
	second.Stop()
	cfg := second.cfg
	cfg.Join = []string{first.cfg.Bind}
	misled := start(t, cfg)
	select {
	case err := <-misled.Failed():
		t.Log(err)
	case <-time.After(10 * time.Second):
		t.Error("a node whose join list leads to another cluster went on")
	}
	if got := len(first.gossip.all()); got != 1 {
		t.Errorf("got %d members in the other cluster, want 1", got)
	}
}

func TestVerdictNeedsAMajority(t *testing.T) {
	t.Parallel()
	nodes := startCluster(t, 3, nil)
	propose(t, nodes[0], addBackend("web-1", 3001))
	backend := func(n *node) *state.Backend { return n.View().Pool(state.DefaultPool).Backend("web-1") }
	b := backend(nodes[0])
	nodes[0].observe(b, true)
	propose(t, nodes[1], addBackend("web-2", 3002)) // a while for a wrong verdict to show
	if got := backend(nodes[0]).Health; got != state.Starting {
		t.Errorf("got %s after one of three observers spoke, want starting", got)
	}
	nodes[1].observe(b, true)
	eventually(t, waitLong, "two of three make it healthy on every node", func() bool {
		return backend(nodes[0]).Healthy() && backend(nodes[1]).Healthy() && backend(nodes[2]).Healthy()
	})
}

// A node of another cluster that comes by must not end one that has yet to meet
// its own.
func TestStrangerDoesNotEndANodeWithState(t *testing.T) {
	t.Parallel()
	n, stranger := startCluster(t, 1, nil)[0], startCluster(t, 1, nil)[0]
	n.Stop()
	cfg := n.cfg
	cfg.Join = []string{cfg.Bind, freeAddr(t)} // its peer is not up yet
	cfg.OnView, cfg.OnMembers, cfg.OnAutonomous = func(*state.View) {}, func() {}, func(bool) {}
	cfg.Local = func() Local { return Local{} }
	c := openOnly(t, cfg)
	stranger.gossip.join(c.gossip.address())
	eventually(t, 5*time.Second, "the stranger was met", func() bool { return c.gossip.metForeign() != "" })
	if err := c.checkCluster(t.Context()); err != nil {
		t.Errorf("got %v, want the node to go on", err)
	}
}

// What Open's caller wires is not there before Open returns.
func TestAnswersNobodyBeforeItIsStarted(t *testing.T) {
	t.Parallel()
	cfg := newConfig(t, "lb1")
	var asked atomic.Bool
	cfg.Local = func() Local { asked.Store(true); return Local{} }
	openOnly(t, cfg)
	calls := newCaller(&dialer{})
	defer calls.stop()
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	if err := calls.call(ctx, cfg.Raft, reportPath, none{}, &Report{}); err == nil || asked.Load() {
		t.Errorf("got %v, want no answer", err)
	}
}

// While leaders come and go, every write that was answered is there once, on
// every node, and was to be read at once where it was written, although each was
// sent through every node.
func TestLeaderChangesLoseAndDoubleNothing(t *testing.T) {
	t.Parallel()
	nodes := startCluster(t, 3, nil)
	ctx, cancel := context.WithCancel(t.Context())
	var writing sync.WaitGroup
	for i := range nodes {
		writing.Go(func() { write(ctx, t, nodes, fmt.Sprintf("n%d", i)) })
	}
	for range 3 {
		old, _ := nodes[0].leader()
		before := nodes[0].View().Index
		for _, n := range nodes {
			if n.ID() == old {
				n.handOver()
			}
		}
		eventually(t, waitLong, "another leader commits writes", func() bool {
			id, _ := nodes[0].leader()
			return id != "" && id != old && nodes[0].View().Index > before+10
		})
	}
	cancel()
	writing.Wait()
	eventually(t, 5*time.Second, "all views have one digest", func() bool {
		return nodes[0].View().Digest() == nodes[1].View().Digest() && nodes[1].View().Digest() == nodes[2].View().Digest()
	})
}

// write adds pools, one after the other, until ctx is done. It sends each request
// through all nodes at once, as if no answer came through.
func write(ctx context.Context, t *testing.T, nodes []*node, prefix string) {
	for i := 0; ctx.Err() == nil; i++ {
		w := Write{Op: &state.CreatePool{Pool: state.Pool{Name: fmt.Sprintf("%s-%d", prefix, i)}}, RequestID: NewID()}
		indexes := make([]uint64, len(nodes))
		var sending sync.WaitGroup
		for i, n := range nodes {
			sending.Go(func() { indexes[i] = writeOnce(context.WithoutCancel(ctx), t, n, w) })
		}
		sending.Wait()
		if slices.Min(indexes) != slices.Max(indexes) {
			t.Errorf("got indexes %d for one request", indexes)
		}
	}
}

// writeOnce adds a pool through one node and returns the index. A write that an
// election outlasts is sent again.
func writeOnce(ctx context.Context, t *testing.T, n *node, w Write) uint64 {
	name := w.Op.(*state.CreatePool).Pool.Name
	result, err := n.Propose(ctx, w)
	for deadline := time.Now().Add(waitLong); err != nil && time.Now().Before(deadline); {
		result, err = n.Propose(ctx, w)
	}
	switch {
	case err != nil:
		t.Errorf("write %s: got %v, want it taken", name, err)
	case result.Err != nil:
		t.Errorf("write %s was made twice: %v", name, result.Err)
	case n.View().Pool(name) == nil:
		t.Errorf("write %s cannot be read where it was written", name)
	}
	return result.Index
}

// A leader that is cut off steps down, the others go on without it, and whatever
// was answered is there when it is back.
func TestLeaderThatIsCutOff(t *testing.T) {
	t.Parallel()
	nodes := startCluster(t, 3, nil)
	propose(t, nodes[0], addBackend("web-1", 3001))
	old, _ := nodes[0].leader()
	i := slices.IndexFunc(nodes, func(n *node) bool { return n.ID() == old })
	lone, rest := nodes[i], slices.Delete(slices.Clone(nodes), i, i+1)
	cutOff(nodes, lone, true)
	kept := []string{"web-1", "web-3", "web-4"}
	switch _, err := lone.Propose(t.Context(), Write{Op: addBackend("web-2", 3002)}); {
	case err == nil: // it was on its way before the links were cut
		kept = append(kept, "web-2")
	case !errors.Is(err, ErrUnknownOutcome):
		t.Errorf("got %v from a leader that is cut off, want ErrUnknownOutcome", err)
	}
	eventually(t, waitLong, "the lone leader steps down", func() bool { return lone.raft().State() != raft.Leader })
	propose(t, rest[0], addBackend("web-3", 3003))
	if pool := lone.View().Pool(state.DefaultPool); pool == nil || pool.Backend("web-1") == nil {
		t.Error("a node that is cut off no longer serves its view")
	}
	cutOff(nodes, lone, false)
	eventually(t, waitLong, "it follows the new leader", func() bool { id, _ := lone.leader(); return id != "" })
	propose(t, lone, addBackend("web-4", 3004))
	eventually(t, waitLong, "all views have one digest", func() bool {
		return nodes[0].View().Digest() == nodes[1].View().Digest() && nodes[1].View().Digest() == nodes[2].View().Digest()
	})
	pool := lone.View().Pool(state.DefaultPool)
	for _, name := range kept {
		if pool.Backend(name) == nil {
			t.Errorf("%s is lost", name)
		}
	}
}

// cutOff cuts, or mends, all links of Raft and of calls between lone and the
// others.
func cutOff(nodes []*node, lone *node, cut bool) {
	for _, n := range nodes {
		n.links.set(func(addr string) bool { return cut && (n == lone || addr == lone.cfg.Raft) })
	}
}

// Nodes that are asked one after the other while much is written have different
// views, and agree all the same.
func TestAgreementWhileMuchIsWritten(t *testing.T) {
	t.Parallel()
	nodes := startCluster(t, 3, nil)
	propose(t, nodes[0], addBackend("web-1", 3001))
	ctx, cancel := context.WithCancel(t.Context())
	var writing sync.WaitGroup
	for i, n := range nodes {
		writing.Go(func() {
			for w := i; ctx.Err() == nil; w += len(nodes) {
				op := &state.UpdateBackend{Pool: state.DefaultPool, Name: "web-1", Patch: state.Backend{Weight: 1 + w%256}}
				n.Propose(ctx, Write{Op: op}) // whether each is taken is not the point
			}
		})
	}
	agreed, looked := 0, 40
	for i := range looked {
		if nodes[i%3].Status(ctx).Agreement {
			agreed++
		}
	}
	cancel()
	writing.Wait()
	if agreed < looked*3/4 { // an election may come between
		t.Errorf("the nodes agreed %d of %d times", agreed, looked)
	}
}
