// The race detector sees what goes through the syscall package only.

//go:build linux && !race

package http1

import (
	"syscall"
	"unsafe"
)

// The runtime hears of none of the system calls here: they do not wait, and telling
// it costs as much as some of them take.

// recv reads from a socket that does not block.
func recv(fd uintptr, b []byte) (int, error) {
	for {
		n, _, err := syscall.RawSyscall6(syscall.SYS_RECVFROM, fd, uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)), syscall.MSG_DONTWAIT, 0, 0)
		switch err {
		case 0:
			return int(n), nil
		case syscall.EINTR:
		default:
			return 0, err
		}
	}
}

// send writes to a socket that does not block. It returns less than all, and no
// error, if the socket takes no more.
func send(fd uintptr, b []byte) (int, error) {
	for {
		n, _, err := syscall.RawSyscall6(syscall.SYS_SENDTO, fd, uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)), syscall.MSG_DONTWAIT|syscall.MSG_NOSIGNAL, 0, 0)
		switch err {
		case 0:
			return int(n), nil
		case syscall.EINTR:
		case syscall.EAGAIN:
			return 0, nil
		default:
			return 0, err
		}
	}
}
