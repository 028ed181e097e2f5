package cluster

import (
	"cmp"
	"encoding/json"
	"fmt"
	"log"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

// meta is what a node tells the others of itself by gossip. Its JSON must stay
// below memberlist.MetaMaxSize, so the names are short.
type meta struct {
	Name      string `json:"n"`
	RaftAddr  string `json:"r"`
	AdminAddr string `json:"a,omitempty"`
	HTTPAddr  string `json:"h,omitempty"`
	Version   string `json:"v,omitempty"`
	Commands  int    `json:"cv,omitempty"` // see understands
	ClusterID string `json:"c,omitempty"`
	NonVoter  bool   `json:"nv,omitempty"`
	// Going is set before a node goes of its own accord.
	Going string `json:"g,omitempty"`
}

// What Going says: the process stops and will come back, or the node leaves the
// cluster for good.
const (
	stops  = "stops"
	leaves = "leaves"
)

// member is another node, or this one, as gossip knows it.
type member struct {
	meta
	ID    string
	Addr  netip.AddrPort // gossip
	State MemberState
	Since time.Time // of State
	said  uint64    // digest of what it says of itself
}

// gossip finds the other nodes and keeps their list. It remembers those that are
// gone until forget is called.
type gossip struct {
	list      *liveList
	transport *gossipTransport
	udp       udpWatch
	unlike    unlike
	strangers foreigners
	id        *identity
	changed   func() // members came, went or changed; must not block
	log       *slog.Logger
	library   *libraryLog

	telling sync.Mutex // memberlist's UpdateNode is for one caller at a time

	mu      sync.RWMutex
	own     netip.AddrPort // what others are told
	self    meta
	members map[string]member // by node id, this node aside
	foreign string            // id of another cluster that was met, empty if none
	twins   []member          // where this node's own id is said to live, too
}

// gossipConfig is where and how gossip listens.
type gossipConfig struct {
	bind      string // host:port
	advertise netip.Addr
	keyring   *memberlist.Keyring // nil: not protected
	from      networks
	self      meta
	changed   func()
	tune      func(*memberlist.Config) // nil but in tests
}

func newGossip(id *identity, c gossipConfig, out *slog.Logger) (*gossip, error) {
	g := &gossip{id: id, changed: c.changed, log: out, library: newLibraryLog(out), self: c.self, members: map[string]member{}}
	if size := len(g.NodeMeta(0)) + 64; size > memberlist.MetaMaxSize { // 64: the cluster id, still to come
		return nil, fmt.Errorf("the node's name, version and addresses are too long to gossip: %d bytes of at most %d", size, memberlist.MetaMaxSize)
	}
	library := g.library.std()
	listening, err := listenGossip(c.bind, &memberlist.NetTransportConfig{Logger: library})
	if err != nil {
		return nil, err
	}
	g.transport = newGossipTransport(listening, c.from, c.keyring != nil, g.udp.note, out)
	port := listening.GetAutoBindPort()
	g.own = netip.AddrPortFrom(c.advertise, uint16(port))
	if g.list, err = newLiveList(g.transport, func() *memberlist.Config { return g.config(c, library) }, g); err != nil {
		g.transport.Shutdown()
		return nil, fmt.Errorf("cannot start gossip on %s: %w", c.bind, err)
	}
	return g, nil
}

// config is memberlist's, for this node where it is now.
func (g *gossip) config(c gossipConfig, library *log.Logger) *memberlist.Config {
	own := g.address()
	config := memberlist.DefaultLANConfig()
	config.Name = g.id.nodeID()
	config.BindPort = int(own.Port())
	config.AdvertiseAddr = own.Addr().String()
	config.AdvertisePort = int(own.Port())
	config.Label = gossipLabel
	config.Keyring = c.keyring
	config.EnableCompression = false // messages are small, and decompression was once a way in
	config.DeadNodeReclaimTime = time.Second
	config.TCPTimeout = 3 * time.Second
	config.ProbeInterval, config.ProbeTimeout = probeEvery, probeEvery*3/7
	config.SuspicionMult, config.SuspicionMaxTimeoutMult = suspectFor, 2
	config.Logger = library
	config.Delegate, config.Alive, config.Merge, config.Conflict, config.Ping = g, g, g, g, g
	if c.tune != nil {
		c.tune(config)
	}
	return config
}

// address is what the others are told.
func (g *gossip) address() netip.AddrPort {
	g.mu.RLock()
	defer g.mu.RUnlock()
	return g.own
}

// listenGossip binds TCP and UDP to one port. A port chosen by the system may be
// taken for the other protocol, so that is tried a few times.
func listenGossip(bind string, c *memberlist.NetTransportConfig) (*memberlist.NetTransport, error) {
	host, port, err := splitAddr(bind)
	if err != nil {
		return nil, err
	}
	if host == "" {
		host = "0.0.0.0"
	}
	c.BindAddrs, c.BindPort = []string{host}, port
	for tries := 10; ; tries-- {
		transport, err := memberlist.NewNetTransport(c)
		switch {
		case err == nil:
			return transport, nil
		case inUse(err) && port == 0 && tries > 0:
		case inUse(err):
			return nil, fmt.Errorf("cannot listen for gossip on %s: address already in use; stop the other process or choose another with -bind", bind)
		default:
			return nil, fmt.Errorf("cannot listen for gossip on %s: %w", bind, err)
		}
	}
}

func addrPort(n *memberlist.Node) netip.AddrPort {
	ip, _ := netip.AddrFromSlice(n.Addr)
	return netip.AddrPortFrom(ip.Unmap(), n.Port)
}

// join exchanges members with the node at addr.
func (g *gossip) join(addr netip.AddrPort) error {
	_, err := g.list.Join([]string{addr.String()})
	g.unlike.note(addr.String(), err, time.Now())
	return err
}

// stop says goodbye, and whether it is for good, and ends gossip. Who goes without
// a word is not believed to have gone.
func (g *gossip) stop(going string) error {
	if going == "" {
		return g.list.Shutdown()
	}
	g.tell(func(m *meta) { m.Going = going })
	if err := g.exchange(); err != nil { // nobody can ask later
		g.log.Debug("could not tell any node that this one "+going, "error", err)
	}
	if err := g.list.Leave(time.Second); err != nil {
		g.log.Debug("could not say goodbye to all nodes", "error", err)
		g.exchange()
	}
	return g.list.Shutdown()
}

// me is this node as a member.
func (g *gossip) me() member {
	g.mu.RLock()
	defer g.mu.RUnlock()
	self := g.self
	self.ClusterID = g.id.clusterID()
	return member{meta: self, ID: g.id.nodeID(), Addr: g.own, State: Alive, said: digestOf(g.own, self.encode())}
}

// all returns every known node of this cluster, this one included, sorted by id.
func (g *gossip) all() []member {
	me := g.me()
	g.mu.RLock()
	defer g.mu.RUnlock()
	all := []member{me}
	for _, m := range g.members {
		if m.ClusterID == me.ClusterID || m.ClusterID == "" || me.ClusterID == "" {
			all = append(all, m)
		}
	}
	slices.SortFunc(all, func(a, b member) int { return cmp.Compare(a.ID, b.ID) })
	return all
}

// alive returns the living nodes that share this node's cluster, sorted by id.
func (g *gossip) alive() []member {
	own := g.id.clusterID()
	return slices.DeleteFunc(g.all(), func(m member) bool { return m.State != Alive || m.ClusterID != own })
}

// others returns the living nodes that share this node's cluster, this one aside.
func (g *gossip) others() []member {
	return slices.DeleteFunc(g.alive(), func(m member) bool { return m.ID == g.id.nodeID() })
}

// find returns the node of that id.
func (g *gossip) find(id string) (member, bool) {
	if id == g.id.nodeID() {
		return g.me(), true
	}
	g.mu.RLock()
	defer g.mu.RUnlock()
	m, ok := g.members[id]
	return m, ok
}

// at returns the living node with that gossip address.
func (g *gossip) at(addr netip.AddrPort) (member, bool) {
	g.mu.RLock()
	defer g.mu.RUnlock()
	for _, m := range g.members {
		if m.State == Alive && m.Addr == addr {
			return m, true
		}
	}
	return member{}, false
}

// otherClusters says which clusters were met that are not this node's.
func (g *gossip) otherClusters(now time.Time) []string {
	return g.strangers.problems(g.id.clusterID(), func(addr netip.AddrPort) bool { _, ours := g.at(addr); return ours }, now)
}

// remember adds a node known from an earlier run, as failed until it shows.
func (g *gossip) remember(m member) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if _, known := g.members[m.ID]; !known && m.ID != g.id.nodeID() {
		m.State, m.Since = Failed, time.Now()
		g.members[m.ID] = m
	}
}

