//go:build race

package state

// randomLogs is fewer here: the race detector makes each log ten times as slow,
// and has nothing to find in a test of one goroutine.
const randomLogs = 500
