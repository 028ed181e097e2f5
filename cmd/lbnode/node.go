package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"lbnode/cluster"
	"lbnode/cluster/admin"
	"lbnode/proxy"
	"lbnode/proxy/health"
	"lbnode/state"
)

const (
	// defaultLameDuck is long enough for clients that come back often to notice.
	defaultLameDuck = time.Second
	defaultDrain    = 30 * time.Second
)

// node is one lbnode. This is the only place where its parts are put together:
//
//	  clients            other nodes              operators
//	     │                    │                       │
//	┌────▼────┐  views   ┌────▼────┐  proposals  ┌────▼────┐
//	│  proxy  │◄─────────┤ cluster │◄────────────┤  admin  │
//	└──┬───▲──┘     ┌───►└────┬────┘             └─▲───▲───┘
//	   │   │ finds  │ judged  │ views, members     │   │
//	   │ ┌─┴────────┴┐        │                    │   │ counts
//	   │ │  health   │◄───────┘        local facts │   │
//	   │ └─────┬─────┘                  (node.local)───┘
//	   ▼       ▼
//	  backends
//
// Parts start from cluster to proxy, so that traffic comes last, and stop in the
// reverse order.
type node struct {
	log     *slog.Logger
	cluster *cluster.Cluster
	admin   *admin.Server
	checker *health.Checker
	proxy   *proxy.Proxy
	metrics *admin.Metrics
	access  *proxy.AccessLog // nil if there is none

	adminAddr, httpAddr net.Addr

	leaveOnStop bool
	lameDuck    time.Duration
	drain       time.Duration

	left     chan struct{} // closed when the node has left the cluster
	leftOnce sync.Once
}

// nodeConfig is what a node is made of.
type nodeConfig struct {
	cluster    cluster.Config
	http       string // address for traffic
	proxy      proxy.Config
	admin      string // address for the admin API
	adminToken string
	adminConns int // connections to it
	maxProbes  int // at once
	log        *slog.Logger
	metrics    *admin.Metrics
	accessLog  string    // file; empty for none
	stdout     io.Writer // for accessLog -
	// leaveOnStop makes a node leave the cluster for good when it is told to stop.
	leaveOnStop bool
	lameDuck    time.Duration // in which a node that stops serves on
	drain       time.Duration // that requests may then take to end
}

// startNode binds all listeners and starts all parts. An error leaves nothing
// running.
func startNode(ctx context.Context, cfg nodeConfig) (*node, error) {
	n := &node{log: cfg.log, metrics: cfg.metrics, leaveOnStop: cfg.leaveOnStop, lameDuck: cfg.lameDuck, drain: cfg.drain, left: make(chan struct{})}
	if err := n.openAccessLog(cfg); err != nil {
		return nil, err
	}
	n.checker = health.New(health.Config{
		Sink: (*findings)(n), Log: cfg.log, Resolver: cfg.proxy.Resolver, Via: func(pool string) string { return n.proxy.Via(pool) },
		MaxProbes: cfg.maxProbes,
	})
	cfg.proxy.Rank = func() int { return n.cluster.Rank() }
	cfg.proxy.CookieKeys = func() [][]byte { return n.cluster.CookieKeys() }
	cfg.proxy.Suspect = n.checker.Suspect
	cfg.proxy.Ejected = func() { n.cluster.Observed() }
	cfg.proxy.Recorder = n.metrics
	cfg.proxy.Log = cfg.log
	cfg.proxy.AccessLog = n.access
	n.proxy = proxy.New(cfg.proxy)
	cfg.cluster.OnView = n.viewChanged
	cfg.cluster.OnMembers = n.membersChanged
	cfg.cluster.OnAutonomous = n.proxy.SetAutonomous
	cfg.cluster.OnCommit = n.metrics.Committed
	cfg.cluster.Local = n.local
	var err error
	if n.cluster, err = cluster.Open(ctx, cfg.cluster); err != nil {
		n.checker.Stop()
		n.closeAccessLog(ctx)
		return nil, err
	}
	n.viewChanged(n.cluster.View()) // before there is a listener: who comes gets an answer
	if err := n.listen(cfg); err != nil {
		n.stop(ctx, false)
		return nil, err
	}
	n.membersChanged()
	n.cluster.Start(context.WithoutCancel(ctx), cluster.Addrs{Admin: n.adminAddr.String(), HTTP: n.httpAddr.String()})
	return n, nil
}

