package http1

import (
	"container/list"
	"context"
	"crypto/tls"
	"errors"
	"net"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// errStale is a connection to a backend that ended before it was used again.
// Nothing was sent.
var errStale = errors.New("the connection had ended")

// ErrSlow is a backend that has not taken a connection yet. It may still do so.
var ErrSlow = errors.New("no connection after " + slowConnect.String())

// slowConnect is from when on it takes long to connect. Two ends of the world need less.
// The kernel asks again after a second: who waits for that sends requests where
// they are not heard for as long.
const slowConnect = 500 * time.Millisecond

// ErrFull is a backend with as many connections and waiting requests as it may have.
// Nothing was sent.
var ErrFull = errors.New("the backend has as many connections as it may have")

// ConnectError is a failure to connect to a backend. Nothing was sent.
type ConnectError struct{ Err error }

// Error implements error.
func (e *ConnectError) Error() string { return "cannot connect: " + e.Err.Error() }

// Unwrap gives what failed.
func (e *ConnectError) Unwrap() error { return e.Err }

// BackendConfig says how a backend is reached. It is not changed once used.
type BackendConfig struct {
	Addr    string        // host:port
	TLS     *tls.Config   // with ServerName; nil for plain TCP
	Connect time.Duration // bounds connecting, and before it waiting for a turn; 0: no bound
	Idle    time.Duration // after which an unused connection is not used again; 0: never
	Age     time.Duration // after which none is, counted from the end of its first exchange; 0: never
	Conns   int           // open at once; 0: no bound
	Waiting int           // requests that may wait for one of Conns
	// Proxy is the version of the PROXY protocol, 1 or 2, in which the backend is told of
	// the client when a connection begins; 0: it is not told. Such a connection serves
	// that client alone.
	Proxy byte
	// Found, unless nil, is told what each attempt to connect came to, and meanwhile, as
	// ErrSlow, that it takes long. It is called concurrently.
	Found func(err error)
	// Resolver finds the addresses of a host that is a name; nil: the system's does.
	Resolver *net.Resolver
}

// Backend is the connections to one backend: those that are idle, the last used
// first, and the right to open more. All methods may be called concurrently.
type Backend struct {
	config BackendConfig
	dialer net.Dialer
	shards []shard
	open   atomic.Int64
	done   atomic.Bool
	place  atomic.Pointer[place] // nil until Settle

	mu      sync.Mutex
	waiting []chan *upstream // each gets one turn: a connection, or with nil the right to open one
	held    list.List        // *upstream: those that are idle and one client's, while nobody waits; the longest first
}

// shard is a part of the idle connections, so that cores do not wait for each other.
type shard struct {
	mu   sync.Mutex
	idle []*upstream
	_    [64]byte // keeps shards out of each other's cache lines
}

// NewBackend returns a backend without connections.
func NewBackend(config BackendConfig) *Backend {
	return &Backend{
		config: config,
		dialer: net.Dialer{Resolver: config.Resolver},
		shards: make([]shard, runtime.GOMAXPROCS(0)),
	}
}

// get returns an idle connection, preferably of that shard, or else opens one, which
// begins with the preface.
func (b *Backend) get(ctx context.Context, shard int, preface []byte) (*upstream, error) {
	if u := b.idle(shard); u != nil { // so nobody waits
		return u, nil
	}
	if b.config.Conns > 0 {
		return b.getBounded(ctx, shard, preface)
	}
	b.open.Add(1)
	return b.dial(ctx, preface)
}

func (b *Backend) idle(shard int) *upstream {
	for i := range b.shards {
		if u := b.shards[(shard+i)%len(b.shards)].pop(); u != nil {
			return u
		}
	}
	return nil
}

func (s *shard) pop() *upstream {
	s.mu.Lock()
	defer s.mu.Unlock()
	last := len(s.idle) - 1
	if last < 0 {
		return nil
	}
	u := s.idle[last]
	s.idle[last] = nil
	s.idle = s.idle[:last]
	return u
}

// dial opens a connection, the TLS handshake included, since a backend that fails
// it is as little use as one that refuses. It is counted as open already.
func (b *Backend) dial(ctx context.Context, preface []byte) (*upstream, error) {
	var conn net.Conn
	at := b.place.Load()
	err := b.inTime(ctx, func(ctx context.Context) (err error) {
		conn, err = b.connect(ctx, at, preface)
		return err
	})
	if b.config.Found != nil && !errors.Is(err, context.Canceled) {
		b.config.Found(err)
	}
	if err != nil {
		b.closed()
		return nil, &ConnectError{err}
	}
	u := newUpstream(conn, b)
	u.place = at
	return u, nil
}

// renew opens a connection in the place of one that was used.
func (b *Backend) renew(ctx context.Context, u *upstream, preface []byte) (*upstream, error) {
	u.discard()
	return b.dial(ctx, preface)
}

// inTime bounds what a request waits for before it is sent. What failed after much longer was
// waited for by a process that was stopped meanwhile, to which even a connection that is there
// looks late; so it is tried once more.
func (b *Backend) inTime(ctx context.Context, try func(context.Context) error) error {
	if b.config.Connect <= 0 {
		return try(ctx)
	}
	for again := true; ; again = false {
		began := time.Now()
		limited, cancel := context.WithTimeout(ctx, b.config.Connect)
		err := try(limited)
		cancel()
		if err == nil || !again || ctx.Err() != nil || time.Since(began) <= b.config.Connect+maxStep {
			return err
		}
	}
}

func (b *Backend) connect(ctx context.Context, at *place, preface []byte) (net.Conn, error) {
	conn, err := b.reach(ctx, at)
	if err != nil {
		return nil, err
	}
	if len(preface) > 0 { // a few bytes, which a new connection's buffer takes
		if _, err := conn.Write(preface); err != nil {
			conn.Close()
			return nil, err
		}
	}
	if b.config.TLS == nil {
		return conn, nil
	}
	secure := tls.Client(conn, b.config.TLS)
	if err := secure.HandshakeContext(ctx); err != nil {
		conn.Close()
		return nil, err
	}
	return secure, nil
}

// reach connects. A backend whose packets are lost is found to be slow long before it is
// found to be gone; unless it is this process that was stopped meanwhile.
func (b *Backend) reach(ctx context.Context, at *place) (net.Conn, error) {
	if b.config.Found != nil {
		began := time.Now()
		slow := time.AfterFunc(slowConnect, func() {
			if time.Since(began) < slowConnect+maxStep {
				b.config.Found(ErrSlow)
			}
		})
		defer slow.Stop()
	}
	if conn := b.reachAt(ctx, at); conn != nil {
		return conn, nil
	}
	return b.dialer.DialContext(ctx, "tcp", b.config.Addr)
}

// put takes a connection back that has carried a whole exchange and nothing more.
func (b *Backend) put(u *upstream, shard int, now int64) {
	if !u.rest(now) {
		return
	}
	var old *upstream
	if b.config.Conns > 0 {
		old = b.putBounded(u, shard)
	} else {
		old = b.shards[shard%len(b.shards)].push(u)
	}
	if old != nil {
		old.close()
	}
	if b.done.Load() {
		b.Close()
	}
}

// putBounded hands the connection over if somebody waits for one: nobody else can
// take it first.
func (b *Backend) putBounded(u *upstream, shard int) (old *upstream) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.give(u) {
		return nil
	}
	return b.shards[shard%len(b.shards)].push(u)
}

