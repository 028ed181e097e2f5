package http1

import (
	"context"
	"errors"
	"time"
)

// Account is what can be told of an exchange once it is over.
type Account struct {
	BytesIn  int64 // of the request's body that came
	BytesOut int64 // of the answer's body that were to go to the client
	// Connect is how long it took to connect to the last backend; 0 if a connection was
	// there, or times are not kept.
	Connect time.Duration
	// FirstByte is when the head of the answer had come; zero if none had, or neither
	// Config.Times nor Patience.FirstByte wants it.
	FirstByte time.Time
}

// Account gives the exchange's. It is called after Forward or Refuse.
func (x *Exchange) Account() Account {
	a := x.account
	if x.upload != nil {
		a.BytesIn = x.source.count
	}
	return a
}

// Client is the client's address.
func (x *Exchange) Client() []byte { return x.session.client }

// RequestID is that of the X-Request-Id field that the backend gets.
func (x *Exchange) RequestID() []byte { return x.requestID() }

// reach is connect with the time that it takes.
func (x *Exchange) reach(ctx context.Context, to *Backend) (*upstream, error) {
	if !x.session.server.config.Times {
		return x.connect(ctx, to)
	}
	began := time.Now()
	u, err := x.connect(ctx, to)
	x.account.Connect = time.Since(began)
	return u, err
}

// answered notes that the head of the answer is there.
func (x *Exchange) answered() {
	if x.session.server.config.Times || x.patience.FirstByte {
		x.account.FirstByte = time.Now()
	}
}

// stalled says who was waited for when the exchange took too long.
func (x *Exchange) stalled(u *upstream, err error) error {
	s := x.session
	switch {
	case err == nil:
		return nil
	case s.cut.Load():
		return errors.Join(ErrClientLeft, ErrCut)
	case s.gone.Load():
		return ErrClientLeft
	case x.begun && x.status > 0 && (errors.Is(err, ErrClientLeft) || x.untaken(u)):
		return errors.Join(ErrCut, ErrClientStalled)
	case x.begun && x.status > 0:
		return errors.Join(ErrCut, ErrBackendStalled)
	case x.upload != nil && x.upload.fault() != nil:
		return ErrClientStalled
	}
	return ErrBackendStalled
}
