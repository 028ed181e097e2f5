//go:build !linux

package http1

import "net"

// unlisten closes a listener. What the kernel has accepted, and nobody else, is reset.
func unlisten(l net.Listener) (late []net.Conn) {
	l.Close()
	return nil
}
