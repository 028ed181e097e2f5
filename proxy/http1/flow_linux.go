package http1

import (
	"syscall"
	"unsafe"
)

// tcpInfo is as much of the kernel's struct tcp_info as is used here (linux/tcp.h).
type tcpInfo struct {
	state    uint8
	_        [119]byte
	acked    uint64 // bytes that the peer has got
	received uint64
}

// States of a connection (linux/tcp_states.h).
const (
	established = 1
	finished    = 7
)

// flow says whether a connection is whole, neither side having ended it, and how many bytes
// the peer has sent and got.
func flow(raw syscall.RawConn) (whole bool, moved uint64) {
	if raw == nil {
		return true, 0
	}
	raw.Control(func(fd uintptr) {
		info := infoOf(fd)
		whole, moved = info.state == established, info.acked+info.received
	})
	return whole, moved
}

// wasReset says whether a connection of which the end was read was reset instead: the error
// is told once, and may have been to who writes. That after its end it was reset, because
// it was closed, is another error.
func wasReset(raw syscall.RawConn) (reset bool) {
	if raw == nil {
		return false
	}
	err := raw.Control(func(fd uintptr) {
		if infoOf(fd).state == finished {
			why, err := syscall.GetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_ERROR)
			reset = err != nil || syscall.Errno(why) != syscall.EPIPE
		}
	})
	return reset || err != nil // or it was closed because of that
}

// infoOf gives nothing of a socket that is closed.
func infoOf(fd uintptr) (info tcpInfo) {
	size := uint32(unsafe.Sizeof(info))
	syscall.Syscall6(syscall.SYS_GETSOCKOPT, fd, syscall.IPPROTO_TCP, syscall.TCP_INFO,
		uintptr(unsafe.Pointer(&info)), uintptr(unsafe.Pointer(&size)), 0)
	return info
}
