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
	"maps"
	"slices"
	"sync/atomic"
	"time"
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
	// Unit is what a weight of 1 has become: more than 1, for all targets alike, while
	// some have a part of their weight only. 0 is 1.
	Unit int
	// Via is how the data plane reaches it. Strategies do not look at it.
	Via any
	*Local
}

// Local is what only this node knows of a backend. Every Target of the backend
// shares it for as long as the backend keeps its address. It fills a cache line, so that no
// two backends share one.
type Local struct {
	// InFlight counts the attempts under way at the backend.
	InFlight atomic.Int64
	// Unreachable is set while this node cannot connect to the backend.
	Unreachable atomic.Bool
	// Failures counts the attempts that failed since one did not.
	Failures atomic.Int32
	// Trial says whether requests are sent one at a time, to see whether it works.
	Trial atomic.Int32
	// Keeps says whether clients that are kept at the backend may stay there.
	Keeps atomic.Bool
	// Streak counts the attempts in a row by which the backend failed to answer as it
	// should, Asked all attempts of a while and Failed such ones; only where outliers are
	// ejected.
	Streak        atomic.Int32
	Asked, Failed atomic.Int64

	service estimate // the time that one request takes, as leastTime has it
	peak    peak     // the time until an answer, as p2c has it
}

// The values of Local.Trial.
const (
	NoTrial int32 = iota
	TrialWanted
	TrialRuns
)

// occupied is added to the load of a backend that takes no request just now.
const occupied = 1 << 20

// load is what strategies that compare targets go by: how many attempts are under way.
// A backend on trial, with its one request, must not look like one that has little to do.
func (l *Local) load() uint64 {
	n := uint64(max(l.InFlight.Load(), 0))
	if l.Trial.Load() == TrialRuns {
		n += occupied
	}
	return n
}

// Strategy picks the next target of a pool. One that is an [Observer] or a [Counter], too,
// is told of attempts.
type Strategy interface {
	// Update replaces the targets to pick from. It never runs concurrently with
	// itself, but may with Pick. What the strategy has learned so far, such as
	// whose turn it is, stays.
	Update(eligible []*Target)
	// Pick returns the next target, never a backend in tried, and nil if no other
	// is left. The key, by [Key], is what requests have in common that should go to one
	// backend; most strategies do not look at it. Pick is called concurrently, takes no
	// lock and allocates nothing.
	Pick(key uint64, tried []*Target) *Target
}

// Observer is a strategy that learns how long targets take.
type Observer interface {
	// Observe is told of an attempt that tells something of the target. It is called
	// concurrently and takes no lock.
	Observe(t *Target, a Attempt)
}

// Attempt is what an Observer is told of one.
type Attempt struct {
	// Latency is the time until the answer began or the attempt failed.
	Latency time.Duration
	// Queue is how many others were under way at the target when it began.
	Queue int64
	// Failed says that it brought no answer, or one by which the target says that it
	// cannot give any.
	Failed bool
}

// Counter is a strategy that has to know how many attempts of the pool are under way.
type Counter interface {
	// Count is told that so many more, or fewer, are. It is called concurrently and
	// takes no lock.
	Count(delta int64)
}

// strategies is the one list of names. What each is built with is where it starts and the
// clock that it goes by, in ticks.
var strategies = map[string]func(offset int, now func() uint32) Strategy{
	"round_robin":       func(offset int, _ func() uint32) Strategy { return newRoundRobin(offset) },
	"random":            func(int, func() uint32) Strategy { return newRandom() },
	"least_connections": func(int, func() uint32) Strategy { return newLeastConnections() },
	"p2c":               func(_ int, now func() uint32) Strategy { return newP2C(now) },
	"least_time":        func(_ int, now func() uint32) Strategy { return newLeastTime(now) },
	"hash":              func(int, func() uint32) Strategy { return newHash() },
}

// New returns the strategy of that name, without targets. The offset, at least 0,
// is where it starts, if it takes turns: nodes with different offsets do not pick in
// step. The error is for a name that is not known.
func New(name string, offset int) (Strategy, error) { return build(name, offset, ticks) }

// NewWithClock is New for a strategy that goes by another clock than the machine's: where
// time is simulated, what was learned must grow old by that time. Now is the time since
// any moment, the same at each call.
func NewWithClock(name string, offset int, now func() time.Duration) (Strategy, error) {
	return build(name, offset, func() uint32 { return uint32(now() >> tickBits) })
}

func build(name string, offset int, now func() uint32) (Strategy, error) {
	made, ok := strategies[name]
	if !ok {
		return nil, fmt.Errorf("cannot balance by %q: there is no such strategy", name)
	}
	return made(offset, now), nil
}

// unit is Unit, 1 at least.
func (t *Target) unit() uint64 { return uint64(max(t.Unit, 1)) }

// Names are those of all strategies, in alphabetical order.
func Names() []string { return slices.Sorted(maps.Keys(strategies)) }

// among says whether the backend of t is one of those tried. A change of the view
// may have made a new Target of a backend, so that the id decides.
func (t *Target) among(tried []*Target) bool {
	return slices.ContainsFunc(tried, func(other *Target) bool { return other.ID == t.ID })
}