// push makes a connection the next one to be used. It takes out the one that would be the
// last if that is spent, so that a burst does not leave its connections for ever.
func (s *shard) push(u *upstream) (old *upstream) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.idle) > 0 && s.idle[0].spent(u.since) {
		old = s.idle[0]
		s.idle = slices.Delete(s.idle, 0, 1)
	}
	s.idle = append(s.idle, u)
	return old
}

// give gives the one that has waited longest its turn. The caller holds mu.
func (b *Backend) give(u *upstream) bool {
	if len(b.waiting) == 0 {
		return false
	}
	b.waiting[0] <- u
	b.waiting = b.waiting[1:]
	return true
}

// getBounded waits for its turn where the number of connections is bounded.
func (b *Backend) getBounded(ctx context.Context, shard int, preface []byte) (*upstream, error) {
	u, turn, err := b.claim(shard)
	if turn != nil {
		if u, err = b.await(ctx, turn); err != nil {
			b.leave(turn, shard)
		}
	}
	switch {
	case err != nil:
		return nil, err
	case u == nil:
		return b.dial(ctx, preface)
	case u.private():
		return b.renew(ctx, u, preface)
	}
	return u, nil
}

// await waits for a turn.
func (b *Backend) await(ctx context.Context, turn chan *upstream) (u *upstream, _ error) {
	err := b.inTime(ctx, func(ctx context.Context) error {
		select {
		case u = <-turn:
			return nil
		case <-ctx.Done():
			return ErrFull
		}
	})
	return u, err
}

// claim returns an idle connection, or else what to wait for. With neither, a
// connection may be opened; with one that is private, in its place. While somebody waits
// there is nothing to be had.
func (b *Backend) claim(shard int) (u *upstream, turn chan *upstream, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.waiting) == 0 {
		if u := b.idle(shard); u != nil {
			return u, nil, nil
		}
		if b.reserve() {
			return nil, nil, nil
		}
		if u := b.evict(); u != nil {
			return u, nil, nil
		}
	}
	if len(b.waiting) >= b.config.Waiting {
		return nil, nil, ErrFull
	}
	turn = make(chan *upstream, 1)
	b.waiting = append(b.waiting, turn)
	return nil, turn, nil
}

// reserve counts a connection that is to be opened, if there may be one more.
func (b *Backend) reserve() bool {
	for {
		open := b.open.Load()
		if open >= int64(b.config.Conns) {
			return false
		}
		if b.open.CompareAndSwap(open, open+1) {
			return true
		}
	}
}

// leave takes one that waits out of the queue. A turn that it has got already is
// passed on.
func (b *Backend) leave(turn chan *upstream, shard int) {
	if b.forget(turn) {
		return
	}
	if u := <-turn; u != nil {
		b.put(u, shard, u.since)
	} else {
		b.closed()
	}
}

func (b *Backend) forget(turn chan *upstream) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	i := slices.Index(b.waiting, turn)
	if i >= 0 {
		b.waiting = slices.Delete(b.waiting, i, i+1)
	}
	return i >= 0
}

// closed counts a connection that is open no more, unless somebody may open another
// in its place.
func (b *Backend) closed() {
	if b.config.Conns == 0 {
		b.open.Add(-1)
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.give(nil) {
		b.open.Add(-1)
	}
}

// Close closes idle connections, now and from now on. Exchanges under way end as
// they would.
func (b *Backend) Close() {
	b.done.Store(true)
	for shard := range b.shards {
		for u := b.shards[shard].pop(); u != nil; u = b.shards[shard].pop() {
			u.close()
		}
	}
}
