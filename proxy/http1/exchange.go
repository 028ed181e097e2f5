package http1

import (
	"context"
	"errors"
	"io"
	"net/http"
)

// Why an attempt failed, besides ConnectError, ErrFull and a *Fault of the client's
// body.
var (
	// ErrLost is a connection that broke before an answer came. The backend may have
	// acted on the request.
	ErrLost = errors.New("the connection was lost before an answer came")
	// ErrStale is ErrLost where the connection had carried other requests before and brought
	// nothing at all: the backend, which may be well, had ended it as this one came.
	ErrStale = errors.New("the connection was stale")
	// ErrBadAnswer is an answer that cannot be passed on.
	ErrBadAnswer = errors.New("the answer cannot be passed on")
	// ErrBackendStalled is an exchange in which it was for the backend to go on.
	ErrBackendStalled = errors.New("the backend made no progress in time")
	// ErrClientStalled is one in which it was for the client.
	ErrClientStalled = errors.New("the client made no progress in time")
	// ErrClientLeft is a client that is there no more.
	ErrClientLeft = errors.New("the client left")
	// ErrCut is an answer that broke off after it had begun. The client gets what there is
	// of it, and its connection is closed so that it can tell.
	ErrCut = errors.New("the answer was cut short")
)

// Exchange is one request and its answer, which a Handler gives by Forward or Refuse.
// It is used by one goroutine, and not after the handler has returned.
type Exchange struct {
	session  *session
	request  Request
	response Response
	head     []byte // that the request's offsets are of
	held     []byte // head's memory, if it is not the session's buffer
	out      []byte // what a backend is sent: the head, and as much of the body as there is
	outlet   outlet
	answer   body // of the backend
	source   body // of the client
	spliced  io.LimitedReader
	upload   *upload

	id        [maxRequestID]byte
	idLength  int
	closing   bool // the client's connection ends with this exchange
	streams   bool // some of the request's body is still to come
	upgrading bool
	begun     bool // something was sent to the client
	touched   bool // some of the body was taken that nobody has any more
	invited   bool // the client was asked for the body that it keeps back
	silent    bool // the client is told the end of the answer by that of its connection
	interim   int
	status    int
	account   Account

	patience Patience
	hedged   bool   // the answer is that of Patience.Other
	fields   string // for the answer
	via      string // this proxy's name in the request
}

// Method is such as GET. It is in the letters that the client wrote.
func (x *Exchange) Method() []byte { return x.request.Method(x.head) }

// Host is what the request is for, and maybe a port; empty for an HTTP/1.0 client that
// names none.
func (x *Exchange) Host() []byte { return x.request.Host(x.head) }

// Path is still escaped, and without the query.
func (x *Exchange) Path() []byte { return x.request.Path(x.head) }

// Old says whether the client speaks HTTP/1.0.
func (x *Exchange) Old() bool { return x.request.old }

// Last says whether the request is for this server itself: OPTIONS *, or one that may be
// forwarded no more (RFC 9110, section 7.6.2).
func (x *Exchange) Last() bool { return x.request.asterisk || x.request.spent() }

// Status is the final answer's; 0 until there is one.
func (x *Exchange) Status() int { return x.status }

// atHand says whether all of the request is there and its answer needs nothing more
// from the client.
func (x *Exchange) atHand() bool {
	r := &x.request
	return r.upgradings == 0 && !r.chunked && r.length <= smallBuffer && x.session.in.len() >= len(x.head)+int(r.length)
}

// Begun says whether the client was sent anything, be it an interim answer.
func (x *Exchange) Begun() bool { return x.begun }

// Whole says whether the request can be sent again: none of its body is gone, and it goes on
// with nothing that began on another connection.
func (x *Exchange) Whole() bool { return !x.touched && x.request.login != continues }

// Hedged says whether the last Forward got its answer of Patience.Other.
func (x *Exchange) Hedged() bool { return x.hedged }

