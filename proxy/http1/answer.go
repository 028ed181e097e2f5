package http1

import (
	"errors"
	"io"
	"net"
	"syscall"
)

const (
	// spliceFrom is from how much that is still to come of a body on it is spliced.
	spliceFrom = 128 << 10
	// spliceStep is how much is spliced before that is noted as progress. The sweeper sees
	// what is less.
	spliceStep = 128 << 10
)

// pump passes the body on as it comes.
func (x *Exchange) pump() error {
	b, s := &x.answer, x.session
	for {
		data, err := b.next()
		switch {
		case err != nil:
			if x.outlet.flush() != nil { // what came before the fault
				return ErrClientLeft
			}
			return errors.Join(ErrCut, err)
		case len(data) > 0:
			err = x.outlet.write(data)
		case b.ended:
			x.outlet.end(b)
			b.finish()
			if err := x.outlet.flush(); err != nil {
				return ErrClientLeft
			}
			return nil
		default:
			if err = x.outlet.flush(); err == nil {
				s.touch()
				if err := x.more(); err != nil {
					return err
				}
			}
		}
		if err != nil {
			return ErrClientLeft
		}
		s.touch()
	}
}

// more waits for more of the body. Much of a plain one passes through the kernel only.
func (x *Exchange) more() error {
	b := &x.answer
	if b.framing != byCount || b.left < spliceFrom || b.in.raw == nil || x.session.in.raw == nil {
		return x.readOn()
	}
	client, backend := x.session.conn.(*net.TCPConn), b.in.conn.(*net.TCPConn)
	x.session.flow.Or(flowsSpliced)
	defer x.session.flow.And(^flowsSpliced)
	for b.left >= spliceFrom {
		x.spliced = io.LimitedReader{R: backend, N: spliceStep}
		n, err := client.ReadFrom(&x.spliced)
		b.pass(n)
		b.count += n
		switch {
		case err != nil:
			return x.broken(err)
		case n == 0:
			return ErrCut
		}
		x.session.touch()
	}
	return nil
}

// untaken says whether there is some of the answer that the client did not take, where
// nothing has moved for too long.
func (x *Exchange) untaken(u *upstream) bool {
	if n := queued(x.session.in.raw); n >= 0 {
		return n > 0
	}
	return holds(u)
}

// holds says whether more of the answer is there, for which the client had no room.
func holds(u *upstream) bool {
	if u == nil {
		return false
	}
	n, err := peek(u.raw)
	return err == nil && n > 0
}

// breakOff says how the connection of the client ends whose answer broke off with err.
// It gets what is queued for it, unless it would take the end for that of a whole answer,
// or takes nothing anyway. Unread bytes of its own would make the kernel throw the queue
// away.
func (x *Exchange) breakOff(err error) ending {
	switch {
	case x.silent, errors.Is(err, ErrClientLeft), errors.Is(err, ErrClientStalled):
		return aborted
	case x.uploading(), stirs(x.session.in.raw):
		return discards
	}
	return closed
}

// broken says which end of a body broke that passed through the kernel only. A client that
// has sent its last byte looks like one that is gone, so it is the backend that is looked at.
func (x *Exchange) broken(err error) error {
	gone, ended := left(x.answer.in.raw)
	if isTimeout(err) || (gone || ended) && !errors.Is(err, syscall.EPIPE) {
		return errors.Join(ErrCut, err)
	}
	return ErrClientLeft
}
