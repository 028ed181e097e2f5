//go:build !race

package state

// draws is how many logs TestRandomLogs draws, and the measure of other tests
// with random input.
const draws = 2500