func (n *node) listen(cfg nodeConfig) (err error) {
	n.admin = admin.New(admin.Config{
		Cluster:  (*control)(n),
		Local:    n.local,
		Observed: n.observed,
		Ready:    n.ready,
		Token:    cfg.adminToken,
		Version:  cfg.cluster.Version,
		Log:      cfg.log,
		Metrics:  n.metrics,

		MaxConnections: cfg.adminConns,
	})
	if n.adminAddr, err = n.admin.Listen(cfg.admin); err != nil {
		return err
	}
	n.httpAddr, err = n.proxy.Listen(cfg.http)
	return err
}

// run waits until the node must stop, and stops it.
func (n *node) run(ctx context.Context) error {
	var err error
	leave := false
	select {
	case <-ctx.Done():
		leave = n.leaveOnStop
	case <-n.left:
	case err = <-n.cluster.Failed():
	}
	n.stop(context.WithoutCancel(ctx), leave)
	return err
}

// stop sends traffic elsewhere, takes no more, lets what is under way end, then stops the parts
// in the reverse order of their start. With leave, the node leaves the cluster for
// good, if the cluster can do without it now.
func (n *node) stop(ctx context.Context, leave bool) {
	n.proxy.Retire()
	if n.httpAddr != nil {
		time.Sleep(n.lameDuck)
	}
	draining, cancel := context.WithTimeout(ctx, n.drain)
	defer cancel()
	if err := n.proxy.Shutdown(draining); err != nil {
		n.log.Warn("cut off requests that did not end in time", "error", err)
	}
	n.closeAccessLog(ctx)
	n.checker.Stop()
	if n.admin != nil {
		if err := n.admin.Shutdown(draining); err != nil {
			n.log.Warn("cut off admin requests that did not end in time", "error", err)
		}
	}
	if leave {
		if err := n.cluster.Leave(ctx); err != nil {
			n.log.Warn("stops without leaving: it stays a member", "error", err)
		}
	}
	n.cluster.Stop()
}

func (n *node) viewChanged(v *state.View) {
	if v.Index == 0 {
		return // nothing was ever agreed; without a view the proxy says so
	}
	n.proxy.SetView(v)
	n.checker.Update(v, nil)
}

func (n *node) membersChanged() { n.checker.Update(n.cluster.View(), n.cluster.Observes()) }

// ready says why the node takes no traffic, nil if it does. Losing quorum is no
// reason: traffic still flows.
func (n *node) ready() error {
	if n.cluster.View().Index == 0 {
		return errors.New("has no view yet: it has not joined a cluster")
	}
	if !n.proxy.Ready() {
		return errors.New("is stopping")
	}
	return nil
}

// local gathers what only this node knows.
func (n *node) local() cluster.Local {
	l := cluster.Local{
		Ready:             n.ready() == nil,
		RequestsPerSecond: n.proxy.RequestsPerSecond(),
		Backends:          map[string]cluster.LocalBackend{},
		Panics:            n.proxy.Panics(),
	}
	ejected, open, unreachable := n.proxy.Ejections(), n.proxy.OpenCircuits(), n.proxy.Unreachable()
	for id, count := range n.proxy.InFlight() {
		l.Backends[id] = cluster.LocalBackend{InFlight: count, Ejected: ejected[id], CircuitOpen: open[id], Unreachable: unreachable[id]}
	}
	for _, o := range n.checker.Observations() {
		b, seen := l.Backends[o.BackendID], cluster.Observation(o)
		b.Observation = &seen
		l.Backends[o.BackendID] = b
	}
	return l
}

// observed is what this node's probes last found of one backend.
func (n *node) observed(backendID string) *cluster.Observation {
	o, ok := n.checker.Observation(backendID)
	if !ok {
		return nil
	}
	seen := cluster.Observation(o)
	return &seen
}

// findings takes what the probes find to those who act on it.
type findings node

// Reachable implements health.Sink.
func (f *findings) Reachable(backendID string, ok bool) { f.proxy.SetReachable(backendID, ok) }

// Judged implements health.Sink.
func (f *findings) Judged(o health.Observation) {
	f.proxy.SetOpinion(o.BackendID, o.Healthy)
	f.cluster.Observed()
}

// Failed implements health.Sink.
func (f *findings) Failed(pool, backend string) { f.metrics.CheckFailed(pool, backend) }

