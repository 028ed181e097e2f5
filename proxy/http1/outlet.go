package http1

import (
	"net"
	"strconv"
)

const (
	// ownWrite is from which size on data are written from where they are instead of
	// being copied to what is to be written with them.
	ownWrite = 8 << 10
	// maxFrame is the room that the framing of one chunk takes.
	maxFrame = len("7fffffffffffffff\r\n\r\n")
)

// outlet collects what goes to a connection, so that a head and what there is of
// the body are one write.
type outlet struct {
	conn    net.Conn
	fd      uintptr // of conn, if the caller holds it; else 0
	mem     []byte  // borrowed, from the first byte on
	chunked bool    // frame the data
	vector  [2][]byte
	buffers net.Buffers
}

func (o *outlet) open(s *session, chunked bool) { o.conn, o.fd, o.chunked = s.conn, s.fd, chunked }

// head is where to append a head.
func (o *outlet) head() []byte {
	if o.mem == nil {
		o.mem = borrow(largeBuffer)[:0]
	}
	return o.mem
}

// write adds data of the body.
func (o *outlet) write(data []byte) error {
	o.mem = o.head()
	if len(o.mem)+len(data)+2*maxFrame > cap(o.mem) && len(o.mem) > 0 && len(data) < ownWrite {
		if err := o.flush(); err != nil {
			return err
		}
	}
	if o.chunked {
		o.mem = strconv.AppendInt(o.mem, int64(len(data)), 16)
		o.mem = append(o.mem, "\r\n"...)
	}
	if len(data) < ownWrite {
		o.mem = append(o.mem, data...)
	} else if err := o.writeWith(data); err != nil {
		return err
	}
	if o.chunked {
		o.mem = append(o.mem, "\r\n"...)
	}
	return nil
}

// writeWith writes what is collected and data.
func (o *outlet) writeWith(data []byte) error {
	o.vector = [2][]byte{o.mem, data}
	o.buffers = o.vector[:]
	_, err := o.buffers.WriteTo(o.conn)
	o.mem, o.vector = o.mem[:0], [2][]byte{}
	return err
}

// end adds the end of a body in chunks.
func (o *outlet) end(b *body) {
	if o.chunked {
		o.mem = append(o.head(), "0\r\n"...)
		o.mem = append(b.appendTrailers(o.mem), "\r\n"...)
	}
}

// flush writes what is collected.
func (o *outlet) flush() error {
	if len(o.mem) == 0 {
		return nil
	}
	rest := o.mem
	o.mem = o.mem[:0]
	if o.fd != 0 {
		n, err := send(o.fd, rest)
		if err != nil || n == len(rest) {
			return err
		}
		rest = rest[n:]
	}
	_, err := o.conn.Write(rest)
	return err
}

// close gives the memory back.
func (o *outlet) close() {
	if o.mem != nil {
		giveBack(o.mem)
		o.mem = nil
	}
}
