package admin

import (
	"fmt"
	"math"
	"slices"
	"time"

	"lbnode/cluster"
	"lbnode/state"
)

// ClusterView is the whole cluster as one node sees it: the answer to /cluster.
type ClusterView struct {
	ClusterID string `json:"cluster_id"`
	AsSeenBy  string `json:"as_seen_by"`
	// Healthy is true when there is a leader, every node is alive and all agree.
	Healthy bool `json:"healthy"`
	// Degraded is why the node that answers cannot take writes, empty if it can.
	Degraded string `json:"degraded,omitempty"`
	// Warnings are sentences on what is not as it should be although the cluster
	// works.
	Warnings []string `json:"warnings,omitempty"`
	// Agreement is true when every alive node serves a view of one digest, which it did not
	// only keep from before it was started.
	Agreement   bool   `json:"agreement"`
	Leader      string `json:"leader"`
	Term        uint64 `json:"term"`
	CommitIndex uint64 `json:"commit_index"`
	Quorum      int    `json:"quorum"`
	// FailureTolerance is how many more voters may die before writes stop.
	FailureTolerance int           `json:"failure_tolerance"`
	Nodes            []Node        `json:"nodes"`
	Pools            []ClusterPool `json:"pools"`
}

// Node is one node of the cluster.
type Node struct {
	ID        string              `json:"id"`
	Name      string              `json:"name"`
	Addr      string              `json:"addr"`
	AdminAddr string              `json:"admin_addr"`
	HTTPAddr  string              `json:"http_addr"`
	Version   string              `json:"version"`
	Status    cluster.MemberState `json:"status"`
	// Member is true if the node belongs to Raft, Voter if it votes there besides.
	Member bool `json:"member"`
	Voter  bool `json:"voter"`
	Leader bool `json:"leader"`
	// View is the view that the node serves.
	View cluster.ViewStatus `json:"view"`
	// Lag is how many log entries the node has yet to apply.
	Lag uint64 `json:"lag"`
	// LastContactMS is how long ago the node heard from the leader, in
	// milliseconds; -1 if never.
	LastContactMS     int64   `json:"last_contact_ms"`
	Ready             bool    `json:"ready"`
	RequestsPerSecond float64 `json:"requests_per_second"`
	// SecretFingerprints tell the secrets apart that the node accepts, the one it
	// uses first; none without -secret.
	SecretFingerprints []string `json:"secret_fingerprints,omitempty"`
}

// ClusterPool is a pool and what all nodes together know of it.
type ClusterPool struct {
	Name            string `json:"name"`
	Strategy        string `json:"strategy"`
	HealthyBackends int    `json:"healthy_backends"`
	// PanicAt are the nodes that ignore health here: too few backends are fit.
	PanicAt  []string         `json:"panic_at,omitempty"`
	Backends []ClusterBackend `json:"backends"`
}

// ClusterBackend is a backend and what all nodes together know of it.
type ClusterBackend struct {
	ID       string       `json:"id"`
	Name     string       `json:"name"`
	Protocol string       `json:"protocol"`
	Host     string       `json:"host"`
	Port     int          `json:"port"`
	URL      string       `json:"url"`
	Weight   int          `json:"weight"`
	Backup   bool         `json:"backup,omitempty"`
	Admin    state.Admin  `json:"admin"`
	Health   state.Health `json:"health"`
	// Reason is why the backend is unhealthy: a node's name and what its probe found
	// when the cluster agreed on it, or which nodes had ejected it.
	Reason string `json:"reason,omitempty"`
	// Held is why the backend is unhealthy although its observers find it healthy.
	Held string `json:"held,omitempty"`
	// AgentAdmin is drain or maint if the backend's agent asks for it, AgentWeight such
	// as 50% if it asks for another weight.
	AgentAdmin  state.Admin `json:"agent_admin,omitempty"`
	AgentWeight string      `json:"agent_weight,omitempty"`
	// Since is when Health last changed, RFC 3339.
	Since string `json:"since"`
	// LastHealthCheck is when any node last probed the backend, RFC 3339, empty if
	// none has.
	LastHealthCheck string `json:"last_health_check"`
	// InFlight is how many requests all nodes have under way at the backend.
	InFlight int `json:"in_flight"`
	// AtNodes are the nodes of which there is something to say.
	AtNodes   []BackendAtNode `json:"at_nodes,omitempty"`
	Observers []Observer      `json:"observers"`
}

// BackendAtNode is what a backend is to the traffic of one node.
type BackendAtNode struct {
	Node     string `json:"node"`
	InFlight int    `json:"in_flight"`
	// Ejected is true while the node sends the backend nothing because it failed.
	Ejected bool `json:"ejected,omitempty"`
	// CircuitOpen is true while the node sends the backend nothing because more requests
	// failed in a row than the pool's limits have.
	CircuitOpen bool `json:"circuit_open,omitempty"`
	// Unreachable is true while the node cannot connect to the backend and avoids it.
	Unreachable bool `json:"unreachable,omitempty"`
}

// Observer is what one node's probes say of a backend.
type Observer struct {
	Node    string `json:"node"`
	Healthy bool   `json:"healthy"`
	// AgeMS is how long ago the last probe ended, LatencyMS how long it took.
	AgeMS     int64   `json:"age_ms"`
	LatencyMS float64 `json:"latency_ms"`
	Reason    string  `json:"reason"`
}