// Placed implements health.Sink.
func (f *findings) Placed(backendID, url string, at netip.Addr) {
	f.proxy.SetPlace(backendID, url, at)
}

// control is the cluster as the admin API sees it: after leaving, the process
// stops too.
type control node

// View implements admin.Cluster.
func (c *control) View() *state.View { return c.cluster.View() }

// Propose implements admin.Cluster.
func (c *control) Propose(ctx context.Context, w cluster.Write) (state.Result, error) {
	return c.cluster.Propose(ctx, w)
}

// Barrier implements admin.Cluster.
func (c *control) Barrier(ctx context.Context) error { return c.cluster.Barrier(ctx) }

// NextView implements admin.Cluster.
func (c *control) NextView(ctx context.Context, index uint64) *state.View {
	return c.cluster.NextView(ctx, index)
}

// Status implements admin.Cluster.
func (c *control) Status(ctx context.Context) cluster.Status { return c.cluster.Status(ctx) }

// Leave implements admin.Cluster.
func (c *control) Leave(ctx context.Context) error {
	if err := c.cluster.Leave(ctx); err != nil {
		return err
	}
	c.leftOnce.Do(func() { close(c.left) })
	return nil
}

// Expel implements admin.Cluster.
func (c *control) Expel(ctx context.Context, peer string) error { return c.cluster.Expel(ctx, peer) }

// runNode is the command without a name: it runs a node until it is told to stop.
func runNode(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	flags, err := parseFlags(args)
	if err != nil {
		return quietHelpWith(stdout, err)
	}
	metrics := admin.NewMetrics()
	log, err := openLog(stderr, flags, metrics.LogDropped)
	if err != nil {
		return err
	}
	defer log.close()
	cfg, err := flags.nodeConfig(log.Logger)
	if err != nil {
		return err
	}
	cfg.metrics, cfg.stdout = metrics, stdout
	reload := newReload(flags.secret, log.Logger)
	defer reload.stop()
	n, err := startNode(ctx, cfg)
	if err != nil {
		return err
	}
	say(stdout, n.introduction(flags))
	reload.start(n)
	return n.run(ctx)
}

// nodeConfig turns the flags into what a node is made of.
func (f *nodeFlags) nodeConfig(log *slog.Logger) (cfg nodeConfig, err error) {
	cfg = nodeConfig{http: f.http, admin: f.admin, leaveOnStop: f.leaveOnStop, lameDuck: f.lameDuck, drain: f.drain, log: log, accessLog: f.accessLog}
	if cfg.adminToken, err = f.adminToken(); err != nil {
		return cfg, err
	}
	if cfg.cluster, err = f.clusterConfig(log); err != nil {
		return cfg, err
	}
	if cfg.proxy, err = f.proxyConfig(); err != nil {
		return cfg, err
	}
	shares, err := planFiles(f.maxConns, log)
	cfg.proxy.MaxConnections, cfg.adminConns, cfg.maxProbes = shares.clients, shares.admin, shares.probes
	return cfg, err
}

func quietHelpWith(stdout io.Writer, err error) error {
	if quietHelp(err) == nil {
		return printHelp(stdout)
	}
	return err
}

// introduction says who and where this node is, and what to type next.
func (n *node) introduction(f *nodeFlags) string {
	var out strings.Builder
	addr, why := n.cluster.Advertised()
	standing := "new, a cluster of one"
	switch {
	case n.cluster.Existing():
		standing = "comes back to its cluster with the view it kept"
	case len(f.join) > 0:
		standing = "new, meets " + f.join.String()
	}
	fmt.Fprintf(&out, "node      %s, id %s, data in %s\n", f.node, n.cluster.ID(), f.dataDir)
	fmt.Fprintf(&out, "reachable at %s (%s)\n", addr, why)
	fmt.Fprintf(&out, "cluster   %s\n", standing)
	fmt.Fprintf(&out, "listens   traffic %s, admin %s, gossip %s, raft %s\n", n.httpAddr, n.adminAddr, f.bind, f.raft)
	next := "lbnode backend add web-1 http://10.0.0.11:8080"
	if len(n.cluster.View().Pools) > 0 {
		next = "lbnode status"
	}
	if n.adminAddr.String() != defaultAdmin {
		next += " -admin " + n.adminAddr.String()
	}
	fmt.Fprintf(&out, "next      %s\n", next)
	return out.String()
}
