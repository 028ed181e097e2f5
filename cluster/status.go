package cluster

import (
	"time"

	"lbnode/state"
)

// MemberState is how this node sees another one.
type MemberState string

// The states of a member: answering; not answering of late; given up; gone of
// its own accord.
const (
	Alive   MemberState = "alive"
	Suspect MemberState = "suspect"
	Failed  MemberState = "failed"
	Left    MemberState = "left"
)

// Status is the whole cluster as one node sees it.
type Status struct {
	ClusterID string
	// AsSeenBy is the name of the node that looked.
	AsSeenBy string
	// Leader is the leader's name, empty while there is none.
	Leader      string
	Term        uint64
	CommitIndex uint64
	// Quorum is how many voters must agree on a write.
	Quorum int
	// FailureTolerance is how many more voters may die before writes stop.
	FailureTolerance int
	// Agreement is true when every alive node serves a view of one digest, which it did not
	// only keep from before it was started.
	Agreement bool
	// Healthy is true when there is a leader, every node is alive and all agree.
	Healthy bool
	// Degraded is why this node cannot take writes, empty if it can.
	Degraded string
	// Warnings are sentences on what is not as it should be although the cluster
	// works, such as a link that loses packets.
	Warnings []string
	// Nodes are all known nodes, sorted by name, then id.
	Nodes []NodeStatus
}

// NodeStatus is one node. Of a node that is not alive, or did not answer in
// time, the fields below Leader are what it last said.
type NodeStatus struct {
	ID        string
	Name      string
	Addr      string // gossip address, host:port
	RaftAddr  string
	AdminAddr string
	HTTPAddr  string
	Version   string
	State     MemberState
	Member    bool // of Raft
	Voter     bool
	Leader    bool

	Report
	// Lag is how many log entries the node has yet to apply.
	Lag uint64
}

// Report is what a node says of itself when it is asked.
type Report struct {
	View ViewStatus `json:"view"`
	// AppliedIndex is the last log entry that the node has applied.
	AppliedIndex uint64 `json:"applied_index"`
	// LastContact is how long ago the node heard from the leader; 0 on the leader
	// itself, negative if never.
	LastContact time.Duration `json:"last_contact"`
	Local       Local         `json:"local"`
	// StoreBytes is the size of the file that holds the log.
	StoreBytes int64 `json:"store_bytes"`
	// Problems are what the node has to complain of, such as its disk.
	Problems []string `json:"problems,omitempty"`
	// Secrets are the fingerprints of the secrets that the node accepts, the one it
	// uses first; none without -secret.
	Secrets []string `json:"secrets,omitempty"`
}

// ViewStatus says which view a node serves.
type ViewStatus struct {
	Index  uint64 `json:"index"`
	Digest string `json:"digest"`
	// Stale is true while the node serves the view that it kept on disk, because
	// it has not heard from a leader since it started.
	Stale bool `json:"stale,omitempty"`
}

// Local is what only the node itself can know, of its own traffic and probes.
type Local struct {
	// Ready is true when the node takes traffic.
	Ready bool `json:"ready"`
	// RequestsPerSecond is the mean over the last seconds.
	RequestsPerSecond float64 `json:"requests_per_second"`
	// Backends is keyed by backend id.
	Backends map[string]LocalBackend `json:"backends,omitempty"`
	// Panics are the pools in which the node ignores health: too few backends are fit.
	Panics []string `json:"panics,omitempty"`
}

// LocalBackend is what one node knows of one backend.
type LocalBackend struct {
	// InFlight is how many requests the node has under way at the backend.
	InFlight int `json:"in_flight"`
	// Ejected is the URL of a backend that the node sends nothing for a while because
	// it fails, empty if that is not so.
	Ejected string `json:"ejected,omitempty"`
	// CircuitOpen is the URL of a backend that the node sends nothing until there is a trial,
	// because too many requests failed in a row; empty if that is not so.
	CircuitOpen string `json:"circuit_open,omitempty"`
	// Unreachable is the URL of a backend to which the node cannot connect, empty if it can
	// or has not tried.
	Unreachable string `json:"unreachable,omitempty"`
	// Observation is the node's last probe, nil if the node does not probe it, or has not of
	// late.
	Observation *Observation `json:"observation,omitempty"`
}

// Observation is what one node's probes say of one backend.
type Observation struct {
	BackendID string `json:"backend_id"`
	// URL is the address that was probed; an observation of an address that the
	// backend has left counts for nothing.
	URL string `json:"url"`
	// Healthy is the node's opinion after its rise and fall thresholds.
	Healthy bool `json:"healthy"`
	// At is when the last probe ended.
	At      time.Time     `json:"at"`
	Latency time.Duration `json:"latency"`
	// Reason is what the last probe found, such as "200 OK" or "connection refused".
	Reason string `json:"reason"`
	// Steady is how long the opinion had been the same at that time.
	Steady time.Duration `json:"steady,omitempty"`
	// Agent is what the backend's agent asks for.
	Agent state.Wish `json:"agent,omitzero"`
}
