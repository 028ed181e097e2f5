package proxy

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/tls"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"lbnode/proxy/balance"
	"lbnode/proxy/http1"
	"lbnode/state"
)

// Config is what a Proxy needs of the node around it. Every field may be left out.
type Config struct {
	// Rank gives this node's place among the cluster's nodes, from 0. It is asked
	// when a pool is made and shifts the pool's first pick, so that several nodes
	// do not send to the same backend in step. It must not call the proxy. Without
	// it the place is 0.
	Rank func() int
	// Suspect is told the id of a backend to which a connection could not be made,
	// once each time it becomes unreachable, and must not block. The backend gets
	// no traffic from this node until SetReachable says it is back or all of
	// its pool are unreachable, so Suspect should have it probed.
	Suspect func(backendID string)
	// CookieKeys gives the keys by which the cookies of sticky pools are signed, the same
	// ones on every node: the first is for signing, all are accepted. It is asked at each
	// change of the view and by RenewCookies, and must not call the proxy. Without keys
	// there are no cookies.
	CookieKeys func() [][]byte
	// Ejected is called when this node ejects a backend, and when it takes one back, which
	// Ejections then tells. It must not block, nor call the proxy.
	Ejected func()
	// Recorder counts what happens. Without it nothing is counted.
	Recorder Recorder
	// TrustedProxies are the networks of clients that may say for whom they send a
	// request: what they put into X-Forwarded-For, -Proto and -Host is kept, and other such
	// fields pass. What any other client puts there is replaced, or dropped.
	TrustedProxies []netip.Prefix
	// ProxyProtocol are the networks from which connections begin with a header of
	// the PROXY protocol. One that does not is closed. The address in the header counts
	// as the client's, except for TrustedProxies.
	ProxyProtocol []netip.Prefix
	// MaxConnections bounds the clients' connections that are open at once, each of which
	// may need another one to a backend; 0: no bound.
	MaxConnections int
	// MaxConnectionsPerClient bounds those of one address, or of one /64 of IPv6; 0: no
	// bound.
	MaxConnectionsPerClient int
	// HeaderTimeout bounds the time from a request's first byte to the end of its
	// head, and that for a PROXY header. If it is 0, 10 s are.
	HeaderTimeout time.Duration
	// IdleTimeout bounds the time that a connection waits for a request. If it is 0,
	// 60 s are.
	IdleTimeout time.Duration
	// AccessLog gets a line about each request. Without it there is none. Who opened it
	// closes it, after Shutdown.
	AccessLog *AccessLog
	// Resolver finds the addresses of backends whose host is a name. Without it the
	// system's does.
	Resolver *net.Resolver
	// Log gets transitions, why requests failed, each reason now and then, and at debug
	// level of each. Without it nothing is logged.
	Log *slog.Logger
}

// Recorder counts what the proxy does. Its methods are called concurrently, on the
// way of each request, and must be cheap.
type Recorder interface {
	// Request: a client's request ended. The pool is "" if none matched; the method
	// is OTHER if it is not a common one; the protocol is such as "HTTP/1.1". The
	// code is 499 if the client left before there was an answer.
	Request(pool, method, protocol string, code int, took time.Duration)
	// Attempt: an attempt at a backend ended, with its body; code 0 if it brought no
	// answer.
	Attempt(pool, backend string, code int, took time.Duration)
	// Retry: a request goes to another backend. The reason is connect (no connection
	// could be made), reset (it was lost before an answer came), stale (the same, but it
	// had been idle before), timeout or hedge (it goes to two at once).
	Retry(pool, reason string)
	// Reject: the proxy itself refused a request, because of bad_request, method,
	// no_route, no_backend, no_view or loop, or a connection, because of proxy_protocol,
	// connections or client_connections.
	Reject(reason string)
	// Connections: so many client connections more, or fewer, are open.
	Connections(listener string, delta int)
}

// Proxy is a node's data plane. All methods may be called concurrently.
type Proxy struct {
	config   Config
	log      *slog.Logger
	recorder Recorder
	server   *http1.Server
	tls      *tls.Config // towards backends
	began    time.Time
	alone    string             // stands for a cluster's id where there is none
	ctx      context.Context    // of connecting to backends
	cut      context.CancelFunc // ends it
	serving  sync.WaitGroup     // one per listener

	table    atomic.Pointer[table] // nil until the first view
	draining atomic.Bool
	meter    meter
	refusals http1.Notice // of what is no request

	mu         sync.Mutex // guards the fields below and all changes to pools
	cookieKeys [][]byte
	findings   map[string]*finding
	autonomous bool
}

// New returns a proxy that serves once it has a view and listens.
func New(config Config) *Proxy {
	p := &Proxy{
		config:   config,
		log:      cmp.Or(config.Log, slog.New(slog.DiscardHandler)),
		recorder: config.Recorder,
		findings: map[string]*finding{},
		began:    time.Now(),
		alone:    rand.Text(),
		tls:      &tls.Config{ClientSessionCache: tls.NewLRUClientSessionCache(0), NextProtos: []string{"http/1.1"}},
	}
	if p.recorder == nil {
		p.recorder = discard{}
	}
	p.ctx, p.cut = context.WithCancel(context.Background())
	p.server = p.newServer()
	return p
}

