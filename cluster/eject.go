package cluster

import (
	"slices"
	"strings"

	"lbnode/state"
)

// enoughEject is how many nodes must eject a backend for the cluster to find it
// unhealthy. What one of them sees may be its own network's fault.
const enoughEject = 2

// ejectedByMany returns, by id, the backends of a pool that so many living nodes have
// ejected, and says by which, but no more than the pool lets one node eject: they may have
// ejected different ones. Those that are unhealthy already go first, so that verdicts do
// not move about.
func ejectedByMany(pool *state.Pool, alive []string, fresh map[string]nodeReport) map[string]string {
	if !pool.Outlier.On() {
		return nil
	}
	var ejected []*state.Backend
	reasons, ready := map[string]string{}, 0
	for i := range pool.Backends {
		b := pool.Backends[i]
		if b.Wanted() != state.Ready {
			continue
		}
		ready++
		var nodes []string
		for _, node := range alive {
			if report := fresh[node]; report.ejected[b.ID] == b.URL() {
				nodes = append(nodes, report.name)
			}
		}
		if len(nodes) >= enoughEject {
			slices.Sort(nodes)
			ejected = append(ejected, b)
			reasons[b.ID] = clipReason("ejected by " + strings.Join(nodes, ", "))
		}
	}
	slices.SortStableFunc(ejected, func(a, b *state.Backend) int { return rank(a) - rank(b) })
	for _, b := range ejected[min(len(ejected), pool.Outlier.MostOf(ready)):] {
		delete(reasons, b.ID)
	}
	return reasons
}

func rank(b *state.Backend) int {
	if b.Health == state.Unhealthy {
		return 0
	}
	return 1
}
