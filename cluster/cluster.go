package cluster

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"lbnode/state"
)

// Cluster is one node's part in the cluster. Open, Start, then Stop or Leave.
type Cluster struct {
	cfg     Config
	log     *slog.Logger
	library *libraryLog

	id        *identity
	instance  string      // of this process
	began     time.Time   // of this process
	copied    atomic.Bool // this node must end because it is a copy
	targets   []JoinTarget
	lookup    lookup
	bindHost  string // of gossip
	raftPort  uint16
	addrs     Addrs // as Start got them
	hadState  bool  // Raft found state on disk when it started
	views     *views
	store     *logStore
	keys      *keys // nil: not protected
	mux       *mux
	dialer    *dialer
	server    *callServer
	calls     *caller
	gossip    *gossip
	fsm       *fsm
	disk      *disk
	stores    stores
	replica   atomic.Pointer[replica]
	refusals  refusals
	leading   chan bool // true when this node becomes leader, false when it ceases
	members   chan struct{}
	changes   *broadcast // members, leader or reports changed
	observers *reports
	reporter  chan struct{}
	nodes     *nodeReports
	kept      []keptPeer // what peers.json holds; of membersLoop, once it runs

	promised promised
	adopting sync.Mutex

	mu         sync.Mutex
	place      place    // where the others reach this node
	listed     []listed // what the join list stood for when it was last looked up
	waiting    string   // what formation waits for
	autonomous bool
	problems   map[string]bool

	transfers atomic.Int32 // of leadership that Raft has not answered yet

	cancel  context.CancelFunc
	running sync.WaitGroup
	failed  chan error
	stopped sync.Once
}

// Open opens the data directory, binds the ports and starts gossip and Raft, but
// meets nobody yet. An error leaves nothing running. It names what is wrong with
// the configuration, the directory or an address.
func Open(ctx context.Context, cfg Config) (*Cluster, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	c := &Cluster{
		cfg:       cfg,
		log:       cfg.Log,
		instance:  NewID(),
		began:     time.Now(),
		library:   newLibraryLog(cfg.Log),
		lookup:    lookUpHost,
		disk:      newDisk(),
		leading:   make(chan bool, 16),
		members:   make(chan struct{}, 1),
		changes:   newBroadcast(),
		observers: newReports(),
		reporter:  make(chan struct{}, 1),
		nodes:     newNodeReports(),
		failed:    make(chan error, 1),
	}
	if cfg.hooks.lookup != nil {
		c.lookup = cfg.hooks.lookup
	}
	if err := c.open(ctx); err != nil {
		c.close()
		c.running.Wait()
		return nil, c.wayOut(err)
	}
	return c, nil
}

func (c *Cluster) open(ctx context.Context) error {
	from, err := ParseNetworks("allow-from", c.cfg.AllowFrom)
	if err != nil {
		return err
	}
	listener, err := listenRaft(c.cfg.Raft)
	if err != nil {
		return err
	}
	c.mux = newMux(listener, from, c.log)
	c.mux.admit = c.admitRaft
	if err := c.openDir(); err != nil {
		return err
	}
	if err := c.openKeys(); err != nil {
		return err
	}
	c.mux.keys = c.keys
	c.dialer = &dialer{keys: c.keys, watch: c.cfg.hooks.dialed}
	c.calls = newCaller(c.dialer)
	c.calls.label = c.labelAt
	if err := c.openGossip(ctx); err != nil {
		return err
	}
	if err := c.checkCopy(ctx); err != nil {
		return err
	}
	c.views = openViews(c.cfg.DataDir, c.id.clusterID(), c.log)
	c.fsm = newFSM(c.views.publish, c.fail)
	if err := c.openStores(); err != nil {
		return err
	}
	return c.startRaft()
}

func listenRaft(addr string) (net.Listener, error) {
	listener, err := net.Listen("tcp", addr)
	if err == nil {
		return listener, nil
	}
	if inUse(err) {
		return nil, fmt.Errorf("cannot listen for raft on %s: address already in use; stop the other process or choose another with -raft", addr)
	}
	return nil, fmt.Errorf("cannot listen for raft on %s: %w", addr, err)
}

func (c *Cluster) openDir() (err error) {
	if err := makeDir(c.cfg.DataDir); err != nil {
		return err
	}
	if c.store, err = openStore(c.cfg.DataDir, c.log); err != nil { // takes the lock, so it comes first
		return err
	}
	c.store.report = func(err error) { c.fail(c.wayOut(err)) }
	if c.id, err = openIdentity(c.cfg.DataDir); err != nil {
		return err
	}
	return c.settleFounding()
}

// settleFounding ends a founding that a crash cut short. The cluster was born with
// the first entry of the log. Before that, only Raft's term may be on disk, which
// goes: with it, Raft would refuse to found anything.
func (c *Cluster) settleFounding() error {
	clusterID := c.id.founding()
	if clusterID == "" {
		return nil
	}
	last, err := c.store.LastIndex()
	if err != nil {
		return fmt.Errorf("cannot read the log in %s: %w", c.cfg.DataDir, err)
	}
	if last > 0 {
		return c.id.set(clusterID, false)
	}
	if err := c.store.SetUint64([]byte(currentTerm), 0); err != nil {
		return fmt.Errorf("cannot write the log in %s: %w", c.cfg.DataDir, err)
	}
	return c.id.set("", false)
}

