package balance

import "sync/atomic"

// random draws targets by weight. It knows nothing of what it drew before, so that any
// number of nodes together do what one would.
type random struct{ draws atomic.Pointer[draws] }

func newRandom() *random {
	r := &random{}
	r.Update(nil)
	return r
}

// Update implements Strategy.
func (r *random) Update(eligible []*Target) { r.draws.Store(newDraws(eligible)) }

// Pick implements Strategy.
func (r *random) Pick(_ uint64, tried []*Target) *Target { return r.draws.Load().drawOther(nil, tried) }