// Forward sends the request to the backend and passes its answer on. The exchange
// fails when patience ends. If nothing was sent to the client, another Forward, or a
// Refuse, may follow an error.
func (x *Exchange) Forward(ctx context.Context, to *Backend, patience Patience) error {
	x.prepare()
	x.patience, x.hedged, x.fields = patience, false, patience.Fields
	x.account.Connect = 0
	if x.session.watch.hasExpired() { // in the attempt before
		x.session.wake()
	}
	bound := x.request.login == continues && x.Bound() != nil
	for {
		x.session.arm(patience.Try)
		u := x.session.idleUpstream(to, bound || patience.Fresh)
		if u == nil && bound {
			return ErrHandshake
		}
		if u == nil {
			var err error
			if u, err = x.reach(ctx, to); err != nil {
				return err
			}
		}
		if err := x.attempt(ctx, u); err != errStale {
			return err
		}
	}
}

// connect gets a connection that is not there yet.
func (x *Exchange) connect(ctx context.Context, to *Backend) (*upstream, error) {
	s := x.session
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s.connects(cancel)
	u, err := s.openUpstream(ctx, to, x.patience.Fresh)
	s.connecting.Store(nil)
	if s.mustEnd() {
		if u != nil {
			u.close()
		}
		return nil, x.stalled(nil, ErrLost)
	}
	return u, err
}

// prepare writes what is sent to a backend, once for all attempts.
func (x *Exchange) prepare() {
	if len(x.out) > 0 {
		return
	}
	x.upgrading = x.request.wantsWebSocket(x.head)
	x.out = x.appendRequest(borrow(smallBuffer)[:0])
	if x.request.hasBody() {
		x.takeBody()
	}
}

// takeBody adds the body to the request if all of it is there, which saves a second
// goroutine.
func (x *Exchange) takeBody() {
	s, r := x.session, &x.request
	x.streams = true
	if r.chunked || r.length > smallBuffer || s.in.len() < len(x.head)+int(r.length) && (r.expects || !s.pollBody(x)) {
		x.detach()
		return
	}
	x.out = append(x.out, s.in.bytes()[len(x.head):len(x.head)+int(r.length)]...)
	s.taken = len(x.head) + int(r.length)
	x.account.BytesIn = r.length
	x.streams = false
}

// detach makes the session's buffer free for the body.
func (x *Exchange) detach() {
	in := &x.session.in
	rest := in.bytes()[len(x.head):]
	x.held = in.mem
	in.buffer, in.size = buffer{}, largeBuffer
	if len(rest) > 0 {
		in.to = copy(in.room(max(len(rest), largeBuffer)), rest)
	}
	x.session.taken = 0
	framing := byCount
	if x.request.chunked {
		framing = byChunks
	}
	x.source.begin(in, framing, x.request.length, &x.session.server.config.Limits)
	x.source.named = x.request.named
}

// attempt carries the exchange out over one connection.
func (x *Exchange) attempt(ctx context.Context, u *upstream) error {
	s := x.session
	s.waitsFor(u)
	u, err := x.ask(ctx, u)
	reuse := false
	if err != errStale {
		reuse, err = x.over(u, err)
	}
	if x.upload != nil {
		reuse = x.endUpload(u, err == nil) && reuse
	}
	s.upstream.Store(nil)
	if s.mustEnd() {
		err = x.stalled(u, err)
	}
	if err != nil && x.status > 0 {
		s.ending = x.breakOff(err)
	}
	if err != nil || !reuse || s.watch.hasExpired() {
		u.close()
		return err
	}
	s.keep(u)
	return nil
}

// ask sends the request and waits for the first bytes of the answer. It gives the
// connection they came on.
func (x *Exchange) ask(ctx context.Context, u *upstream) (*upstream, error) {
	switch {
	case x.streams && !u.quiet():
		return u, errStale
	case x.streams:
		x.session.rearm(x.patience.Progress) // it cannot be sent again, so that giving up helps nobody
		x.session.flow.Or(flowsUp)
		x.startUpload(u)
		return u, u.fill()
	case x.patience.Hedge > 0:
		return x.askHedged(ctx, u)
	}
	return u, unsent(u.exchange(x.out))
}

// unsent tells a connection that failed before anything was sent from others.
func unsent(sent bool, err error) error {
	if err != nil && !sent {
		return errStale
	}
	return err
}

// over passes on what the backend answers, unless it failed to with err. It says whether
// the connection may be used again.
func (x *Exchange) over(u *upstream, err error) (reuse bool, _ error) {
	if err == nil {
		x.session.rearm(x.patience.Progress)
	}
	x.response.Reset(&x.session.server.config.Limits)
	for {
		if err != nil {
			if err = x.lost(err); u.used {
				err = errors.Join(ErrStale, err)
			}
			return false, err
		}
		final, err := x.receive(u)
		if err != nil || final {
			return x.pass(u, err)
		}
	}
}

