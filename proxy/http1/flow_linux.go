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

// acked is how many bytes that were sent over a connection its other end has acknowledged.
func acked(raw syscall.RawConn) (n uint64) {
	if raw != nil {
		raw.Control(func(fd uintptr) { n = infoOf(fd).acked })
	}
	return n
}

// taken is how many bytes were read of a connection.
func taken(raw syscall.RawConn) (n uint64) {
	if raw != nil {
		raw.Control(func(fd uintptr) { n = infoOf(fd).received - uint64(max(bytesIn(fd, syscall.TIOCINQ), 0)) })
	}
	return n
}

// queued is how many bytes that were sent over a connection the other end does not have
// yet; -1 if that cannot be told.
func queued(raw syscall.RawConn) int {
	n := -1
	if raw != nil {
		raw.Control(func(fd uintptr) { n = bytesIn(fd, syscall.TIOCOUTQ) })
	}
	return n
}

// bytesIn is how many are in one of a socket's queues; -1 if the socket is closed.
func bytesIn(fd, queue uintptr) int {
	var n int32
	if _, _, err := syscall.Syscall(syscall.SYS_IOCTL, fd, queue, uintptr(unsafe.Pointer(&n))); err != 0 {
		return -1
	}
	return int(n)
}
