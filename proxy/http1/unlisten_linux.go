package http1

import (
	"net"
	"os"
	"syscall"
)

// mostLate bounds how many connections are accepted as a listener is closed.
const mostLate = 4096

// unlisten closes a listener that nobody is waiting on, and gives the connections that the
// kernel had accepted until then, which would be reset. Some microseconds are left in which
// it may accept one more.
func unlisten(l net.Listener) (late []net.Conn) {
	defer l.Close() // which does nothing if it is closed
	socket, ok := l.(syscall.Conn)
	if !ok {
		return nil
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return nil
	}
	var fds []int
	if err := raw.Control(func(fd uintptr) { fds = takeOver(int(fd)) }); err != nil {
		return nil // it is closed
	}
	l.Close()
	for _, fd := range fds {
		file := os.NewFile(uintptr(fd), "late connection")
		conn, err := net.FileConn(file)
		file.Close()
		if err == nil { // else it has ended already
			late = append(late, conn)
		}
	}
	return late
}

// takeOver accepts what is there, without waiting for more.
func takeOver(listener int) (fds []int) {
	for len(fds) < mostLate {
		fd, _, err := syscall.Accept4(listener, syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC)
		switch err {
		case nil:
			fds = append(fds, fd)
		case syscall.EINTR, syscall.ECONNABORTED:
		default:
			return fds
		}
	}
	return fds
}
