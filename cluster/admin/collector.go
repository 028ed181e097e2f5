package admin

import (
	"context"
	"math"
	"slices"

	"github.com/prometheus/client_golang/prometheus"

	"lbnode/cluster"
)

// clusterCollector tells, when it is scraped, what the cluster is like.
type clusterCollector struct {
	cluster Cluster
	local   func() cluster.Local

	backendUp, backendInFlight, viewIndex                      *prometheus.Desc
	backendEjected, backendOpen, backendUnreachable, poolPanic *prometheus.Desc
	members, agreement, tolerance                              *prometheus.Desc
	isLeader, term, commitIndex, applied, lastContact          *prometheus.Desc
	storeBytes                                                 *prometheus.Desc
}

func newClusterCollector(c Cluster, local func() cluster.Local) *clusterCollector {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("lbnode_"+name, help, labels, nil)
	}
	return &clusterCollector{
		cluster:            c,
		local:              local,
		backendUp:          desc("backend_up", "1 if the cluster has agreed that the backend is healthy.", "pool", "backend"),
		backendInFlight:    desc("backend_in_flight", "Requests that this node has under way at the backend.", "pool", "backend"),
		backendEjected:     desc("backend_ejected", "1 while this node sends the backend nothing because it failed.", "pool", "backend"),
		backendOpen:        desc("backend_circuit_open", "1 while this node sends the backend nothing because too many requests failed in a row.", "pool", "backend"),
		backendUnreachable: desc("backend_unreachable", "1 while this node cannot connect to the backend and avoids it.", "pool", "backend"),
		poolPanic:          desc("pool_panic", "1 while this node ignores health in the pool: too few backends are fit.", "pool"),
		viewIndex:          desc("view_index", "Index of the view that this node serves."),
		members:            desc("cluster_members", "Nodes by how this node sees them.", "status"),
		agreement:          desc("cluster_agreement", "1 if every alive node serves a view of one digest, which is not stale."),
		tolerance:          desc("failure_tolerance", "How many more voters may die before writes stop."),
		isLeader:           desc("raft_is_leader", "1 if this node is the leader."),
		term:               desc("raft_term", "Current term."),
		commitIndex:        desc("raft_commit_index", "Last log index known to be committed."),
		applied:            desc("raft_applied_index", "Last log index that this node has applied."),
		lastContact:        desc("raft_last_contact_seconds", "Time since this node heard from the leader; 0 on the leader, +Inf if never."),
		storeBytes:         desc("raft_store_bytes", "Size of the file that holds the log."),
	}
}

// Describe implements prometheus.Collector.
func (c *clusterCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, desc := range []*prometheus.Desc{
		c.backendUp, c.backendInFlight, c.backendEjected, c.backendOpen, c.backendUnreachable, c.poolPanic, c.viewIndex, c.members, c.agreement, c.tolerance,
		c.isLeader, c.term, c.commitIndex, c.applied, c.lastContact, c.storeBytes,
	} {
		ch <- desc
	}
}

// Collect implements prometheus.Collector.
func (c *clusterCollector) Collect(ch chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), statusTimeout)
	defer cancel()
	status := c.cluster.Status(ctx)
	gauge := func(desc *prometheus.Desc, value float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, value, labels...)
	}
	c.collectView(gauge)
	c.collectCluster(gauge, &status)
	for i := range status.Nodes {
		if n := &status.Nodes[i]; n.Name == status.AsSeenBy && present(n) {
			c.collectSelf(gauge, n)
			return
		}
	}
}

type gaugeFunc func(desc *prometheus.Desc, value float64, labels ...string)

func (c *clusterCollector) collectView(gauge gaugeFunc) {
	view, local := c.cluster.View(), c.local()
	gauge(c.viewIndex, float64(view.Index))
	for _, pool := range view.Pools {
		gauge(c.poolPanic, oneIf(slices.Contains(local.Panics, pool.Name)), pool.Name)
		for i := range pool.Backends {
			b := pool.Backends[i]
			gauge(c.backendUp, oneIf(b.Healthy()), pool.Name, b.Name)
			gauge(c.backendInFlight, float64(local.Backends[b.ID].InFlight), pool.Name, b.Name)
			gauge(c.backendEjected, oneIf(local.Backends[b.ID].Ejected != ""), pool.Name, b.Name)
			gauge(c.backendOpen, oneIf(local.Backends[b.ID].CircuitOpen != ""), pool.Name, b.Name)
			gauge(c.backendUnreachable, oneIf(local.Backends[b.ID].Unreachable != ""), pool.Name, b.Name)
		}
	}
}

func (c *clusterCollector) collectCluster(gauge gaugeFunc, status *cluster.Status) {
	members := map[cluster.MemberState]int{}
	for i := range status.Nodes {
		members[status.Nodes[i].State]++
	}
	for _, state := range []cluster.MemberState{cluster.Alive, cluster.Suspect, cluster.Failed, cluster.Left} {
		gauge(c.members, float64(members[state]), string(state))
	}
	gauge(c.agreement, oneIf(status.Agreement))
	gauge(c.tolerance, float64(status.FailureTolerance))
	gauge(c.term, float64(status.Term))
	gauge(c.commitIndex, float64(status.CommitIndex))
}

// collectSelf tells of this node.
func (c *clusterCollector) collectSelf(gauge gaugeFunc, n *cluster.NodeStatus) {
	gauge(c.isLeader, oneIf(n.Leader))
	gauge(c.applied, float64(n.AppliedIndex))
	contact := n.LastContact.Seconds()
	if contact < 0 {
		contact = math.Inf(1)
	}
	gauge(c.lastContact, contact)
	gauge(c.storeBytes, float64(n.StoreBytes))
}

func oneIf(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
