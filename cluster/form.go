package cluster

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// peer is what a node that forms a cluster knows of one listed address.
type peer struct {
	listed
	own    bool
	hello  helloReply // zero if it did not answer
	raft   string     // address to call it at
	reason string     // why it did not answer, empty if it did
}

// step is what formation does next.
type step struct {
	join    string // the cluster to join, empty if none
	found   bool   // found a cluster with all listed peers
	waiting string // what for, if neither
	// hopeless is why this node cannot found a cluster whoever comes; it may
	// still join one. Empty if it can.
	hopeless string
}

// decide is the rule of formation for a node without state: join a listed peer's
// cluster if there is one; else found one, if all listed peers are there and
// empty, this node among them, no two of one name, and it has the lowest id of those
// that may vote; else wait. A name that leads to nobody else yet may do so later.
func decide(self helloReply, peers []peer) step {
	var clusters, missing, candidates, mine []string
	listed, unresolved, shared := false, false, sharedName(self, peers)
	for _, p := range peers {
		unresolved = unresolved || p.err != nil
		switch {
		case p.own:
			listed = true
			if p.byName && !slices.Contains(mine, p.name) {
				mine = append(mine, p.name)
			}
			if !self.NonVoter {
				candidates = append(candidates, self.ID)
			}
		case p.reason != "":
			missing = append(missing, p.name+" "+p.reason)
		case p.hello.ClusterID != "":
			if !slices.Contains(clusters, p.hello.ClusterID) {
				clusters = append(clusters, p.hello.ClusterID)
			}
		case !p.hello.NonVoter:
			candidates = append(candidates, p.hello.ID)
		}
	}
	slices.Sort(candidates)
	switch {
	case len(clusters) > 1:
		return step{waiting: "the listed peers to belong to one cluster: they belong to " + strings.Join(clusters, " and ")}
	case len(clusters) == 1:
		return step{join: clusters[0]}
	case !listed && !unresolved:
		return step{hopeless: "it does not list this node's own address", waiting: "a listed peer to have a cluster" + inBrackets(missing)}
	case shared != "":
		return step{waiting: "one of the two listed nodes named " + shared + " to be given another -node"}
	case len(missing) > 0:
		return step{waiting: fmt.Sprintf("%d of %d: %s", len(missing), len(peers), strings.Join(missing, ", "))}
	case len(mine) > 0 && !hasOthers(peers):
		return step{waiting: "another node: " + strings.Join(mine, " and ") + " leads to this node alone; for a cluster of one, start it without -join"}
	case len(candidates) == 0:
		return step{hopeless: "all nodes that it lists have -non-voter", waiting: "a listed peer that may vote"}
	case candidates[0] != self.ID:
		return step{waiting: "node " + candidates[0] + " to found the cluster"}
	}
	return step{found: true}
}

// sharedName returns a name that two nodes have, empty if none.
func sharedName(self helloReply, peers []peer) string {
	holder := map[string]string{self.Name: self.ID}
	for _, p := range peers {
		if p.own || p.reason != "" {
			continue
		}
		if id, taken := holder[p.hello.Name]; taken && id != p.hello.ID {
			return p.hello.Name
		}
		holder[p.hello.Name] = p.hello.ID
	}
	return ""
}

func inBrackets(texts []string) string {
	return bracketed(strings.Join(texts, ", "))
}

func bracketed(text string) string {
	if text == "" {
		return ""
	}
	return " (" + text + ")"
}

// form ends when this node has a cluster, or with the reason why it never will.
func (c *Cluster) form(ctx context.Context) error {
	if len(c.targets) == 0 {
		return c.bootstrap(NewID(), nil)
	}
	said := time.Now().Add(-waitingEvery + 2*time.Second) // the first line after 2 s
	f := forming{Cluster: c, began: time.Now()}
	for c.id.clusterID() == "" {
		next, err := f.round(ctx)
		if err != nil {
			return err
		}
		if next.hopeless != "" && time.Since(f.began) > formGrace {
			return fmt.Errorf("cannot form a cluster with -join %s: %s (%s), and it waited in vain for %s",
				strings.Join(c.cfg.Join, ","), next.hopeless, c.gossip.address(), next.waiting)
		}
		c.setWaiting(next.waiting)
		if next.waiting != "" && time.Since(said) > waitingEvery {
			c.log.Info("waiting for " + next.waiting)
			said = time.Now()
		}
		if !pause(ctx, formRound) {
			return nil
		}
	}
	c.setWaiting("")
	return nil
}

// forming is what a node that forms a cluster remembers from one round to the next.
type forming struct {
	*Cluster
	began time.Time // with a network
	names steady
	place wish
}

