//go:build !race

package state

// randomLogs is how many logs TestRandomLogs draws.
const randomLogs = 2500
