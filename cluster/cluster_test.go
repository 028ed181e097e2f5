package cluster

import (
	"context"
	"errors"
	"testing"
	"time"

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
	if _, err := alone.Propose(t.Context(), addBackend("web-2", 3002), 0); !errors.Is(err, ErrNoLeader) {
		t.Errorf("got %v, want ErrNoLeader", err)
	}
	start(t, nodes[0].cfg)
	eventually(t, 20*time.Second, "two of three take writes", func() bool {
		_, err := alone.Propose(t.Context(), addBackend("web-2", 3002), 0)
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
	eventually(t, 5*time.Second, "two of three make it healthy on every node", func() bool {
		return backend(nodes[0]).Healthy() && backend(nodes[1]).Healthy() && backend(nodes[2]).Healthy()
	})
}