// round looks at the listed peers, does what follows from it, and says what is next.
func (f *forming) round(ctx context.Context) (step, error) {
	all := f.lookUp(ctx)
	if !f.settle(all, &f.place) {
		f.began = time.Now()
		return step{waiting: "a network: " + noNetwork}, nil
	}
	peers := f.survey(ctx, all)
	if err := f.checkOutgrown(peers); err != nil {
		return step{}, err
	}
	next := decide(f.hello(), peers)
	f.names.hold(&next, f.targets, peers, time.Now())
	err := f.take(ctx, &next, peers)
	return next, err
}

// take carries a step out; one that fails because another node was faster becomes
// a reason to wait.
func (c *Cluster) take(ctx context.Context, next *step, peers []peer) error {
	var err error
	switch {
	case next.join != "":
		err = c.adopt(next.join)
	case next.found:
		err = c.found(ctx, next, peers)
	}
	if errors.Is(err, ErrForeign) {
		*next = step{waiting: "the cluster that this node has promised to help found"}
		return nil
	}
	return err
}

// survey looks at all listed addresses and, where DNS says how many there are, at the
// nodes that gossip has met as well: DNS may have told another node more.
func (c *Cluster) survey(ctx context.Context, all []listed) []peer {
	peers := c.lookAt(ctx, all)
	if !countedByDNS(c.targets, peers) {
		return peers
	}
	var met []listed
	for _, m := range c.gossip.all() {
		unlisted := !slices.ContainsFunc(peers, func(p peer) bool { return p.addr == m.Addr })
		if unlisted && m.State == Alive && m.ID != c.id.nodeID() {
			met = append(met, listed{name: m.Name + " at " + m.Addr.String(), addr: m.Addr, byName: true})
		}
	}
	return append(peers, c.lookAt(ctx, met)...)
}

func (c *Cluster) lookAt(ctx context.Context, all []listed) []peer {
	peers := make([]peer, len(all))
	var asking sync.WaitGroup
	for i, l := range all {
		asking.Go(func() { peers[i] = c.look(ctx, l) })
	}
	asking.Wait()
	return peers
}

// look meets a listed peer by gossip, then asks it directly who it is: what
// gossip says of it may be old.
func (c *Cluster) look(ctx context.Context, l listed) peer {
	p := peer{listed: l}
	if l.err != nil {
		p.reason = reason(l.err)
		return p
	}
	if isOwn(l.addr, c.gossip.address(), c.bindHost) {
		p.own = true
		return p
	}
	m, known := c.gossip.at(l.addr)
	if !known {
		if err := c.gossip.join(l.addr); err != nil {
			p.reason = reason(err)
			return p
		}
		if m, known = c.gossip.at(l.addr); !known {
			p.reason = "answers, under another address: has it the right -advertise?"
			return p
		}
	}
	ctx, cancel := context.WithTimeout(ctx, callWithin)
	defer cancel()
	p.raft = m.RaftAddr
	if err := c.calls.call(ctx, m.RaftAddr, helloPath, none{}, &p.hello); err != nil {
		p.reason = "at " + m.RaftAddr + " " + reason(err)
	} else if p.hello.ID != m.ID {
		p.reason = "is being replaced" // gossip still knows the node that was there before
	}
	return p
}

// found asks all listed peers to promise themselves to a new cluster, and
// bootstraps it if all do. Two nodes with different lists that each believe
// they should found a cluster cannot both get the promise of a peer they share.
func (c *Cluster) found(ctx context.Context, next *step, peers []peer) error {
	clusterID, self := NewID(), c.id.nodeID()
	call := promiseCall{ClusterID: clusterID, From: self}
	if !c.promised.give(call) {
		return ErrForeign
	}
	began := time.Now()
	err := c.askPromises(ctx, peers, call)
	if err == nil && time.Since(began) > promiseHolds/2 {
		err = errors.New("all nodes to promise in time")
	}
	if err != nil {
		call.Release = true
		c.promised.release(call)
		c.askPromises(ctx, peers, call) // who cannot be told forgets by itself
		*next = step{waiting: err.Error()}
		return nil
	}
	return c.bootstrap(clusterID, peers)
}

func (c *Cluster) askPromises(ctx context.Context, peers []peer, call promiseCall) error {
	ctx, cancel := context.WithTimeout(ctx, callWithin)
	defer cancel()
	errs := make([]error, len(peers))
	var asking sync.WaitGroup
	for i, p := range peers {
		if p.own {
			continue
		}
		asking.Go(func() {
			call := call
			call.To = p.hello.ID
			if p.reason != "" {
				errs[i] = fmt.Errorf("%s %s", p.name, p.reason)
			} else if err := c.calls.call(ctx, named(call.To, p.raft), promisePath, call, &none{}); err != nil {
				errs[i] = fmt.Errorf("%s to promise: %w", p.name, err)
			}
		})
	}
	asking.Wait()
	return cmp.Or(errs...)
}

