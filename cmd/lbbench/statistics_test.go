//go:build linux

package main

import (
	"math"
	"math/rand/v2"
	"testing"
)

func near(got, want, tolerance float64) bool { return math.Abs(got-want) <= tolerance }

func TestMedian(t *testing.T) {
	for _, c := range []struct {
		values []float64
		want   float64
	}{
		{[]float64{3}, 3},
		{[]float64{3, 1, 2}, 2},
		{[]float64{4, 1, 3, 2}, 2.5},
	} {
		if got := median(c.values); got != c.want {
			t.Errorf("median(%v): got %v, want %v", c.values, got, c.want)
		}
	}
	if got := median(nil); !math.IsNaN(got) {
		t.Errorf("median of nothing: got %v, want NaN", got)
	}
}

func TestStudentT(t *testing.T) {
	for degrees, want := range map[int]float64{1: 12.706, 4: 2.776, 10: 2.228, 11: 2.201, 20: 2.086, 30: 2.042, 120: 1.980} {
		if got := studentT(degrees); !near(got, want, 0.001) {
			t.Errorf("%d degrees: got %.4f, want %.3f", degrees, got, want)
		}
	}
}

func TestEstimateRatio(t *testing.T) {
	for _, c := range []struct {
		name      string
		ratios    []float64
		median    float64
		low, high float64
	}{
		{"equal", []float64{0.5, 0.5, 0.5}, 0.5, 0.5, 0.5},
		// Logarithms are -d, 0, d with d = ln 1.1: the deviation is d, the half width 4.3027·d/√3.
		{"spread", []float64{1 / 1.1, 1, 1.1}, 1, math.Pow(1.1, -4.3027/math.Sqrt(3)), math.Pow(1.1, 4.3027/math.Sqrt(3))},
	} {
		got := estimateRatio(c.ratios)
		if !near(got.median, c.median, 1e-9) || !near(got.low, c.low, 1e-6) || !near(got.high, c.high, 1e-6) {
			t.Errorf("%s: got %+v, want %v [%v, %v]", c.name, got, c.median, c.low, c.high)
		}
	}
	if got := estimateRatio([]float64{0.7}); got.certain() || got.median != 0.7 {
		t.Errorf("one ratio: got %+v, want 0.7 without an interval", got)
	}
}

// An inverse ratio has the inverse interval.
func TestEstimateIsSymmetric(t *testing.T) {
	ratios, inverse := []float64{0.8, 0.9, 1.3}, []float64{1 / 0.8, 1 / 0.9, 1 / 1.3}
	a, b := estimateRatio(ratios), estimateRatio(inverse)
	if !near(a.low, 1/b.high, 1e-9) || !near(a.high, 1/b.low, 1e-9) {
		t.Errorf("got %v and %v, want one to be the inverse of the other", a, b)
	}
}

// The interval holds the true ratio as often as it claims.
func TestIntervalCovers(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	const trials, truth = 4000, 0.85
	held := 0
	for range trials {
		var ratios []float64
		for range 5 {
			ratios = append(ratios, truth*math.Exp(0.1*random.NormFloat64()))
		}
		if e := estimateRatio(ratios); e.low <= truth && truth <= e.high {
			held++
		}
	}
	if share := float64(held) / trials; !near(share, 0.95, 0.015) {
		t.Errorf("got the truth inside %.3f of intervals, want 0.95", share)
	}
}

func TestPercentile(t *testing.T) {
	thousand := make([]int64, 1000)
	for i := range thousand {
		thousand[i] = int64(i + 1)
	}
	for _, c := range []struct {
		sorted []int64
		q      float64
		want   int64
	}{
		{nil, 0.5, 0},
		{[]int64{7}, 0.999, 7},
		{thousand, 0, 1},
		{thousand, 0.5, 500},
		{thousand, 0.99, 990},
		{thousand, 0.999, 999},
		{thousand, 1, 1000},
	} {
		if got := percentile(c.sorted, c.q); got != c.want {
			t.Errorf("percentile %v of %d values: got %d, want %d", c.q, len(c.sorted), got, c.want)
		}
	}
}