// forget drops a node that is gone.
func (g *gossip) forget(id string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.members[id].State != Alive {
		delete(g.members, id)
	}
}

// metForeign returns the id of another cluster that was met, empty if none was.
func (g *gossip) metForeign() string {
	g.mu.RLock()
	defer g.mu.RUnlock()
	return g.foreign
}

func (g *gossip) note(n *memberlist.Node, state MemberState) {
	if n.Name == g.id.nodeID() {
		return
	}
	m := member{ID: n.Name, Addr: addrPort(n), State: state, Since: time.Now(), said: digestOf(addrPort(n), n.Meta)}
	if err := json.Unmarshal(n.Meta, &m.meta); err != nil {
		g.log.Warn("a node says of itself what this version cannot read", "peer", n.Name, "error", err)
		return
	}
	if state == Failed && m.Going != "" { // memberlist does not say which it was
		m.State = Left
	}
	g.mu.Lock()
	before, known := g.members[m.ID]
	g.members[m.ID] = m
	g.mu.Unlock()
	if state == Alive && before.State != Alive {
		g.unlike.forget(m.Addr.String(), m.RaftAddr)
	}
	if !known || before.State != m.State {
		g.log.Info("node is "+string(m.State), "peer", m.Name, "id", m.ID, "addr", m.Addr)
	}
	g.changed()
}

