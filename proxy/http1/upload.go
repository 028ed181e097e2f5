package http1

import (
	"errors"
	"sync/atomic"
)

// upload carries a request's body to a backend while the answer is waited for, which
// may come before the body has ended.
type upload struct {
	x      *Exchange
	to     *upstream
	done   chan struct{}
	whole  atomic.Bool  // all was sent
	failed atomic.Value // of type failure: what was wrong with the client's part
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
	x := up.x
	out := outlet{chunked: x.source.framing == byChunks, conn: up.to.conn}
	defer out.close()
	out.mem = append(out.head(), x.out...)
	for {
		data, err := x.source.next()
		switch {
		case err != nil:
			up.fail(err)
			return
		case len(data) > 0:
			err = out.write(data)
		case x.source.ended:
			out.end(&x.source)
			x.source.finish()
			up.whole.Store(true) // before the end is sent, since the answer may come at once
			if out.flush() != nil {
				up.whole.Store(false)
			}
			return
		default:
			if err = out.flush(); err == nil {
				err = up.await()
			}
		}
		if err != nil { // the backend takes no more; it may have answered
			return
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

// endUpload waits for the upload to end. If the answer came before the body had
// ended, or none will, what is still to come of the body is not waited for.
func (x *Exchange) endUpload(u *upstream) {
	if x.uploading() {
		x.closing = true
		x.session.conn.SetReadDeadline(past)
		u.conn.SetDeadline(past)
	}
	<-x.upload.done
}
