package cluster

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"time"
)

// Where the others reach this node is chosen, unless somebody says it, by what the machine
// knows: its routes, which may come late, as DNS may, and change. So a node that has
// chosen looks again, and moves when it finds better.

// place is an address that this node may tell the others, and why.
type place struct {
	ip    netip.Addr
	why   string
	worth worth
}

// worth says how much speaks for a place.
type worth int

const (
	nowhere        worth = iota // there is no route to another machine: it leads to this one alone
	defaultRoute                // the address of the default route
	inJoinList                  // listed, and an address of this machine
	towardsMembers              // from where the machine reaches the members that it remembers
	towardsListed               // from where it reaches the nodes that the join list names
	given                       // said by somebody: it never changes
)

// saysAgainFor is how long a member that moved says again where it is: one that missed its goodbye
// believes it only when it counts on the old address no more.
const saysAgainFor = 15 * time.Second

const noNetwork = "this machine has no route to any other"

// How many looks in a row must find the same other place before a member of a cluster moves
// there: the others take it for gone meanwhile. Where two routes share the load, what is asked
// twice may be answered in two ways, so that a place which is no better needs more of them.
const (
	movesAfter    = 3
	switchesAfter = 30
)

// givenPlace is the place that the configuration says, if it does.
func givenPlace(c *Config) (place, error) {
	if c.Advertise != "" {
		ip, err := netip.ParseAddr(c.Advertise)
		return place{ip.Unmap(), "given by -advertise", given}, err
	}
	host, _, err := splitAddr(c.Bind)
	if err != nil || isWildcard(host) {
		return place{}, err
	}
	ip, err := netip.ParseAddr(host)
	return place{ip, "gossip is bound to it", given}, err
}

// choosePlace finds the best place of a node whose gossip is at that port. It asks the
// routes of this machine, and nobody else. Of places that are as good, now stays.
func choosePlace(all []listed, members []netip.AddrPort, port uint16, now netip.Addr) place {
	var known []listed
	for _, addr := range members {
		known = append(known, listed{name: "the member at " + addr.String(), addr: addr})
	}
	toListed, toMembers := askRoutes(all, port), askRoutes(known, port)
	if ip, to := toListed.most(now); ip.IsValid() {
		return place{ip, "it routes to " + to, towardsListed}
	}
	if ip, to := toMembers.most(now); ip.IsValid() {
		return place{ip, "it routes to " + to, towardsMembers}
	}
	if toListed.own.IsValid() {
		return place{toListed.own, "it is in the join list", inJoinList}
	}
	if toMembers.own.IsValid() {
		return place{toMembers.own, "another member is on this machine", inJoinList}
	}
	// An address of the documentation range: nothing is sent, the system only says
	// which of its own addresses it would send from.
	if ip, err := routesTo(netip.MustParseAddrPort("192.0.2.1:9")); err == nil {
		return place{ip, "it is the default route's", defaultRoute}
	}
	return place{netip.MustParseAddr("127.0.0.1"), noNetwork, nowhere}
}

// routes are the addresses from which this machine reaches others.
type routes struct {
	from  []netip.Addr          // in the order of the first of the others
	count map[netip.Addr]int    // of the others that one reaches
	first map[netip.Addr]string // one of them
	own   netip.Addr            // an address of this machine among those asked for, if any
}

// askRoutes asks for the ways to some addresses, for a node whose gossip is at that port.
func askRoutes(all []listed, port uint16) routes {
	r := routes{count: map[netip.Addr]int{}, first: map[netip.Addr]string{}}
	for _, l := range all {
		if l.err != nil || l.addr.Addr().IsLoopback() && l.addr.Port() == port {
			continue // a name of this very machine often resolves to 127.0.1.1
		}
		ip, err := routesTo(l.addr)
		switch {
		case err != nil: // no way there, at the moment
		case ip == l.addr.Addr():
			r.own = ip // a machine reaches its own addresses from themselves
		default:
			if r.count[ip]++; r.count[ip] == 1 {
				r.from, r.first[ip] = append(r.from, ip), l.name
			}
		}
	}
	return r
}

// most returns the address from which the most of the others are reached, and one of them. It
// is not valid if there is no way to any.
func (r routes) most(now netip.Addr) (best netip.Addr, to string) {
	for _, ip := range r.from {
		if r.count[ip] > r.count[best] || r.count[ip] == r.count[best] && ip == now {
			best = ip
		}
	}
	return best, r.first[best]
}

// routesTo returns the local address from which target would be reached.
func routesTo(target netip.AddrPort) (netip.Addr, error) {
	conn, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(target))
	if err != nil {
		return netip.Addr{}, err
	}
	defer conn.Close()
	return conn.LocalAddr().(*net.UDPAddr).AddrPort().Addr().Unmap(), nil
}

