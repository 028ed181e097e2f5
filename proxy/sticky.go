package proxy

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"net/url"
	"slices"

	"lbnode/proxy/balance"
	"lbnode/state"
)

// signatureBytes is how much of a signature a cookie has.
const signatureBytes = 16

// sticky keeps a pool's clients at their backends by a cookie that names the backend and
// is signed. All cookies that are valid are made beforehand, so that looking for one is
// all that a request costs; the signatures are never computed for a client.
type sticky struct {
	name  string           // of the cookie
	homes map[string]*home // by each value that is valid
	byID  map[string]*home // by the backend's id
}

// home is a backend that clients are kept at.
type home struct {
	target *balance.Target
	value  string // of the cookie that names it, by the first key
	line   string // that sets it
	secure string // the same for who came by TLS
}

// newSticky returns nil if the pool keeps no clients, or there is no key to sign with.
func newSticky(pool *pool, keys [][]byte) *sticky {
	name := pool.spec.Sticky.Cookie
	if name == "" || len(keys) == 0 {
		return nil
	}
	s := &sticky{name: name, homes: map[string]*home{}, byID: map[string]*home{}}
	for _, t := range pool.targets {
		h := &home{target: t, value: cookieOf(pool.spec.Name, t.ID, keys[0])}
		set := "Set-Cookie: " + name + "=" + h.value + "; Path=/; HttpOnly; SameSite=Lax"
		h.line, h.secure = set+"\r\n", set+"; Secure\r\n"
		s.byID[t.ID] = h
		for _, key := range keys {
			s.homes[cookieOf(pool.spec.Name, t.ID, key)] = h
		}
	}
	return s
}

// cookieOf is the value that names a backend of a pool. The id is escaped for the sake of
// one that somebody made up.
func cookieOf(pool, id string, key []byte) string {
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(pool + "\x00" + id))
	return url.QueryEscape(id) + "." + base64.RawURLEncoding.EncodeToString(mac.Sum(nil)[:signatureBytes])
}

// home gives the target that a cookie names, nil if it names none or that takes no
// requests.
func (s *sticky) home(cookie []byte) *balance.Target {
	if h := s.homes[string(cookie)]; h != nil && h.target.Keeps.Load() {
		return h.target
	}
	return nil
}

// fields are those that tell the client where it is kept from now on, once the current
// target has answered; none if it knows. A key that is on its way out gives way to the
// first.
func (e *exchange) fields() string {
	if e.sticky == nil {
		return ""
	}
	h := e.sticky.byID[e.tried[len(e.tried)-1].ID]
	switch {
	case h == nil || string(e.cookie) == h.value: // nil: it came to the pool after the request
		return ""
	case e.x.Secure():
		return h.secure
	}
	return h.line
}

// keep says which backends keep their clients: those that get new ones because they are
// fit and reachable, and those that are drained and would otherwise, unless the pool wants
// their clients to move. Proxy.mu is held.
func (p *pool) keep(all []candidate, chosen choice) {
	stays := p.spec.Sticky.Drain != state.StickyMove
	for i := range all {
		c := &all[i]
		keeps := c.ready || stays && p.spec.Backends[i].Wanted() == state.Drain
		serves := !c.backup || chosen.backups
		c.target.Keeps.Store(keeps && serves && c.fit() && c.reachable)
	}
}

// RenewCookies takes the keys for cookies anew, after they have changed.
func (p *Proxy) RenewCookies() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.renewCookies()
}

func (p *Proxy) renewCookies() {
	if p.config.CookieKeys == nil {
		return
	}
	keys := p.config.CookieKeys()
	if slices.EqualFunc(keys, p.cookieKeys, bytes.Equal) {
		return
	}
	p.cookieKeys = keys
	if table := p.table.Load(); table != nil {
		for _, pool := range table.pools {
			pool.sticky.Store(newSticky(pool, keys))
		}
	}
}
