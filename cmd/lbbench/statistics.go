//go:build linux

package main

import (
	"math"
	"slices"
)

// estimate is a median and where, with 95 % confidence, the true value lies.
type estimate struct {
	median    float64
	low, high float64 // both NaN if there were too few values
	n         int
}

// certain says whether the interval is known.
func (e estimate) certain() bool { return !math.IsNaN(e.low) }

// median returns the middle of the values, NaN if there are none.
func median(values []float64) float64 {
	if len(values) == 0 {
		return math.NaN()
	}
	sorted := slices.Sorted(slices.Values(values))
	middle := len(sorted) / 2
	if len(sorted)%2 == 1 {
		return sorted[middle]
	}
	return (sorted[middle-1] + sorted[middle]) / 2
}

// estimateRatio judges ratios that were each taken within one round. The interval
// is Student's over their logarithms, which makes a/b and b/a two views of the
// same result; it is that of their geometric mean. Any other values above 0 whose
// logarithms are nearly normal can be judged so, too.
func estimateRatio(ratios []float64) estimate {
	e := estimate{median: median(ratios), low: math.NaN(), high: math.NaN(), n: len(ratios)}
	if len(ratios) < 2 {
		return e
	}
	var mean, squares float64
	for _, r := range ratios {
		mean += math.Log(r) / float64(len(ratios))
	}
	for _, r := range ratios {
		squares += (math.Log(r) - mean) * (math.Log(r) - mean)
	}
	n := float64(len(ratios))
	half := studentT(len(ratios)-1) * math.Sqrt(squares/(n-1)/n)
	e.low, e.high = math.Exp(mean-half), math.Exp(mean+half)
	return e
}

// studentT returns the 97.5 % quantile of Student's distribution. Above the table
// it is Cornish and Fisher's expansion about the normal one, good to 4 digits.
func studentT(degrees int) float64 {
	table := []float64{12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622, 2.2281}
	if degrees <= len(table) {
		return table[degrees-1]
	}
	const z = 1.959964
	n := float64(degrees)
	return z + (math.Pow(z, 3)+z)/(4*n) + (5*math.Pow(z, 5)+16*math.Pow(z, 3)+3*z)/(96*n*n) +
		(3*math.Pow(z, 7)+19*math.Pow(z, 5)+17*math.Pow(z, 3)-15*z)/(384*n*n*n)
}

// percentile returns the value that the share q of the sorted values does not
// exceed.
func percentile(sorted []int64, q float64) int64 {
	if len(sorted) == 0 {
		return 0
	}
	rank := int(math.Ceil(q*float64(len(sorted)))) - 1
	return sorted[min(max(rank, 0), len(sorted)-1)]
}
