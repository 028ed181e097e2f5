// Package health probes backends and keeps this node's opinion of each: can it
// connect, and do the probes pass often enough in a row.
//
// It decides nothing for the cluster and picks nothing for traffic; it tells a
// [Sink], which does both elsewhere.
//
// Invariant: at most one probe of a backend is under way at a time, and the
// result of a probe that began before the last change to the backend's address,
// check or place in the view is thrown away, as is that of one over whose time the
// process did not run.
package health

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"time"

	"lbnode/state"
)

// Config is what a Checker needs. Sink and Log are required.
type Config struct {
	// Sink is told what the probes find.
	Sink Sink
	// Log gets this node's changes of opinion at info.
	Log *slog.Logger
	// Resolver finds the addresses of backends whose host is a name. Without it the
	// system's does.
	Resolver *net.Resolver
	// Via gives the name that traffic to a pool goes by, for the Via field of probes: a
	// backend that would send traffic back fails them. It may be nil, or give none.
	Via func(pool string) string
	// MaxProbes bounds the probes under way at once, each of which takes up to two files; those
	// that are due wait. 0: no bound.
	MaxProbes int
}

// Sink takes what the probes find. Calls come one at a time, those about one
// backend in the order in which things happened. They must not block: while one
// does, no probe's result counts. They may call the Checker, except Stop.
type Sink interface {
	// Reachable says that this node can or cannot connect to the backend. It is
	// called when that changes.
	Reachable(backendID string, ok bool)
	// Judged says that this node's opinion of a backend that it observes has
	// changed, or that there now is one, or that its agent asks for another admin state.
	Judged(o Observation)
	// Failed says that a probe has failed, whatever came of that.
	Failed(pool, backend string)
	// Placed says at which address a probe of a backend, whose host is a name, has passed.
	// It is called when that changes, and with the zero address when this node probes the
	// backend no more.
	Placed(backendID, url string, at netip.Addr)
}

// Observation is what this node's probes say of one backend.
type Observation struct {
	BackendID string
	// URL is the address that was probed.
	URL string
	// Healthy is the opinion after the rise and fall thresholds.
	Healthy bool
	// At is when the last probe ended, Latency how long it took.
	At      time.Time
	Latency time.Duration
	// Reason is what the last probe found, such as "200 OK", "connection refused",
	// "503 Service Unavailable in 12 ms" or "timeout after 1s".
	Reason string
	// Steady is how long the opinion had been the same at that time, as far as this
	// node has probed the backend.
	Steady time.Duration
	// Agent is what the backend's agent asks for, as it has said so far.
	Agent state.Wish
}

// Checker probes backends on the schedules of their pools. Its methods are safe
// for concurrent use.
type Checker struct {
	sink    Sink
	log     *slog.Logger
	probe   probeFunc
	watches sync.WaitGroup
	room    *room

	// deliver makes calls of the sink keep the order in which results were
	// recorded. It is locked before mu, and mu is not held during the calls, so
	// that the sink may call the Checker.
	deliver sync.Mutex

	mu       sync.Mutex // guards what follows
	stopped  bool
	view     *state.View
	observes func(backendID string) bool
	targets  map[string]*target
	// avoided holds the backends that someone may think this node cannot connect
	// to. They are probed, by whatever node, until a probe passes.
	avoided map[string]bool
}

// New returns a Checker that probes nothing until the first Update.
func New(cfg Config) *Checker {
	p := prober{resolver: cfg.Resolver, via: cfg.Via}
	return &Checker{
		sink:     cfg.Sink,
		log:      cfg.Log,
		probe:    p.probeFrom,
		room:     newRoom(cfg.MaxProbes, cfg.Log),
		view:     state.EmptyView(),
		observes: func(string) bool { return false },
		targets:  make(map[string]*target),
		avoided:  make(map[string]bool),
	}
}

// Update sets what is probed: the backends of v that observes names, except
// those in maintenance, and besides those that this node could not connect to.
// With nil for observes it is as in the last call, and only the pools that have
// changed since are gone through. Of a view that is older than the last one of the
// same cluster the last is taken, so that callers may race. observes must not block
// nor call the Checker.
func (c *Checker) Update(v *state.View, observes func(backendID string) bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	older := v.ClusterID == c.view.ClusterID && v.Index < c.view.Index
	if c.stopped || older && observes == nil {
		return
	}
	if older {
		v = c.view
	}
	old := c.view
	c.view = v
	c.forget(old)
	if observes != nil {
		c.observes = observes
	}
	for _, pool := range v.Pools {
		if observes == nil && old.Pool(pool.Name) == pool {
			continue
		}
		for i := range pool.Backends {
			c.adjust(pool, pool.Backends[i], c.observes(pool.Backends[i].ID))
		}
	}
}

