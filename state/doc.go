// Package state is what is true: the replicated facts of a cluster (its id,
// routes, pools, backends and their agreed health) and the machine that
// applies commands to them.
//
// It knows nothing of how commands are agreed on, sent or stored. It uses the
// standard library only, reads no clock, draws no random number, does no I/O and
// logs nothing: whatever differs between nodes (ids, times) comes in with the
// command.
//
// Invariant: the same commands at the same indexes give the same [View], the
// same digest and the same snapshot bytes on every node, and a View, once
// handed out, never changes.
package state
