//go:build unix

package main

import (
	"io/fs"
	"os"
	"syscall"
)

// childAttributes gives a process a group of its own.
func childAttributes() *syscall.SysProcAttr {
	attributes := &syscall.SysProcAttr{Setpgid: true}
	dieWithParent(attributes)
	return attributes
}

// ownedByUs says whether a file belongs to the user who runs this program.
func ownedByUs(info fs.FileInfo) bool {
	stat, ok := info.Sys().(*syscall.Stat_t)
	return ok && int(stat.Uid) == os.Getuid()
}