// adjust makes the probing of b as it should now be.
func (c *Checker) adjust(pool *state.Pool, b *state.Backend, observed bool) {
	old := c.targets[b.ID]
	switch {
	case b.Admin == state.Maint || !observed && !c.avoided[b.ID]:
		c.drop(b.ID)
	case old == nil || old.backend.URL() != b.URL() || observed && !old.observed:
		c.start(newTarget(pool, b, observed))
	case !old.pool.HealthCheck.Equal(pool.HealthCheck) || old.pool.ProxyProtocol != pool.ProxyProtocol:
		c.start(old.rescheduled(pool, b, observed))
	default:
		old.observed = observed
	}
}

// forget ends all that concerns backends that the old view had and c.view has not.
func (c *Checker) forget(old *state.View) {
	for _, pool := range old.Pools {
		now := c.view.Pool(pool.Name)
		if now == pool {
			continue
		}
		present := make(map[string]bool)
		if now != nil {
			for i := range now.Backends {
				present[now.Backends[i].ID] = true
			}
		}
		for i := range pool.Backends {
			if id := pool.Backends[i].ID; !present[id] {
				c.drop(id)
				delete(c.avoided, id)
			}
		}
	}
}

// start begins to probe t instead of what was probed of its backend before. An
// unknown backend waits for its first probe to get traffic, so that one is sent
// at once; the others are spread so that backends are not probed in step.
func (c *Checker) start(t *target) {
	if old := c.targets[t.backend.ID]; old != nil && old.backend.URL() == t.backend.URL() {
		t.at = old.at
	}
	c.drop(t.backend.ID)
	var first time.Duration
	if t.opinion != state.Starting {
		first = rand.N(t.interval())
	}
	ctx, cancel := context.WithCancel(context.Background())
	t.cancel = cancel
	c.targets[t.backend.ID] = t
	c.watches.Go(func() { c.watch(ctx, t, first) })
}

// drop ends the probing of a backend, if it is probed.
func (c *Checker) drop(id string) {
	if t := c.targets[id]; t != nil {
		t.cancel()
		delete(c.targets, id)
	}
}

// Suspect says that traffic could not connect to the backend and now avoids it.
// It is probed at once, and then at its interval, whether this node observes it
// or not, until a probe passes; then the sink is told that it is reachable. Many
// calls make no more than five probes a second. An unknown backend is passed over.
func (c *Checker) Suspect(backendID string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	pool, b := c.find(backendID)
	if c.stopped || b == nil {
		return
	}
	c.avoided[backendID] = true
	if b.Admin == state.Maint {
		return
	}
	if c.targets[backendID] == nil {
		c.start(newTarget(pool, b, false))
	}
	c.targets[backendID].probeSoon()
}

func (c *Checker) find(id string) (*state.Pool, *state.Backend) {
	for _, pool := range c.view.Pools {
		for i := range pool.Backends {
			if pool.Backends[i].ID == id {
				return pool, pool.Backends[i]
			}
		}
	}
	return nil, nil
}

// Observations returns, in no order, the last observation of every backend that
// this node observes and has probed of late. What is older than the backend's schedule
// allows is left out, as is what a node that has not probed for so long believes until its
// probes bear it out: it may have been stopped, and not know what has happened meanwhile.
func (c *Checker) Observations() []Observation {
	c.mu.Lock()
	defer c.mu.Unlock()
	list := make([]Observation, 0, len(c.targets))
	for _, t := range c.targets {
		if t.speaks() {
			list = append(list, t.last)
		}
	}
	return list
}

// Observation returns the last observation of a backend, however old, false if this node
// does not observe it or has not probed it yet.
func (c *Checker) Observation(backendID string) (Observation, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := c.targets[backendID]
	if t == nil || !t.observed || t.last.At.IsZero() {
		return Observation{}, false
	}
	return t.last, true
}

// Stop ends all probes and waits for them; the sink is not called afterwards.
// Nothing is probed again.
func (c *Checker) Stop() {
	c.mu.Lock()
	c.stopped = true
	for id := range c.targets {
		c.drop(id)
	}
	c.mu.Unlock()
	c.watches.Wait()
}