// NotifyJoin implements memberlist.EventDelegate.
func (g *gossip) NotifyJoin(n *memberlist.Node) { g.note(n, Alive) }

// NotifyUpdate implements memberlist.EventDelegate.
func (g *gossip) NotifyUpdate(n *memberlist.Node) { g.note(n, Alive) }

// NotifyLeave implements memberlist.EventDelegate.
func (g *gossip) NotifyLeave(n *memberlist.Node) { g.note(n, Failed) }

// NotifyAlive implements memberlist.AliveDelegate: nodes of other clusters stay
// unknown.
func (g *gossip) NotifyAlive(n *memberlist.Node) error {
	var m meta
	if err := json.Unmarshal(n.Meta, &m); err != nil {
		return fmt.Errorf("cannot read what node %q says of itself: %w", n.Name, err)
	}
	if !isID(n.Name) {
		return fmt.Errorf("node %q has an id that no node gives itself", n.Name)
	}
	if err := checkName(m.Name); err != nil {
		return err
	}
	if own := g.id.clusterID(); own != "" && m.ClusterID != "" && m.ClusterID != own {
		g.strangers.note(n.Name, foreigner{m.Name, m.ClusterID, addrPort(n), time.Now()})
		return fmt.Errorf("node %s %w, %s", m.Name, ErrForeign, m.ClusterID)
	}
	return nil
}

// NotifyMerge implements memberlist.MergeDelegate: two clusters refuse to merge,
// and a node of the one that is told to join the other learns why.
func (g *gossip) NotifyMerge(peers []*memberlist.Node) error {
	own := g.id.clusterID()
	if own == "" {
		return nil
	}
	foreign := ""
	met := map[string]foreigner{}
	for _, n := range peers {
		var m meta
		if n.State != memberlist.StateAlive || json.Unmarshal(n.Meta, &m) != nil {
			continue
		}
		switch m.ClusterID {
		case own:
			return nil
		case "":
		default:
			foreign = m.ClusterID
			met[n.Name] = foreigner{m.Name, m.ClusterID, addrPort(n), time.Now()}
		}
	}
	if foreign == "" {
		return nil
	}
	for id, node := range met {
		g.strangers.note(id, node)
	}
	g.mu.Lock()
	g.foreign = foreign
	g.mu.Unlock()
	return fmt.Errorf("it %w, %s, not %s", ErrForeign, foreign, own)
}

// NotifyConflict implements memberlist.ConflictDelegate. A node has just moved, or
// its data directory was copied; the node itself finds out which.
func (g *gossip) NotifyConflict(existing, other *memberlist.Node) {
	if existing.Name != g.id.nodeID() {
		g.log.Debug("a node is said to be at two addresses", "id", existing.Name, "one", addrPort(existing), "other", addrPort(other))
		return
	}
	twin := member{ID: other.Name, Addr: addrPort(other)}
	if err := json.Unmarshal(other.Meta, &twin.meta); err != nil {
		return // NotifyAlive has refused what cannot be read
	}
	g.mu.Lock()
	if len(g.twins) < maxTwins && !slices.ContainsFunc(g.twins, func(m member) bool { return m.RaftAddr == twin.RaftAddr }) {
		g.twins = append(g.twins, twin)
	}
	g.mu.Unlock()
	g.changed()
}

// NotifyPingComplete implements memberlist.PingDelegate. That a ping was answered
// shows that UDP works, whatever address the answer came from.
func (g *gossip) NotifyPingComplete(n *memberlist.Node, _ time.Duration, _ []byte) {
	g.udp.note(addrPort(n), time.Now())
}

// AckPayload implements memberlist.PingDelegate.
func (g *gossip) AckPayload() []byte { return nil }

// NodeMeta implements memberlist.Delegate.
func (g *gossip) NodeMeta(int) []byte {
	g.mu.RLock()
	self := g.self
	g.mu.RUnlock()
	self.ClusterID = g.id.clusterID()
	return self.encode()
}

func (m meta) encode() []byte {
	text, err := json.Marshal(m)
	if err != nil { // strings and booleans always marshal
		panic("cluster: cannot encode meta: " + err.Error())
	}
	return text
}

// The rest of memberlist.Delegate: nothing but members is gossiped.

// NotifyMsg implements memberlist.Delegate.
func (g *gossip) NotifyMsg([]byte) {}

// GetBroadcasts implements memberlist.Delegate.
func (g *gossip) GetBroadcasts(int, int) [][]byte { return nil }

// LocalState implements memberlist.Delegate.
func (g *gossip) LocalState(bool) []byte { return nil }

// MergeRemoteState implements memberlist.Delegate.
func (g *gossip) MergeRemoteState([]byte, bool) {}

// joinHostPort is net.JoinHostPort for a number.
func joinHostPort(host string, port int) string { return net.JoinHostPort(host, strconv.Itoa(port)) }
