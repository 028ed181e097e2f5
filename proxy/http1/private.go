package http1

import (
	"bytes"
	"context"
	"errors"
)

// A connection to a backend may be one client's alone, for one of two reasons: it began with
// a header that names the client (PROXY), or it is what the client authenticates by. NTLM and
// Negotiate vouch for the connection, not for the request (RFC 4559, section 6): whoever came
// next would be taken for who was there before. The session keeps such a connection between
// its client's requests, one at a time, and ends it with itself.

// ErrHandshake is a request that goes on with what began on a connection to a backend that
// has gone. Nothing was sent: on another one it would mean nothing, or something else.
var ErrHandshake = errors.New("the connection on which the client began to authenticate has gone")

// login is what a request says of who sends it, where that holds for the connection.
type login uint8

const (
	noLogin   login = iota
	begins          // or is all that is needed
	continues       // what the backend has answered on the same connection
)

// loginOf reads the value of an Authorization field. What goes on is NTLM's third message and
// SPNEGO's NegTokenResp (RFC 4178, section 4.2.2), by what they look like in base64.
func loginOf(value []byte) login {
	if !vouchesForConnection(value) {
		return noLogin
	}
	_, token, _ := bytes.Cut(value, []byte(" "))
	token = bytes.TrimLeft(token, " ")
	switch {
	case bytes.HasPrefix(token, []byte("TlRMTVNTUAAD")):
		return continues
	case len(token) > 1 && token[0] == 'o' && 'Q' <= token[1] && token[1] <= 'f':
		return continues
	}
	return begins
}

// vouchesForConnection says whether credentials, or a challenge, are of NTLM, Negotiate, or
// what descends from that (Nego2).
func vouchesForConnection(value []byte) bool {
	return len(value) >= 4 && (equalFold(value[:4], "ntlm") || equalFold(value[:4], "nego"))
}

// challenges says whether a response asks for such credentials.
func (r *Response) challenges(b []byte) bool {
	if r.status != 401 && r.status != 407 {
		return false
	}
	for _, f := range r.fields {
		if f.is != proxyAuthenticate && !equalFold(f.name.of(b), "www-authenticate") {
			continue
		}
		for list := f.value.of(b); len(list) > 0; {
			var item []byte
			if item, list = nextItem(list); vouchesForConnection(item) {
				return true
			}
		}
	}
	return false
}

// Bound is the backend on whose connection the client has authenticated, or has begun to; nil
// if there is none. The connection may have gone meanwhile.
func (x *Exchange) Bound() *Backend {
	if u := x.session.own; u != nil && u.tied {
		return u.backend
	}
	return nil
}

// private says whether a connection is one client's alone.
func (u *upstream) private() bool { return u.tied || u.backend.config.Proxy != 0 }

// idleUpstream gives a connection to the backend that needs not be waited for; nil if there
// is none. It is the client's own, or else, unless only that will do, one that is anybody's.
func (s *session) idleUpstream(to *Backend, ownOnly bool) *upstream {
	now := s.server.now.Load()
	if u := s.takeOwn(to, now); u != nil {
		return u
	}
	for !ownOnly && to.config.Proxy == 0 {
		u := to.idle(s.shard)
		if u == nil || !u.spent(now) {
			return u
		}
		u.close()
	}
	return nil
}

// takeOwn gives the client's own connection to the backend, if it is still there.
func (s *session) takeOwn(to *Backend, now int64) *upstream {
	u := s.own
	switch {
	case u == nil:
		return nil
	case u.backend == to && !u.spent(now) && to.reclaim(u):
		s.own = nil
		return u
	case u.backend == to, u.backend.done.Load():
		s.dropOwn()
	}
	return nil
}

// dropOwn ends the client's own connection, unless its backend has.
func (s *session) dropOwn() {
	if u := s.own; u != nil && u.backend.reclaim(u) {
		u.close()
	}
	s.own = nil
}

// openUpstream gets a connection that may have to be waited for: a fresh one, if need be.
func (s *session) openUpstream(ctx context.Context, to *Backend, fresh bool) (*upstream, error) {
	preface := s.preface(to)
	u, err := to.get(ctx, s.shard, preface)
	if err == nil && u.used && (fresh || u.spent(s.server.now.Load())) {
		return to.renew(ctx, u, preface)
	}
	return u, err
}

// keep takes a connection back that has carried a whole exchange.
func (s *session) keep(u *upstream) {
	now := s.server.now.Load()
	switch {
	case !u.private():
		u.backend.put(u, s.shard, now)
	case u.backend.done.Load():
		u.close()
	case u.rest(now):
		s.dropOwn()
		if u.backend.hold(u) {
			s.own = u
		} else {
			u.close()
		}
	}
}

// hold keeps a client's own connection open, unless somebody waits for its place.
func (b *Backend) hold(u *upstream) bool {
	if b.config.Conns == 0 {
		return true
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.waiting) > 0 {
		return false
	}
	u.held = b.held.PushBack(u)
	return true
}

// reclaim says whether a client's own connection is still the client's. What another has
// got the place of is closed.
func (b *Backend) reclaim(u *upstream) bool {
	if b.config.Conns == 0 {
		return true
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if u.held == nil {
		return false
	}
	b.held.Remove(u.held)
	u.held = nil
	return true
}

// evict takes the place of the client that has not used its own for longest: idle clients
// must not hold all that there may be. The caller holds mu.
func (b *Backend) evict() *upstream {
	first := b.held.Front()
	if first == nil {
		return nil
	}
	u := b.held.Remove(first).(*upstream)
	u.held = nil
	return u
}
