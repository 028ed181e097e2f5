package cluster

import (
	"context"
	"fmt"
	"log/slog"
	"time"
)

// Two processes must not live under one id, because they would vote twice, nor
// under one name, because people could not tell them apart. Gossip says where a
// twin may be; whether it lives is asked there. Of two, the one that started later
// ends. One that does not answer is given the benefit of the doubt: a machine that
// moved, or whose disk was wiped, has such a twin until the others give it up.

// tieWithin is how close two starts must be for neither to count as the later one.
const tieWithin = time.Second

// checkCopy refuses to start a copy of another node's data directory while that
// node runs. It comes before Raft is started, so that a copy never votes. Peers that
// do not answer within copyWithin are not waited for.
func (c *Cluster) checkCopy(ctx context.Context) error {
	if c.id.clusterID() == "" {
		return nil // it has no vote; formation meets its peers first
	}
	ctx, cancel := context.WithTimeout(ctx, copyWithin)
	defer cancel()
	addrs := c.unmet(literals(c.targets)) // names are looked up later: nothing waits for DNS here
	for _, p := range c.kept {            // among them is where this node itself was before
		if p.Addr != c.gossip.address() {
			addrs = append(addrs, p.Addr)
		}
	}
	tried := make(chan struct{})
	c.running.Go(func() {
		c.rejoin(addrs)
		close(tried)
	})
	select {
	case <-tried:
	case <-ctx.Done():
	}
	for _, twin := range c.gossip.takeTwins() {
		if _, lives := c.meet(context.WithoutCancel(ctx), twin); lives {
			return c.isCopy(twin)
		}
	}
	return nil
}

func (c *Cluster) isCopy(twin member) error {
	return fmt.Errorf("%s is a copy: node %s runs already at %s; start with an empty -data-dir", c.cfg.DataDir, twin.ID, twin.Addr)
}

// findTwin returns why this node must end, if it must: another one lives under its
// id or its name and started before it.
func (c *Cluster) findTwin(ctx context.Context) error {
	for _, twin := range c.gossip.takeTwins() {
		hello, lives := c.meet(ctx, twin)
		switch {
		case !lives:
		case c.startedAfter(hello):
			c.copied.Store(true)
			return c.isCopy(twin)
		default:
			c.library.say(slog.LevelWarn, fmt.Sprintf("a copy of this node's data directory runs at %s and must end", twin.Addr))
		}
	}
	for _, m := range c.gossip.all() {
		if m.State != Alive || m.ID == c.id.nodeID() || m.Name != c.cfg.Name {
			continue
		}
		if hello, lives := c.meet(ctx, m); lives && hello.Name == c.cfg.Name && c.startedAfter(hello) {
			return fmt.Errorf("the name %s belongs to node %s at %s: start this node with another -node", c.cfg.Name, m.ID, m.Addr)
		}
	}
	return nil
}

// meet asks a member directly who it is. It lives if it answers under its id and is
// not this very process.
func (c *Cluster) meet(ctx context.Context, m member) (hello helloReply, lives bool) {
	ctx, cancel := context.WithTimeout(ctx, callWithin)
	defer cancel()
	err := c.calls.call(ctx, m.RaftAddr, helloPath, none{}, &hello)
	return hello, err == nil && hello.ID == m.ID && hello.Instance != c.instance
}

// startedAfter says whether this process started after the one that has just said
// hello. Both come to opposite conclusions.
func (c *Cluster) startedAfter(other helloReply) bool {
	lead := time.Since(c.began) - other.Uptime
	if lead.Abs() < tieWithin {
		return c.instance > other.Instance
	}
	return lead < 0
}

// takeTwins returns where this node's own id was said to live since it was last
// asked.
func (g *gossip) takeTwins() []member {
	g.mu.Lock()
	defer g.mu.Unlock()
	twins := g.twins
	g.twins = nil
	return twins
}
