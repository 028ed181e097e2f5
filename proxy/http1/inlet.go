package http1

import (
	"errors"
	"io"
	"net"
	"syscall"
)

// inlet reads from a connection into a buffer. It waits without one: a connection
// on which nothing comes holds no buffer.
type inlet struct {
	buffer
	conn net.Conn
	raw  syscall.RawConn // nil if the connection is not the kernel's own
	size int             // of the buffer

	try func(fd uintptr) bool // tryRead, made once
	err error                 // what the last try came to
}

func (in *inlet) open(conn net.Conn, size int) {
	in.conn, in.size = conn, size
	in.raw = rawConn(conn)
	in.try = in.tryRead
}

func rawConn(conn net.Conn) syscall.RawConn {
	if tcp, ok := conn.(*net.TCPConn); ok {
		if raw, err := tcp.SyscallConn(); err == nil {
			return raw
		}
	}
	return nil
}

// fill waits for at least one byte more.
func (in *inlet) fill() error {
	if in.raw == nil {
		n, err := in.conn.Read(in.room(in.size))
		in.to += n
		if n > 0 {
			return nil
		}
		return err
	}
	if err := in.raw.Read(in.try); err != nil {
		return err
	}
	return in.err
}

// tryRead reads if there is something, and says whether that is settled.
func (in *inlet) tryRead(fd uintptr) bool {
	n, err := recv(fd, in.room(in.size))
	if err == syscall.EAGAIN {
		in.release()
		return false
	}
	in.to += max(n, 0)
	in.err = readError(n, err)
	return true
}

// poll reads what is there without waiting. It says whether it got anything; err
// tells of a connection that has ended or failed.
func (in *inlet) poll() bool {
	if in.raw == nil {
		return false
	}
	before := in.len()
	in.err = nil
	if err := in.raw.Read(func(fd uintptr) bool { in.tryRead(fd); return true }); err != nil {
		in.err = err
	}
	return in.len() > before
}

func readError(n int, err error) error {
	switch {
	case err != nil:
		return err
	case n == 0:
		return io.EOF
	}
	return nil
}

// left says whether the peer of a connection is gone, or has at least sent its last
// byte, by a look that takes nothing.
func left(raw syscall.RawConn) (gone, ended bool) {
	n, err := peek(raw)
	return err != nil && err != syscall.EAGAIN, err == nil && n == 0
}

// stirs says whether anything came on a connection: data, its end, or a failure.
func stirs(raw syscall.RawConn) bool {
	_, err := peek(raw)
	return err != syscall.EAGAIN
}

// peek looks for a byte without taking it. The error is EAGAIN if there is nothing to see: also
// of a connection that is closed, or not the kernel's own.
func peek(raw syscall.RawConn) (n int, err error) {
	err = syscall.EAGAIN
	if raw == nil {
		return 0, err
	}
	raw.Control(func(fd uintptr) {
		var one [1]byte
		if n, _, err = syscall.Recvfrom(int(fd), one[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT); err == syscall.EINTR {
			err = syscall.EAGAIN
		}
	})
	return n, err
}

func isTimeout(err error) bool {
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout()
}