// bootstrap founds the cluster with this node and the peers as its members. At
// most maxVoters of them vote, those of the lowest ids.
func (c *Cluster) bootstrap(clusterID string, peers []peer) error {
	if err := c.beginFounding(clusterID); err != nil {
		return err
	}
	members := foundingMembers(c.hello(), c.raftAddr().String(), peers)
	if err := c.raft().BootstrapCluster(raft.Configuration{Servers: members}).Error(); err != nil {
		return fmt.Errorf("cannot found the cluster: %w", err)
	}
	c.log.Info("founded a cluster", "members", len(members))
	return c.adopt(clusterID)
}

func (c *Cluster) beginFounding(clusterID string) error {
	c.adopting.Lock()
	defer c.adopting.Unlock()
	if c.id.clusterID() != "" || c.promised.elsewhere(clusterID) {
		return ErrForeign
	}
	return c.id.set(clusterID, true)
}

func foundingMembers(self helloReply, selfAddr string, peers []peer) []raft.Server {
	server := func(h helloReply, addr string) raft.Server {
		s := raft.Server{ID: raft.ServerID(h.ID), Address: raft.ServerAddress(addr), Suffrage: raft.Voter}
		if h.NonVoter {
			s.Suffrage = raft.Nonvoter
		}
		return s
	}
	members := []raft.Server{server(self, selfAddr)}
	for _, p := range peers {
		if !p.own {
			members = append(members, server(p.hello, p.raft))
		}
	}
	slices.SortFunc(members, func(a, b raft.Server) int { return cmp.Compare(a.ID, b.ID) })
	votes := 0
	for i := range members {
		if members[i].Suffrage != raft.Voter {
			continue
		}
		if votes++; votes > maxVoters {
			members[i].Suffrage = raft.Nonvoter
		}
	}
	return members
}

// adopt makes this node one of the cluster's, unless it is in another one, or
// bound to one that may be coming to be.
func (c *Cluster) adopt(clusterID string) error {
	c.adopting.Lock()
	defer c.adopting.Unlock()
	own := c.id.clusterID()
	switch founding := c.id.founding(); {
	case own == clusterID:
		return nil
	case own != "", founding != "" && founding != clusterID, c.promised.elsewhere(clusterID):
		return fmt.Errorf("this node %w", ErrForeign)
	}
	if err := c.id.set(clusterID, false); err != nil {
		return err
	}
	c.log.Info("belongs to a cluster now", "cluster", clusterID)
	c.membersChanged()
	return nil
}

// promised is the one founding that this node has promised to take part in. It
// lives in memory: a founder that bootstraps does so within promiseHolds, and a
// node that restarts meanwhile finds the founder with a cluster and joins it.
type promised struct {
	mu    sync.Mutex
	to    promiseCall
	since time.Time
}

func (p *promised) give(call promiseCall) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.to.From != "" && p.to.From != call.From && time.Since(p.since) < promiseHolds {
		return false
	}
	p.to, p.since = call, time.Now()
	return true
}

func (p *promised) release(call promiseCall) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.to.From == call.From && p.to.ClusterID == call.ClusterID {
		p.to = promiseCall{}
	}
}

// holds says whether this node is promised to that cluster.
func (p *promised) holds(clusterID string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.to.ClusterID == clusterID && p.to.From != ""
}

// elsewhere says whether this node is bound to another cluster than that.
func (p *promised) elsewhere(clusterID string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.to.From != "" && p.to.ClusterID != clusterID && time.Since(p.since) < promiseHolds
}

// hello says who this node is.
func (c *Cluster) hello() helloReply {
	return helloReply{
		ID: c.id.nodeID(), Name: c.cfg.Name, ClusterID: c.id.clusterID(), NonVoter: c.cfg.NonVoter, Needs: c.fsm.version(),
		Instance: c.instance, Uptime: time.Since(c.began),
	}
}

// promise answers a founder.
func (c *Cluster) promise(call promiseCall) error {
	if call.Release {
		c.promised.release(call)
		return nil
	}
	c.adopting.Lock()
	defer c.adopting.Unlock()
	if own := c.id.clusterID(); own != "" {
		return fmt.Errorf("it %w, %s", ErrForeign, own)
	}
	if call.To != c.id.nodeID() {
		return errors.New("it is another node than before")
	}
	if c.id.founding() != "" {
		return errors.New("it is founding a cluster itself")
	}
	if !c.promised.give(call) {
		return errors.New("it is promised to another node")
	}
	return nil
}

// pause waits for d and returns false if ctx is done before.
func pause(ctx context.Context, d time.Duration) bool { return pauseUntil(ctx, nil, d) }

// pauseUntil waits for d or for something on wake, whichever comes first, and
// returns false if ctx is done before.
func pauseUntil(ctx context.Context, wake <-chan struct{}, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-wake:
		return true
	case <-ctx.Done():
		return false
	}
}
