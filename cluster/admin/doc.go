// Package admin is the control surface of a node: an HTTP API to read the
// cluster and to change it, readiness, metrics, and the typed client that the
// command line uses.
//
// It decides nothing about the cluster. Reads come from the view that this node
// serves and from what the nodes say of themselves; writes are proposed to the
// cluster and answered when this node has applied them. It carries no traffic.
//
// Invariants: GET changes nothing; a write that cannot be understood to its last
// key is refused whole; /cluster, /livez, /readyz and /metrics answer without
// quorum.
package admin
