//go:build linux

package main

import (
	"syscall"
	"unsafe"
)

// Sockets that do not block are read and written without telling the scheduler,
// and waits are told to nobody but the kernel.

func readNow(fd int, buffer []byte) (int, syscall.Errno) {
	n, _, err := syscall.RawSyscall(syscall.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(&buffer[0])), uintptr(len(buffer)))
	return int(n), err
}

// writeNow never raises SIGPIPE.
func writeNow(fd int, data []byte) (int, syscall.Errno) {
	n, _, err := syscall.RawSyscall6(syscall.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(&data[0])), uintptr(len(data)), syscall.MSG_NOSIGNAL, 0, 0)
	return int(n), err
}

// sysEpollPwait2 is the number of epoll_pwait2 on all architectures.
const sysEpollPwait2 = 441

// epollWaitFor waits for at most the given nanoseconds; epoll_wait itself counts
// in milliseconds. Linux has it since 5.11.
func epollWaitFor(epoll int, events []syscall.EpollEvent, nanoseconds int64) (int, syscall.Errno) {
	timeout := syscall.NsecToTimespec(max(0, nanoseconds))
	n, _, err := syscall.Syscall6(sysEpollPwait2, uintptr(epoll), uintptr(unsafe.Pointer(&events[0])), uintptr(len(events)),
		uintptr(unsafe.Pointer(&timeout)), 0, 0)
	return int(n), err
}
