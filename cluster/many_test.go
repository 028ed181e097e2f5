package cluster

import (
	"fmt"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"lbnode/state"
)

// Ten thousand backends that change at once, all of them, on three nodes in one process:
// says how long it takes until every node has it, and that the same node leads in the
// same term. How fast it must be is not for a test to say that runs beside others.
func TestManyVerdictsAtOnce(t *testing.T) {
	if testing.Short() || raceDetector {
		t.Skip("takes some seconds of all cores")
	}
	const pools, each = 4, 2500
	nodes := startCluster(t, 3, nil)
	for i := range pools {
		pool := state.Pool{Name: fmt.Sprintf("pool-%d", i)}
		for j := range each {
			pool.Backends = append(pool.Backends, &state.Backend{ID: NewID(), Name: fmt.Sprintf("web-%d", j), Host: fmt.Sprintf("10.0.%d.%d", j/250, j%250), Port: 8000 + i})
		}
		propose(t, nodes[0], &state.CreatePool{Pool: pool})
	}
	eventually(t, waitLong, "all nodes have all pools", func() bool {
		return len(nodes[0].View().Pools) == pools && len(nodes[1].View().Pools) == pools && len(nodes[2].View().Pools) == pools
	})
	leader, _ := nodes[0].leader()
	term := nodes[0].raft().CurrentTerm()
	view := nodes[0].View()
	for _, health := range []state.Health{state.Healthy, state.Unhealthy, state.Healthy, state.Unhealthy} {
		found := foundOfAll(view, health)
		began := time.Now()
		for _, n := range nodes {
			n.observeAs(found...)
		}
		eventually(t, waitLong, "every node has all verdicts", func() bool {
			return allHave(nodes[0].View(), health) && allHave(nodes[1].View(), health) && allHave(nodes[2].View(), health)
		})
		t.Logf("%d backends are %s on all nodes after %s", pools*each, health, time.Since(began).Round(time.Millisecond))
	}
	if now, _ := nodes[0].leader(); now != leader || nodes[0].raft().CurrentTerm() != term {
		t.Errorf("got leader %s in term %d, want %s in %d still", now, nodes[0].raft().CurrentTerm(), leader, term)
	}
	for _, n := range nodes {
		if leader == n.id.nodeID() && n.raft().State() != raft.Leader {
			t.Errorf("%s does not lead any more", n.cfg.Name)
		}
	}
}

// foundOfAll is what a node reports that finds all backends alike.
func foundOfAll(view *state.View, health state.Health) []Observation {
	var found []Observation
	for _, pool := range view.Pools {
		for i := range pool.Backends {
			b := pool.Backends[i]
			found = append(found, Observation{
				BackendID: b.ID, URL: b.URL(), Healthy: health == state.Healthy, At: time.Now(),
				Latency: 12 * time.Millisecond, Reason: "503 Service Unavailable in 12 ms",
			})
		}
	}
	return found
}

// allHave says whether all backends of the view have that health.
func allHave(view *state.View, health state.Health) bool {
	for _, pool := range view.Pools {
		for i := range pool.Backends {
			if pool.Backends[i].Health != health {
				return false
			}
		}
	}
	return true
}