func (c *Cluster) openGossip(ctx context.Context) error {
	var port int
	var err error
	if c.bindHost, port, err = splitAddr(c.cfg.Bind); err != nil {
		return err
	}
	if c.targets, err = ParseJoin(c.cfg.Join, port); err != nil {
		return err
	}
	if c.place, err = givenPlace(&c.cfg); err != nil {
		return fmt.Errorf("cannot use the address to advertise: %w", err)
	}
	c.kept = c.readPeers()
	if c.place.worth != given { // by what needs no DNS, which may be slow; placeLoop looks again
		c.place = choosePlace(literals(c.targets), c.keptAddrs(), uint16(port), netip.Addr{})
	}
	c.raftPort = uint16(c.mux.listener.Addr().(*net.TCPAddr).Port)
	c.gossip, err = newGossip(c.id, gossipConfig{
		bind:      c.cfg.Bind,
		advertise: c.place.ip,
		keyring:   c.keys.gossip(),
		from:      c.mux.from,
		changed:   c.membersChanged,
		tune:      c.cfg.hooks.gossip,
		self: meta{
			Name:     c.cfg.Name,
			RaftAddr: netip.AddrPortFrom(c.place.ip, c.raftPort).String(),
			Version:  c.cfg.Version,
			Commands: state.Version,
			NonVoter: c.cfg.NonVoter,
		},
	}, c.log)
	if err != nil {
		return err
	}
	c.recallPeers()
	return nil
}

// Addrs are where this node's other listeners are, host:port; a host that is
// empty or unspecified is replaced by the advertised address.
type Addrs struct {
	Admin string
	HTTP  string
}

// Start tells the others of addrs, answers them from now on, and begins to form or
// rejoin the cluster. It does not wait for that; Failed says if the node must not
// go on. The view that Open found is handed to OnView first.
func (c *Cluster) Start(ctx context.Context, addrs Addrs) {
	ctx, c.cancel = context.WithCancel(ctx)
	c.views.begin(c.cfg.OnView)
	c.addrs = addrs
	c.server = serveCalls(c.mux.calls, c, c.mux.unproven(), c.log)
	c.mux.start()
	c.tell(func(m *meta) {
		ip := c.here().ip
		m.AdminAddr, m.HTTPAddr = reachable(addrs.Admin, ip), reachable(addrs.HTTP, ip)
	})
	for _, loop := range []func(context.Context){
		c.formLoop, c.membersLoop, c.leaderLoop, c.quorumLoop, c.reportLoop, c.seedLoop, c.rejoinLoop, c.watchLoop,
		c.diskLoop, c.placeLoop,
	} {
		c.running.Go(func() { loop(ctx) })
	}
	c.membersChanged() // this node is one of them
}

// Failed receives the error after which this node cannot go on.
func (c *Cluster) Failed() <-chan error { return c.failed }

// fail ends the node with err, unless it is ending already.
func (c *Cluster) fail(err error) {
	select {
	case c.failed <- err:
	default:
	}
}

func (c *Cluster) formLoop(ctx context.Context) {
	var err error
	if c.id.clusterID() == "" {
		err = c.form(ctx)
	} else {
		err = c.checkCluster(ctx)
	}
	if err != nil && ctx.Err() == nil {
		c.fail(err)
	}
}

// checkCluster is how a node with state starts: its own state wins, the join
// list only helps gossip. That the list leads to another cluster alone is an
// error, because the operator meant that one.
func (c *Cluster) checkCluster(ctx context.Context) error {
	misled, peers := false, c.survey(ctx, c.lookUp(ctx))
	if err := c.checkOutgrown(peers); err != nil {
		return err
	}
	for _, p := range peers {
		if p.hello.ClusterID == c.id.clusterID() {
			return nil
		}
		misled = misled || strings.Contains(p.reason, ErrForeign.Error()) // memberlist keeps only its text
	}
	if foreign := c.gossip.metForeign(); misled && foreign != "" { // one that only came by proves nothing
		return fmt.Errorf("the data directory %s belongs to cluster %s, but -join %s leads to cluster %s: correct -join, or give this node an empty -data-dir to join that cluster",
			c.cfg.DataDir, c.id.clusterID(), strings.Join(c.cfg.Join, ","), foreign)
	}
	return nil
}

// membersLoop passes on that members came, went or changed. Gossip itself must
// not wait for those who want to know.
func (c *Cluster) membersLoop(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-c.members:
			c.keepPeers()
			c.cfg.OnMembers()
			c.changes.send()
			if c.id.clusterID() != c.gossip.toldCluster() {
				c.tell(func(m *meta) { m.ClusterID = c.id.clusterID() })
			}
		}
	}
}

func (c *Cluster) membersChanged() {
	select {
	case c.members <- struct{}{}:
	default: // it is already told
	}
}

// View is what this node serves now.
func (c *Cluster) View() *state.View { return c.views.current.Load() }

// ID is this node's id.
func (c *Cluster) ID() string { return c.id.nodeID() }

// Advertised is the address that other nodes are told now, and why this one.
func (c *Cluster) Advertised() (addr, why string) { return c.gossip.address().String(), c.here().why }

// Existing says whether this node found a cluster in its data directory.
func (c *Cluster) Existing() bool { return c.id.clusterID() != "" }

// Rank is this node's place among the nodes of the cluster, from 0. It comes from
// Raft's members, which a node knows before it has met any other. They stand in the order
// in which they came, so that nobody's place is another's because more have come since; one
// that is not a member yet comes after all that are.
func (c *Cluster) Rank() int {
	servers := c.servers()
	for i, s := range servers {
		if string(s.ID) == c.id.nodeID() {
			return i
		}
	}
	return len(servers)
}