// newClusterView puts together what the nodes said and what they agreed on.
func newClusterView(status cluster.Status, view *state.View, now time.Time) *ClusterView {
	v := &ClusterView{
		ClusterID:        status.ClusterID,
		AsSeenBy:         status.AsSeenBy,
		Healthy:          status.Healthy,
		Degraded:         status.Degraded,
		Warnings:         status.Warnings,
		Agreement:        status.Agreement,
		Leader:           status.Leader,
		Term:             status.Term,
		CommitIndex:      status.CommitIndex,
		Quorum:           status.Quorum,
		FailureTolerance: status.FailureTolerance,
		Nodes:            make([]Node, len(status.Nodes)),
		Pools:            make([]ClusterPool, len(view.Pools)),
	}
	for i := range status.Nodes {
		v.Nodes[i] = newNode(&status.Nodes[i])
	}
	for i, p := range view.Pools {
		v.Pools[i] = newClusterPool(p, status.Nodes, now)
	}
	return v
}

func newNode(n *cluster.NodeStatus) Node {
	node := Node{
		ID:            n.ID,
		Name:          n.Name,
		Addr:          n.Addr,
		AdminAddr:     n.AdminAddr,
		HTTPAddr:      n.HTTPAddr,
		Version:       n.Version,
		Status:        n.State,
		Member:        n.Member,
		Voter:         n.Voter,
		Leader:        n.Leader,
		View:          n.View,
		Lag:           n.Lag,
		LastContactMS: contactMillis(n.LastContact),

		SecretFingerprints: n.Secrets,
	}
	if present(n) { // what a dead node last said of its traffic is no longer so
		node.Ready = n.Local.Ready
		node.RequestsPerSecond = math.Round(n.Local.RequestsPerSecond*10) / 10
	}
	return node
}

// contactMillis keeps "never" apart from "just now", which rounding would not.
func contactMillis(d time.Duration) int64 {
	if d < 0 {
		return -1
	}
	return d.Milliseconds()
}

// present says whether the node may still be at work.
func present(n *cluster.NodeStatus) bool {
	return n.State == cluster.Alive || n.State == cluster.Suspect
}

func newClusterPool(p *state.Pool, nodes []cluster.NodeStatus, now time.Time) ClusterPool {
	pool := ClusterPool{Name: p.Name, Strategy: p.Strategy, Backends: make([]ClusterBackend, len(p.Backends))}
	for i := range nodes {
		if n := &nodes[i]; present(n) && slices.Contains(n.Local.Panics, p.Name) {
			pool.PanicAt = append(pool.PanicAt, n.Name)
		}
	}
	for i := range p.Backends {
		b := p.Backends[i]
		if b.Healthy() {
			pool.HealthyBackends++
		}
		pool.Backends[i] = newClusterBackend(b, nodes, now)
	}
	return pool
}

func newClusterBackend(b *state.Backend, nodes []cluster.NodeStatus, now time.Time) ClusterBackend {
	backend := ClusterBackend{
		ID:          b.ID,
		Name:        b.Name,
		Protocol:    b.Protocol,
		Host:        b.Host,
		Port:        b.Port,
		URL:         b.URL(),
		Weight:      b.Weight,
		Backup:      b.Backup,
		Admin:       b.Admin,
		Health:      b.Health,
		Reason:      b.Reason,
		AgentAdmin:  agentAdmin(b),
		AgentWeight: b.Agent.Weight,
		Since:       formatMillis(b.Since),
		Observers:   []Observer{},
	}
	var checked time.Time
	var steady []time.Duration // of those who find it healthy
	for i := range nodes {
		if !present(&nodes[i]) {
			continue
		}
		local := nodes[i].Local.Backends[b.ID]
		backend.InFlight += local.InFlight
		at := BackendAtNode{
			Node:        nodes[i].Name,
			InFlight:    local.InFlight,
			Ejected:     local.Ejected == backend.URL,
			CircuitOpen: local.CircuitOpen == backend.URL,
			Unreachable: local.Unreachable == backend.URL,
		}
		if at != (BackendAtNode{Node: at.Node}) {
			backend.AtNodes = append(backend.AtNodes, at)
		}
		// An observation of an address that the backend has left counts for nothing.
		if o := local.Observation; o != nil && o.URL == backend.URL {
			backend.Observers = append(backend.Observers, newObserver(nodes[i].Name, o, now))
			if o.At.After(checked) {
				checked = o.At
			}
			if o.Healthy {
				steady = append(steady, o.Steady)
			}
		}
	}
	backend.Held = held(b, steady, len(backend.Observers))
	backend.LastHealthCheck = formatTime(checked)
	return backend
}

// held says how far a backend that flaps has come, empty if it is not held any more, or
// if its observers do not find it healthy.
func held(b *state.Backend, steady []time.Duration, observers int) string {
	need := observers/2 + 1
	if b.Hold() == 0 || len(steady) < need {
		return ""
	}
	slices.Sort(steady)
	healthy := steady[len(steady)-need]
	if healthy >= b.Hold() {
		return ""
	}
	return fmt.Sprintf("flapping: healthy for %s of %s", healthy.Truncate(time.Second), b.Hold())
}

func newObserver(node string, o *cluster.Observation, now time.Time) Observer {
	return Observer{
		Node:      node,
		Healthy:   o.Healthy,
		AgeMS:     max(now.Sub(o.At).Milliseconds(), 0), // clocks of nodes differ
		LatencyMS: float64(o.Latency.Round(10*time.Microsecond)) / float64(time.Millisecond),
		Reason:    o.Reason,
	}
}