// lost says why there is no answer.
func (x *Exchange) lost(err error) error {
	if up := x.upload; up != nil {
		if fault := up.fault(); fault != nil {
			return fault
		}
	}
	return errors.Join(ErrLost, err)
}

// receive reads the head of an answer, and relays it if it is an interim one.
func (x *Exchange) receive(u *upstream) (final bool, err error) {
	r := &x.response
	for {
		n, err := r.Parse(u.bytes())
		switch {
		case err != nil:
			return false, r.badAnswer(u.bytes(), err)
		case n > 0 && r.status >= 200, n > 0 && r.status == http.StatusSwitchingProtocols:
			return true, nil
		case n > 0:
			if err := x.relay(u, n); err != nil {
				return false, err
			}
			if u.len() > 0 {
				continue
			}
		}
		if err := u.fill(); err != nil {
			return false, x.lost(err)
		}
	}
}

// relay passes an interim answer on. It is no progress, or else a backend could hold
// a request for ever with them.
func (x *Exchange) relay(u *upstream, n int) error {
	r := &x.response
	x.interim++
	wanted := !x.request.old && x.interim <= x.session.server.config.Limits.Interim &&
		(r.status != http.StatusContinue || x.request.expects)
	if wanted {
		x.outlet.open(x.session, false)
		x.outlet.mem = x.appendResponse(x.outlet.head(), r, u.bytes(), noBody)
		x.begun, x.invited = true, x.invited || r.status == http.StatusContinue
		if err := x.outlet.flush(); err != nil {
			return ErrClientLeft
		}
	}
	u.use(n)
	r.Reset(r.limits)
	return nil
}

// pass passes the final answer on.
func (x *Exchange) pass(u *upstream, err error) (reuse bool, _ error) {
	if err != nil {
		return false, err
	}
	r := &x.response
	if r.status == http.StatusRequestTimeout && u.used && x.patience.Again && !x.begun && !r.persists() {
		return false, errors.Join(ErrStale, ErrLost) // RFC 9110, section 15.5.9
	}
	x.answered()
	u.tied = u.tied || x.request.login != noLogin || r.challenges(u.bytes())
	if r.status == http.StatusSwitchingProtocols {
		if !x.upgrading || !r.websocket {
			return false, errors.Join(ErrBadAnswer, errors.New("it switches to a protocol that was not asked for"))
		}
		return false, x.tunnel(u)
	}
	framing, err := r.framing(x.Method())
	if err != nil {
		return false, r.badAnswer(u.bytes(), err)
	}
	out := x.outward(framing)
	x.silent = out == byClose
	x.closing = x.closing || out == byClose || x.endsUpload() || x.session.server.retiring.Load()
	x.status, x.begun = r.status, true
	x.session.flow.Or(flowsDown)
	x.session.touch()
	x.outlet.open(x.session, out == byChunks)
	x.outlet.mem = x.appendResponse(x.outlet.head(), r, u.bytes(), out)
	u.use(r.at)
	x.answer.begin(&u.inlet, framing, r.length, r.limits)
	x.answer.named = r.named
	err = x.pump()
	x.account.BytesOut = x.answer.count
	if err != nil {
		x.closing = true
		return false, err
	}
	return framing != byClose && r.persists() && u.len() == 0 && !r.surplus(x.Method()), nil
}

// outward is how the body's end is told to the client.
func (x *Exchange) outward(framing framing) framing {
	switch {
	case framing != byChunks && framing != byClose:
		return framing
	case x.request.old:
		return byClose
	}
	return byChunks
}

// reset makes it ready for the next request.
func (x *Exchange) reset() {
	if x.out != nil {
		giveBack(x.out[:0])
	}
	if x.held != nil {
		giveBack(x.held)
	}
	x.outlet.close()
	x.answer.in, x.source.in, x.spliced.R = nil, nil, nil
	x.head, x.held, x.out, x.upload = nil, nil, nil, nil
	x.idLength, x.interim, x.status, x.account = 0, 0, 0, Account{}
	x.closing, x.streams, x.upgrading, x.begun, x.touched, x.invited, x.silent = false, false, false, false, false, false, false
	x.patience, x.hedged, x.fields, x.via = Patience{}, false, "", ""
}
