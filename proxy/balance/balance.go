// Package balance holds the strategies by which a pool picks its next backend.
//
// A strategy sees eligible targets only: whether a backend is healthy, wanted by
// the operator or reachable is settled before, once for all strategies. Nothing
// here knows of requests, connections or the view.
//
// Invariant: picking takes no lock and allocates nothing.
package balance

import (
	"fmt"
	"slices"
	"sync/atomic"
)

// Target is one backend as this node's data plane sees it. It is immutable but
// for what Local points to; a change of the backend makes a new Target.
type Target struct {
	// ID is the backend's id, Name its name in the pool.
	ID   string
	Name string
	// Protocol is "http" or "https".
	Protocol string
	// Addr is the address to connect to, host:port.
	Addr string
	// Weight is the target's share beside the others', at least 1.
	Weight int
	// Via is how the data plane reaches it. Strategies do not look at it.
	Via any
	*Local
}

// Local is what only this node knows of a backend. Every Target of the backend
// shares it for as long as the backend keeps its address.
type Local struct {
	// InFlight counts the attempts under way at the backend.
	InFlight atomic.Int64
	// Unreachable is set while this node cannot connect to the backend.
	Unreachable atomic.Bool
	// Failures counts the attempts that failed since one did not.
	Failures atomic.Int32
	// Streak counts the attempts in a row that failed or were answered with 5xx, Asked
	// and Failed all attempts and those of a while; only where outliers are ejected.
	Streak        atomic.Int32
	Asked, Failed atomic.Int64
	// Trial says whether requests are sent one at a time, to see whether it works.
	Trial atomic.Int32
}

// The values of Local.Trial.
const (
	NoTrial int32 = iota
	TrialWanted
	TrialRuns
)

// Strategy picks the next target of a pool.
type Strategy interface {
	// Update replaces the targets to pick from. It never runs concurrently with
	// itself, but may with Pick. What the strategy has learned so far, such as
	// whose turn it is, stays.
	Update(eligible []*Target)
	// Pick returns the next target, never a backend in tried, and nil if no other
	// is left. It is called concurrently, takes no lock and allocates nothing.
	Pick(tried []*Target) *Target
}

// strategies is the one list of names.
var strategies = map[string]func(offset int) Strategy{
	"round_robin": func(offset int) Strategy { return newRoundRobin(offset) },
}

// New returns the strategy of that name, without targets. The offset, at least 0,
// is where it starts: nodes with different offsets do not pick in step. The error
// is for a name that is not known.
func New(name string, offset int) (Strategy, error) {
	build, ok := strategies[name]
	if !ok {
		return nil, fmt.Errorf("cannot balance by %q: there is no such strategy", name)
	}
	return build(offset), nil
}

// among says whether the backend of t is one of those tried. A change of the view
// may have made a new Target of a backend, so that the id decides.
func (t *Target) among(tried []*Target) bool {
	return slices.ContainsFunc(tried, func(other *Target) bool { return other.ID == t.ID })
}
