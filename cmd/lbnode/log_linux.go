package main

import (
	"io"
	"os"
	"syscall"
)

// apart returns what the log is written to, whose writes may block. Where stderr is a
// pipe, the runtime, which prints there why a process crashes, gets an end of its own
// that does not block, and os.Stderr is the one that does: a process that crashes and
// waits for a reader would hold its ports and answer nobody, for good.
func apart(stderr io.Writer) (io.Writer, error) {
	file, ok := stderr.(*os.File)
	if !ok || file != os.Stderr {
		return struct{ io.Writer }{stderr}, nil
	}
	var is syscall.Stat_t
	if err := syscall.Fstat(syscall.Stderr, &is); err != nil || is.Mode&syscall.S_IFMT != syscall.S_IFIFO {
		return struct{ io.Writer }{stderr}, nil
	}
	// Opened anew, since who shares the other end relies on that it blocks.
	own, err := syscall.Open("/proc/self/fd/2", syscall.O_WRONLY|syscall.O_NONBLOCK|syscall.O_CLOEXEC, 0)
	if err != nil { // no /proc, or another user's pipe: then a crash may wait
		return struct{ io.Writer }{stderr}, nil
	}
	defer syscall.Close(own)
	shared, err := syscall.Dup(syscall.Stderr)
	if err != nil {
		return nil, os.NewSyscallError("dup", err)
	}
	syscall.CloseOnExec(shared)
	if err := syscall.Dup3(own, syscall.Stderr, 0); err != nil {
		syscall.Close(shared)
		return nil, os.NewSyscallError("dup3", err)
	}
	os.Stderr = os.NewFile(uintptr(shared), os.Stderr.Name())
	return struct{ io.Writer }{os.Stderr}, nil
}
