package cluster

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	// foreignFor is how long a node of another cluster counts as there. The nodes of a join
	// list are tried more often than that.
	foreignFor = 3 * rejoinEvery
	// maxForeign bounds how many such nodes are remembered.
	maxForeign = 32
)

// foreigners are the nodes of other clusters that gossip has met lately, which takes the
// same secret. Clusters do not merge, so people must hear of it.
type foreigners struct {
	mu  sync.Mutex
	met map[string]foreigner // by node id
}

// foreigner is a node of another cluster.
type foreigner struct {
	name    string
	cluster string
	addr    netip.AddrPort
	at      time.Time
}

// note says that a node of another cluster has been met. Only what a node would say of itself
// is shown to people.
func (f *foreigners) note(id string, node foreigner) {
	if !isID(id) || !isID(node.cluster) || checkName(node.name) != nil {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.met == nil {
		f.met = map[string]foreigner{}
	}
	if _, known := f.met[id]; known || len(f.met) < maxForeign {
		f.met[id] = node
	}
}

// problems names the other clusters, a sentence for each. A node whose address one of this
// node's own cluster has now is gone.
func (f *foreigners) problems(own string, ours func(netip.AddrPort) bool, now time.Time) []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	nodes := map[string][]string{}
	for id, node := range f.met {
		if now.Sub(node.at) > foreignFor || node.cluster == own || ours(node.addr) {
			delete(f.met, id)
			continue
		}
		nodes[node.cluster] = append(nodes[node.cluster], fmt.Sprintf("%s at %s", node.name, node.addr))
	}
	var all []string
	for cluster, names := range nodes {
		slices.Sort(names)
		all = append(all, fmt.Sprintf("another cluster is there, %s: %s; clusters do not merge: if one is meant, the runbook two-clusters.md says how to get there",
			cluster, strings.Join(names, ", ")))
	}
	slices.SortFunc(all, cmp.Compare)
	return all
}