// yieldsTo is how many looks in a row must find another place before a node moves there, 0 if
// it stays: it moves when what it has is no address of the machine any more, or less speaks for
// it, or as much and the machine goes on preferring the other.
func (p place) yieldsTo(next place, lost func(netip.Addr) bool) (looks int) {
	switch {
	case p.worth == given, next.ip == p.ip, next.worth == nowhere:
		return 0
	case p.worth == nowhere:
		return 1
	case next.worth > p.worth, lost(p.ip):
		return movesAfter
	case next.worth == p.worth:
		return switchesAfter
	}
	return 0
}

// wish is another place that a node has seen, and in how many looks in a row.
type wish struct {
	place
	looks int
}

// again says how many looks in a row have found a place, this one included.
func (w *wish) again(next place) int {
	if next.ip != w.ip {
		*w = wish{place: next}
	}
	w.looks++
	return w.looks
}

// hasAddress says whether the address is one of this machine's.
func hasAddress(ip netip.Addr) (bool, error) {
	interfaces, err := net.InterfaceAddrs()
	return slices.ContainsFunc(interfaces, func(i net.Addr) bool {
		prefix, err := netip.ParsePrefix(i.String())
		return err == nil && prefix.Addr().Unmap() == ip
	}), err
}

// lost says whether the address is none of this machine's any more.
func lost(ip netip.Addr) bool {
	has, err := hasAddress(ip)
	return err == nil && !has
}

// here is where this node is now.
func (c *Cluster) here() place {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.place
}

// better returns a place to which this node should move once so many looks in a row have found
// it; 0 if there is none.
func (c *Cluster) better(all []listed) (next place, looks int) {
	now := c.here()
	if now.worth == given {
		return now, 0
	}
	var members []netip.AddrPort
	for _, m := range c.gossip.all() {
		if m.ID != c.id.nodeID() {
			members = append(members, m.Addr)
		}
	}
	next = choosePlace(all, members, c.gossip.address().Port(), now.ip)
	if next.ip == now.ip && next.worth > now.worth {
		c.mu.Lock()
		c.place = next
		c.mu.Unlock()
	}
	return next, now.yieldsTo(next, lost)
}

// settle moves a node without a cluster to a better place, at once unless it is only another
// one, and says whether others may reach it there.
func (c *Cluster) settle(all []listed, seen *wish) bool {
	switch next, looks := c.better(all); {
	case looks == 0:
		*seen = wish{}
	case seen.again(next) >= looks || looks <= movesAfter:
		c.moveTo(next)
		*seen = wish{}
	}
	return c.here().worth > nowhere
}

// placeLoop looks for a better place for as long as the node runs.
func (c *Cluster) placeLoop(ctx context.Context) {
	if c.here().worth == given {
		return
	}
	var seen wish
	var moved time.Time
	for pause(ctx, lookEvery) {
		if time.Since(moved) < saysAgainFor {
			c.rejoin(c.someone())
		}
		if c.id.clusterID() == "" && len(c.targets) > 0 {
			continue // formation looks
		}
		switch next, looks := c.better(c.lastListed()); {
		case looks == 0:
			seen = wish{}
		case seen.again(next) >= looks:
			c.moveTo(next)
			seen, moved = wish{}, time.Now()
		}
	}
}

// moveTo tells the others that this node is at another place from now on.
func (c *Cluster) moveTo(next place) {
	before := c.here()
	err := c.gossip.move(next.ip, func(m *meta) {
		m.RaftAddr = netip.AddrPortFrom(next.ip, c.raftPort).String()
		m.AdminAddr, m.HTTPAddr = reachable(c.addrs.Admin, next.ip), reachable(c.addrs.HTTP, next.ip)
	})
	if err != nil {
		c.log.Warn("cannot move to another address; trying again", "to", next.ip, "error", err)
		return
	}
	c.mu.Lock()
	c.place = next
	c.mu.Unlock()
	c.log.Info("reachable at another address", "addr", c.gossip.address(), "why", next.why, "before", before.ip)
	c.membersChanged()
}

// raftAddr is where the others reach this node's Raft.
func (c *Cluster) raftAddr() netip.AddrPort {
	return netip.AddrPortFrom(c.gossip.address().Addr(), c.raftPort)
}

// reachable is a listener's address as others reach it.
func reachable(addr string, ip netip.Addr) string {
	host, port, err := net.SplitHostPort(addr)
	if err != nil || !isWildcard(host) {
		return addr
	}
	return net.JoinHostPort(ip.String(), port)
}

// lookUp finds what the join list stands for at the moment. It may take resolveWithin, so
// nothing waits for it that traffic waits for.
func (c *Cluster) lookUp(ctx context.Context) []listed {
	all := resolve(ctx, c.targets, c.lookup)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.listed = all
	return all
}

// lastListed is what lookUp found last.
func (c *Cluster) lastListed() []listed {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.listed
}
