//go:build !linux

package http1

import "syscall"

// flow knows nothing here: a tunnel ends in time once an end was read.
func flow(syscall.RawConn) (whole bool, moved uint64) { return true, 0 }

// wasReset cannot tell.
func wasReset(syscall.RawConn) bool { return false }

// acked, taken and queued tell nothing: what a goroutine notes is all the progress that counts.
func acked(syscall.RawConn) uint64 { return 0 }
func taken(syscall.RawConn) uint64 { return 0 }
func queued(syscall.RawConn) int   { return -1 }
