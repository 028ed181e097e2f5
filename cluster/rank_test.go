package cluster

import (
	"slices"
	"strconv"
	"testing"
)

// Nodes start their round robin at their ranks, and each takes its own when it first has a
// pool: those that were there before must not move when others come.
func TestRanksStayAsNodesJoin(t *testing.T) {
	t.Parallel()
	nodes := []*node{start(t, newConfig(t, "lb1"))}
	waitFormed(t, nodes)
	for i := range 5 { // by chance alone, 5 ids are in order once in 120 times
		if i > 0 {
			n := start(t, newConfig(t, "lb"+strconv.Itoa(i+1), nodes[0].cfg.Bind))
			nodes = append(nodes, n)
			eventually(t, waitLong, "it is a member on all nodes", func() bool {
				return !slices.ContainsFunc(nodes, func(n *node) bool { return len(n.servers()) != len(nodes) })
			})
		}
		for want, n := range nodes {
			if got := n.Rank(); got != want {
				t.Errorf("got rank %d of node %d with %d in the cluster, want %d", got, want, len(nodes), want)
			}
		}
	}
}
