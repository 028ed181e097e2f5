package http1

import (
	"io"
	"net"
	"net/http"
)

// tunnel passes the answer on that hands the connection over to another protocol,
// and then whatever comes from either side, until both have ended.
func (x *Exchange) tunnel(u *upstream) error {
	s := x.session
	x.closing, x.begun, x.status = true, true, http.StatusSwitchingProtocols
	x.outlet.open(s, false)
	x.outlet.mem = x.appendResponse(x.outlet.head(), &x.response, u.bytes(), noBody)
	u.use(x.response.at)
	ahead := int64(u.len())
	if x.outlet.write(u.bytes()) != nil || x.outlet.flush() != nil {
		return ErrClientLeft
	}
	early := s.in.bytes()[len(x.head):]
	if len(early) > 0 {
		if _, err := u.conn.Write(early); err != nil {
			return ErrCut
		}
	}
	if s.watch.set(untimed, 0) == expired {
		return ErrBackendStalled
	}
	up := make(chan struct{})
	go func() {
		defer close(up)
		x.account.BytesIn = int64(len(early)) + carry(u.conn, s.conn)
	}()
	x.account.BytesOut = ahead + carry(s.conn, u.conn)
	<-up
	return nil
}

// carry copies until src ends, and then ends dst's direction. If the copy fails, both
// connections are of no use any more.
func carry(dst, src net.Conn) int64 {
	n, err := io.Copy(dst, src)
	if half, ok := dst.(interface{ CloseWrite() error }); ok && err == nil {
		half.CloseWrite()
		return n
	}
	dst.Close()
	src.Close()
	return n
}