// SetView makes the view the one that new requests follow; when it returns they
// do. Requests under way go on as they began. Pools that did not change, by
// pointer, are left as they are.
func (p *Proxy) SetView(v *state.View) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.renewCookies()
	pools := map[string]*pool{}
	for _, spec := range v.Pools {
		pools[spec.Name] = p.compile(spec, cmp.Or(v.ClusterID, p.alone))
	}
	old := p.table.Swap(newTable(v.Routes, pools))
	p.forget(old)
}

// SetReachable is this node's own finding, by a probe or by traffic, of whether it
// can connect to a backend. It avoids one that it cannot, unless that leaves none.
// Unknown ids are passed over.
func (p *Proxy) SetReachable(backendID string, ok bool) {
	p.mark(backendID, nil, ok, nil)
}

// SetOpinion is what this node's own probes say of a backend after their
// thresholds. It counts only while the node is autonomous. Unknown ids are passed over.
func (p *Proxy) SetOpinion(backendID string, healthy bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f := p.findings[backendID]
	if f == nil || f.opinion != nil && *f.opinion == healthy {
		return
	}
	f.opinion = &healthy
	if p.autonomous {
		p.refresh(f.pool)
	}
}

// SetPlace says at which address of its host a backend, which has that URL, passed this
// node's last good probe. Requests go there from now on; where it takes no connection, and
// with the zero address, they go wherever the name does. Unknown ids are passed over.
func (p *Proxy) SetPlace(backendID, url string, at netip.Addr) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f := p.findings[backendID]
	if f == nil || f.url != url || f.at == at {
		return
	}
	if f.at.IsValid() && at.IsValid() {
		p.log.Info("backend moved", "pool", f.pool.spec.Name, "backend", f.name, "from", f.at, "to", at)
	}
	f.at = at
	f.via.Settle(at)
}

// SetAutonomous says whether the node trusts its own opinion of a backend, where it
// has one, over the committed health, as it does without quorum.
func (p *Proxy) SetAutonomous(on bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.autonomous == on {
		return
	}
	p.autonomous = on
	if t := p.table.Load(); t != nil {
		for _, pool := range t.pools {
			p.refresh(pool)
		}
	}
}

// InFlight gives the number of attempts under way at each backend of the view, by
// backend id.
func (p *Proxy) InFlight() map[string]int {
	p.mu.Lock()
	defer p.mu.Unlock()
	counts := make(map[string]int, len(p.findings))
	for id, f := range p.findings {
		counts[id] = int(f.local.InFlight.Load())
	}
	return counts
}

// Unreachable gives the addresses, as URLs and by backend id, of the backends to which this
// node cannot connect.
func (p *Proxy) Unreachable() map[string]string {
	return p.urls(func(f *finding) bool { return f.local.Unreachable.Load() })
}

// OpenCircuits gives those that get no request, until there is a trial, because too many
// failed in a row.
func (p *Proxy) OpenCircuits() map[string]string {
	return p.urls(func(f *finding) bool { return f.aside != nil && f.aside.trial })
}

// urls gives those of the findings of which something holds.
func (p *Proxy) urls(holds func(*finding) bool) map[string]string {
	p.mu.Lock()
	defer p.mu.Unlock()
	urls := map[string]string{}
	for id, f := range p.findings {
		if holds(f) {
			urls[id] = f.url
		}
	}
	return urls
}

// RequestsPerSecond is the mean rate of client requests over the last 5 whole
// seconds.
func (p *Proxy) RequestsPerSecond() float64 { return p.meter.rate(time.Now()) }

// Ready says whether the node takes traffic: it has a view and is not draining.
func (p *Proxy) Ready() bool { return p.table.Load() != nil && !p.draining.Load() }

// found is what the engine reports of each attempt to connect to a backend; err is
// why it failed. It costs nothing unless it changes something.
func (p *Proxy) found(id string, local *balance.Local, err error) {
	if local.Unreachable.Load() == (err != nil) || ownFault(err) {
		return
	}
	if p.mark(id, local, err == nil, err) && err != nil && p.config.Suspect != nil {
		p.config.Suspect(id)
	}
}

// mark says whether it changed a backend's reachability. With local given, the
// finding is about the address that local belongs to: the backend may have moved.
func (p *Proxy) mark(backendID string, local *balance.Local, reachable bool, cause error) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	f := p.findings[backendID]
	if f == nil || local != nil && f.local != local || !f.local.Unreachable.CompareAndSwap(reachable, !reachable) {
		return false
	}
	p.refresh(f.pool)
	log := p.log.With("pool", f.pool.spec.Name, "backend", f.name)
	switch {
	case reachable:
		log.Info("backend reachable again from this node")
	case cause != nil:
		log.Warn("backend unreachable from this node", "error", cause)
	default:
		log.Warn("backend unreachable from this node")
	}
	return true
}

// discard is the Recorder that counts nothing.
type discard struct{}

func (discard) Request(string, string, string, int, time.Duration) {}
func (discard) Attempt(string, string, int, time.Duration)         {}
func (discard) Retry(string, string)                               {}
func (discard) Reject(string)                                      {}
func (discard) Connections(string, int)                            {}
