//go:build race

package state

// draws is less here: the race detector makes each log ten times as slow, and
// has nothing to find in a test of one goroutine.
const draws = 300
