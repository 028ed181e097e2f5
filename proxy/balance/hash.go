package balance

import (
	"cmp"
	"encoding/binary"
	"math/bits"
	"slices"
	"sync/atomic"
)

// A target may have overNumerator/overDenominator times the attempts under way that
// would be its share, and fewAttempts in any case: that is no load, and a browser asks for
// six things at once, which belong together.
const (
	overNumerator   = 5
	overDenominator = 4
	fewAttempts     = 8
)

// someSteps is how often a key is passed on by the table before all targets are looked
// at one after the other.
const someSteps = 16

// hash sends the requests of one key to one target, the same one on every node, as long
// as that has not much more to do than the others. What is too much for it goes to the
// target that is next for the key, which is the same for all of the key's requests, too.
type hash struct {
	ring     atomic.Pointer[hashRing]
	underWay atomic.Int64
}

// hashRing is what is picked from. It is the same for the same targets in any order.
type hashRing struct {
	*scan
	total uint64  // of the weights
	table []int32 // of places in scan
}

func newHash() *hash {
	h := &hash{}
	h.ring.Store(&hashRing{scan: newScan(nil)})
	return h
}

// Update implements Strategy. The table is made anew only if it would be another.
func (h *hash) Update(eligible []*Target) {
	sorted := slices.SortedFunc(slices.Values(eligible), func(a, b *Target) int { return cmp.Compare(a.ID, b.ID) })
	ring := &hashRing{scan: newScan(sorted)}
	for _, c := range ring.cells {
		ring.total += c.weight
	}
	if old := h.ring.Load(); slices.EqualFunc(old.targets, sorted, sameShare) {
		ring.table = old.table
	} else {
		ring.table = maglev(sorted)
	}
	h.ring.Store(ring)
}

func sameShare(a, b *Target) bool { return a.ID == b.ID && a.Weight == b.Weight }

// Count implements Counter.
func (h *hash) Count(delta int64) { h.underWay.Add(delta) }

// Pick implements Strategy. If all have too much to do, which may be while attempts are
// under way that were begun by another strategy, the key stays where it belongs.
func (h *hash) Pick(key uint64, tried []*Target) *Target {
	r := h.ring.Load()
	n := len(r.targets)
	if n == 0 {
		return nil
	}
	underWay := uint64(max(h.underWay.Load(), 0)) + 1
	var first *Target
	for step := range someSteps + n {
		var at int
		if step < someSteps {
			at = r.place(key, step)
		} else {
			at = (r.place(key, 0) + step - someSteps) % n
		}
		t := r.targets[at]
		if len(tried) > 0 && t.among(tried) {
			continue
		}
		if r.hasRoom(at, underWay) {
			return t
		}
		if first == nil {
			first = t
		}
	}
	return first
}

// place is where a key is sent by the table at that step.
func (r *hashRing) place(key uint64, step int) int {
	slot, _ := bits.Mul64(scatter(key+uint64(step)*0x9e3779b97f4a7c15), uint64(len(r.table)))
	return int(r.table[slot])
}

// hasRoom says whether a target may have one more, with so many under way.
func (r *hashRing) hasRoom(at int, underWay uint64) bool {
	c := &r.cells[at]
	load := c.load()
	return load < fewAttempts || overDenominator*load*r.total < overNumerator*underWay*c.weight
}

// Key is the key of what requests have in common. It is the same on every node and in
// every version: nodes that differ would send one client to two backends.
func Key(text []byte) uint64 {
	key := uint64(len(text))
	for ; len(text) >= 8; text = text[8:] {
		key = fold(key ^ binary.LittleEndian.Uint64(text))
	}
	rest := uint64(0)
	for i, c := range text {
		rest |= uint64(c) << (8 * i)
	}
	return fold(key ^ rest)
}

// fold mixes by a multiplication of which both halves count.
func fold(x uint64) uint64 {
	high, low := bits.Mul64(x^0x8ebc6af09c88c6e3, 0xa0761d6478bd642f)
	return high ^ low
}

// scatter makes each bit of the result depend on each bit of x.
func scatter(x uint64) uint64 {
	x = (x ^ x>>33) * 0xff51afd7ed558ccd
	x = (x ^ x>>33) * 0xc4ceb9fe1a85ec53
	return x ^ x>>33
}
