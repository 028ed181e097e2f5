package http1

import (
	"errors"
	"sync/atomic"
	"syscall"
	"time"
)

// upload carries a request's body to a backend while the answer is waited for. That may come
// before the body has ended, and the backend read on (RFC 9110, section 10.1.1).
type upload struct {
	x        *Exchange
	to       *upstream
	done     chan struct{}
	begun    atomic.Bool  // some of the body has come
	whole    atomic.Bool  // all of it has, so that the next request may follow
	over     atomic.Bool  // no more is sent
	last     atomic.Bool  // nothing else is waited for
	err      error        // why not all was sent; to be read once it is done
	unwanted bool         // the backend has said so; the exchange's
	failed   atomic.Value // of type failure: what was wrong with the client's part
}

func (x *Exchange) startUpload(to *upstream) {
	x.touched = true
	x.upload = &upload{x: x, to: to, done: make(chan struct{})}
	go x.upload.run()
}

// uploading says whether some of the body is still to come.
func (x *Exchange) uploading() bool { return x.upload != nil && !x.upload.whole.Load() }

func (up *upload) run() {
	defer close(up.done)
	up.err = up.carry()
	up.over.Store(true)
	if up.last.Load() {
		up.to.conn.SetReadDeadline(past)
	}
}

func (up *upload) carry() error {
	x := up.x
	out := outlet{chunked: x.source.framing == byChunks, conn: up.to.conn}
	defer out.close()
	out.mem = append(out.head(), x.out...)
	for {
		data, err := x.source.next()
		switch {
		case err != nil:
			up.fail(err)
			return err
		case len(data) > 0:
			up.begun.Store(true)
			up.whole.Store(x.source.ended) // before the end is sent, since the answer may come at once
			err = out.write(data)
		case x.source.ended:
			out.end(&x.source)
			x.source.finish()
			up.whole.Store(true)
			return out.flush()
		default:
			if err = out.flush(); err == nil {
				err = up.await()
			}
		}
		if err != nil { // the backend takes no more; it may have answered
			return err
		}
		x.session.touch()
	}
}

var errUpload = errors.New("the body cannot be read")

// await waits for more from the client.
func (up *upload) await() error {
	err := up.x.source.more()
	if err == nil {
		return nil
	}
	up.fail(err)
	return errUpload
}

// fail ends the exchange because of the client: no answer can come any more to a
// request that is not all there.
func (up *upload) fail(err error) {
	if err == errCut {
		err = &Fault{400, "the body was cut short"}
	}
	up.failed.CompareAndSwap(nil, failure{err})
	up.to.conn.SetDeadline(past)
}

type failure struct{ error }

// fault is what was wrong with the client's part of the exchange; nil if nothing was.
func (up *upload) fault() error {
	f, _ := up.failed.Load().(failure)
	var fault *Fault
	switch {
	case f.error == nil:
		return nil
	case errors.As(f.error, &fault):
		return fault
	case isTimeout(f.error):
		return ErrClientStalled
	}
	return ErrClientLeft
}

// endsUpload says, when the head of the answer is there, whether the upload ends with the
// answer: the backend asks for the connection's end, or takes no more already, or has answered
// instead of asking for a body that the client keeps back until then. The client is told.
func (x *Exchange) endsUpload() bool {
	if !x.uploading() {
		return false
	}
	up := x.upload
	kept := x.request.expects && !x.invited && !up.begun.Load()
	up.unwanted = x.response.close || up.over.Load() || kept
	return up.unwanted
}

// endUpload waits for the upload to end, and says whether the backend got all. If there is
// no answer, or the backend wants no more, what is still to come of the body is not waited for.
func (x *Exchange) endUpload(u *upstream, answered bool) (sent bool) {
	up := x.upload
	if answered && !up.unwanted && x.uploading() {
		up.last.Store(true)
		if !up.over.Load() {
			u.fill() // until the upload, or the backend, or the time for it, ends the wait
		}
	}
	if !answered { // it need not take the last piece either
		u.conn.SetDeadline(past)
	}
	stopped := x.stopUpload(u)
	if up.last.Load() {
		u.conn.SetReadDeadline(time.Time{})
	}
	return !stopped && up.err == nil && u.len() == 0
}

// stopUpload waits for the upload to end, for which it has no more time. It says whether it
// has given both connections deadlines, with which they serve nothing else.
func (x *Exchange) stopUpload(u *upstream) (stopped bool) {
	if stopped = x.uploading(); stopped {
		x.closing = true
		x.session.conn.SetReadDeadline(past)
		u.conn.SetDeadline(past)
	}
	<-x.upload.done
	return stopped
}

// readOn waits for more of the answer.
func (x *Exchange) readOn() error {
	err := x.answer.more()
	if err == nil && x.answer.ended && x.endIsReset(x.session.upstream.Load()) {
		err = syscall.ECONNRESET
	}
	if err != nil {
		return errors.Join(ErrCut, err)
	}
	return nil
}

// endIsReset says whether the end that was read of a connection was a reset in truth. The
// kernel tells of that once, and may have told who sends the body.
func (x *Exchange) endIsReset(u *upstream) bool {
	if x.upload == nil || !wasReset(u.raw) {
		return false
	}
	x.stopUpload(u)
	return errors.Is(x.upload.err, syscall.ECONNRESET)
}

// unread says whether the client may still be sending the request.
func (x *Exchange) unread() bool {
	if x.upload != nil {
		return x.uploading()
	}
	return x.request.hasBody() && x.session.taken <= len(x.head)
}

// tardy says whether the client had its time to send the request, and did not.
func (x *Exchange) tardy() bool {
	return x.upload != nil && x.session.watch.hasExpired() && x.upload.fault() == ErrClientStalled
}
