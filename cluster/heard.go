package cluster

import (
	"errors"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// What is said by gossip may not be heard: a packet is lost, or memberlist loses what it should
// send. Nobody takes silence for told. The leader's answer to each report carries a digest of
// all that it knows of the members; who goes on knowing otherwise exchanges all of it with the
// leader, by TCP and both ways.

const (
	// newsTakes is how long news may need to go round by itself.
	newsTakes = 2 * time.Second
	// exchangeWith is with how many members at once a node exchanges what it must not fail
	// to say.
	exchangeWith = 2
)

// digestOf is a digest of what a node at an address says of itself.
func digestOf(addr netip.AddrPort, text []byte) uint64 {
	h := fnv.New64a()
	h.Write([]byte(addr.String()))
	h.Write(text)
	return h.Sum64()
}

// digest is the same for two nodes that know the same living members, and the same of each.
// It is 0 for nothing at all.
func (g *gossip) digest() uint64 {
	var sum uint64
	for _, m := range g.alive() {
		sum += scatter(hash(m.ID) ^ m.said) // added, so that the order does not matter
	}
	return sum
}

// tell changes what this node says of itself, and says it. Without an error it was sent, or
// a member has answered; whether all have heard it shows later.
func (g *gossip) tell(change func(*meta)) error {
	g.telling.Lock()
	defer g.telling.Unlock()
	g.mu.Lock()
	change(&g.self)
	g.mu.Unlock()
	if err := g.list.UpdateNode(time.Second); err != nil {
		return g.exchange()
	}
	return nil
}

// toldCluster is the cluster that this node has told the others it belongs to.
func (g *gossip) toldCluster() string {
	g.mu.RLock()
	defer g.mu.RUnlock()
	return g.self.ClusterID
}

// tell changes what this node says of itself, and has the leader asked at once whether it
// has heard that.
func (c *Cluster) tell(change func(*meta)) {
	if err := c.gossip.tell(change); err != nil {
		c.log.Debug("could not tell anybody what has changed here", "error", err)
	}
	c.observationsDue()
}

// exchange swaps all that is known of members with some that live, and succeeds if one of
// them has answered, or none lives.
func (g *gossip) exchange() error {
	g.mu.RLock()
	var living []netip.AddrPort
	for _, m := range g.members {
		if m.State == Alive {
			living = append(living, m.Addr)
		}
	}
	g.mu.RUnlock()
	rand.Shuffle(len(living), func(i, j int) { living[i], living[j] = living[j], living[i] })
	return g.joinAll(living[:min(len(living), exchangeWith)])
}

// joinAll exchanges members with the nodes at all addresses at once: one that does not answer
// takes seconds, which neither the others nor a node that stops should wait for in turn. It
// succeeds if one of them has answered, or there is none.
func (g *gossip) joinAll(addrs []netip.AddrPort) error {
	errs := make([]error, len(addrs))
	var answered atomic.Bool
	var trying sync.WaitGroup
	for i, addr := range addrs {
		trying.Go(func() {
			if errs[i] = g.join(addr); errs[i] == nil {
				answered.Store(true)
			} else {
				g.log.Debug("a peer does not answer", "addr", addr, "reason", reason(errs[i]))
			}
		})
	}
	trying.Wait()
	if answered.Load() {
		return nil
	}
	return errors.Join(errs...)
}

// differing is that this node and the leader know the members otherwise.
type differing struct {
	own, leaders uint64    // their digests; both 0 if they know the same
	since        time.Time // when these two were first seen
}

// align has this node and the leader exchange what they know of the members if they have
// differed in the same way for so long that no news on its way explains it. It is given
// how they differed before, and returns how they do now; it does not wait for the exchange.
func (c *Cluster) align(before differing, leaders uint64) differing {
	now := differing{c.gossip.digest(), leaders, time.Now()}
	switch {
	case leaders == 0, now.own == leaders: // a leader of an older version says nothing
		return differing{}
	case now.own != before.own, leaders != before.leaders:
		return now
	case now.since.Sub(before.since) < newsTakes:
		return before
	}
	id, _ := c.leader()
	if leader, known := c.gossip.find(id); known {
		c.log.Debug("the leader knows the members otherwise; exchanging them", "leader", leader.Name)
		c.running.Go(func() { c.gossip.joinAll([]netip.AddrPort{leader.Addr}) })
	}
	return now
}

// hearsLeaving makes sure that gossip knows that a node leaves: it would be taken for one that
// was removed by mistake, and added again at once.
func (c *Cluster) hearsLeaving(id string) error {
	m, _ := c.gossip.find(id)
	if m.State != Alive || m.Going == leaves {
		return nil
	}
	if err := c.gossip.join(m.Addr); err != nil {
		return fmt.Errorf("cannot hear by gossip that node %s leaves: %w", m.Name, err)
	}
	if m, _ = c.gossip.find(id); m.State == Alive && m.Going != leaves {
		return fmt.Errorf("node %s does not say by gossip that it leaves", m.Name)
	}
	return nil
}
