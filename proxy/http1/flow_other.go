//go:build !linux

package http1

import "syscall"

// flow knows nothing here: a tunnel ends in time once an end was read.
func flow(syscall.RawConn) (whole bool, moved uint64) { return true, 0 }

// wasReset cannot tell.
func wasReset(syscall.RawConn) bool { return false }
