// Package cluster is how nodes agree: they find one another by gossip
// (memberlist), form one cluster exactly once, and keep one log of commands by
// Raft, which the state machine of package state turns into the same view on
// every node. Writes may be proposed on any node. The leader has duties besides:
// it keeps Raft's members in step with the gossip's, and turns the observations
// of the nodes into verdicts.
//
// It carries no traffic and probes nothing; it knows of both only what the
// wiring tells it.
//
// Invariants: a node votes under an id that was made once and lives in its data
// directory; no node takes part in two clusters; a view is never replaced by an
// older one.
package cluster
