package balance

import (
	"math"
	"math/bits"
	"math/rand/v2"
)

// someDraws is how often one that is not wanted is drawn again before all are looked at.
const someDraws = 4

// draws are targets to be drawn at random by weight, each with the same few steps
// however many there are (the alias method): a column for each target, as high as all
// others, of which it has a share, and another target the rest.
type draws struct {
	targets []*Target
	columns []column
}

type column struct {
	share uint32 // in parts of 1<<32
	other uint32
}

func newDraws(targets []*Target) *draws {
	d := &draws{targets: targets, columns: make([]column, len(targets))}
	total := uint64(0)
	for _, t := range targets {
		total += uint64(t.Weight)
	}
	parts := make([]uint64, len(targets)) // of which a column holds total
	var low, high []uint32
	for i, t := range targets {
		d.columns[i] = column{math.MaxUint32, uint32(i)}
		parts[i] = uint64(t.Weight) * uint64(len(targets))
		if parts[i] < total {
			low = append(low, uint32(i))
		} else {
			high = append(high, uint32(i))
		}
	}
	for len(low) > 0 && len(high) > 0 {
		poor, rich := low[len(low)-1], high[len(high)-1]
		d.columns[poor] = column{uint32(parts[poor] << 32 / total), rich}
		low = low[:len(low)-1]
		if parts[rich] -= total - parts[poor]; parts[rich] < total {
			high, low = high[:len(high)-1], append(low, rich)
		}
	}
	return d
}

// draw draws one of at least one.
func (d *draws) draw() *Target {
	at, rest := bits.Mul64(rand.Uint64(), uint64(len(d.columns)))
	if c := d.columns[at]; uint32(rest>>32) > c.share {
		at = uint64(c.other)
	}
	return d.targets[at]
}

// drawOther draws one that was not tried and is not but, nil if there is none.
func (d *draws) drawOther(but *Target, tried []*Target) *Target {
	for range min(someDraws, len(d.targets)) {
		if t := d.draw(); t != but && !t.among(tried) {
			return t
		}
	}
	left := newChoice()
	for i, t := range d.targets {
		if t != but && !t.among(tried) {
			left.offer(i, 0, uint64(t.Weight))
		}
	}
	if left.at < 0 {
		return nil
	}
	return d.targets[left.at]
}
