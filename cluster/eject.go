package cluster

import (
	"slices"

	"lbnode/state"
)

// enoughEject is how many nodes must eject a backend for the cluster to find it
// unhealthy. What one of them sees may be its own network's fault.
const enoughEject = 2

// ejectedByMany returns the backends of a pool that so many living nodes have ejected,
// but no more than the pool lets one node eject: they may have ejected different ones.
// Those that are unhealthy already go first, so that verdicts do not move about.
func ejectedByMany(pool *state.Pool, alive []string, fresh map[string]nodeReport) map[string]bool {
	if !pool.Outlier.On() {
		return nil
	}
	var ejected []*state.Backend
	ready := 0
	for i := range pool.Backends {
		b := &pool.Backends[i]
		if b.Admin != state.Ready {
			continue
		}
		ready++
		nodes := 0
		for _, node := range alive {
			if fresh[node].ejected[b.ID] == b.URL() {
				nodes++
			}
		}
		if nodes >= enoughEject {
			ejected = append(ejected, b)
		}
	}
	slices.SortStableFunc(ejected, func(a, b *state.Backend) int { return rank(a) - rank(b) })
	chosen := map[string]bool{}
	for _, b := range ejected[:min(len(ejected), pool.Outlier.MostOf(ready))] {
		chosen[b.ID] = true
	}
	return chosen
}

func rank(b *state.Backend) int {
	if b.Health == state.Unhealthy {
		return 0
	}
	return 1
}
