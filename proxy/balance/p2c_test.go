package balance

import (
	"math"
	"testing"
)

func TestPeak(t *testing.T) {
	const half, mean = 1 << peakHalfLifeBits, 800
	type sample struct{ value, at uint32 }
	for _, test := range []struct {
		name    string
		samples []sample
		now     uint32
		want    uint64 // above or below the mean
	}{
		{"nothing", nil, 5, 0},
		{"the first", []sample{{3000, 5}}, 5, 2200},
		{"less than the mean", []sample{{300, 5}}, 5, -500 & math.MaxUint64},
		{"rises at once", []sample{{1000, 5}, {3000, 5}}, 5, 2200},
		{"does not fall at once", []sample{{3000, 5}, {1000, 5}}, 5, 2200},
		{"falls slowly", []sample{{3000, 5}, {1000, 5 + half}}, 5 + half, 1200},
		{"one as long keeps it up", []sample{{3000, 5}, {3000, 5 + half}}, 5 + half, 2200},
		{"half is left", []sample{{3000, 5}}, 5 + half, 1100},
		{"a quarter is left", []sample{{3000, 5}}, 5 + 2*half, 550},
		{"nothing is left", []sample{{3000, 5}}, 5 + 99*half, 0},
		{"nor of one below", []sample{{300, 5}}, 5 + 99*half, 0},
		{"of no time", []sample{{0, 5}}, 5, (1 - mean) & math.MaxUint64},
		{"a moment before", []sample{{3000, 5}}, 4, 2200},
		{"as long as can be", []sample{{math.MaxUint32, 5}, {math.MaxUint32, 6}}, 6, math.MaxUint32 - mean},
		{"over the wrap of the clock", []sample{{3000, math.MaxUint32 - 5}, {1000, half - 6}}, half - 6, 1200},
	} {
		var p peak
		for _, s := range test.samples {
			p.learn(uint64(s.value), s.at)
		}
		if got, want := p.need(test.now, mean), parts*mean+test.want; got != want {
			t.Errorf("%s: got %d, want %d", test.name, got, want)
		}
	}
}
