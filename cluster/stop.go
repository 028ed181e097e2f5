package cluster

import (
	"context"
	"errors"
	"os"
	"slices"
	"time"

	"github.com/hashicorp/raft"
)

// Stop ends this node's part for now: it stays a member and comes back with the
// same data directory.
func (c *Cluster) Stop() {
	c.stopped.Do(func() {
		if c.copied.Load() { // the others would take its goodbye for the original's
			c.shutdown("")
			return
		}
		c.handOver()
		c.shutdown(stops)
	})
}

// shutdown ends all, the stores last.
func (c *Cluster) shutdown(going string) {
	if err := c.gossip.stop(going); err != nil {
		c.log.Warn("cannot stop gossip", "error", err)
	}
	if c.cancel != nil {
		c.cancel()
	}
	c.running.Wait()
	c.close()
}

// close closes whatever is open.
func (c *Cluster) close() {
	c.disk.close()
	if c.replica.Load() != nil {
		if err := c.stopRaft(); err != nil {
			c.log.Warn("raft does not end", "error", err)
		}
	}
	if c.server != nil {
		c.server.stop()
	}
	if c.calls != nil {
		c.calls.stop()
	}
	if c.mux != nil {
		c.mux.close()
	}
	if c.gossip != nil {
		c.gossip.list.Shutdown()
	}
	if c.views != nil {
		c.views.stop()
	}
	if c.store != nil {
		c.closeStore()
	}
}

// closeStore closes the log, or leaves that to the end of the process when the disk
// hangs.
func (c *Cluster) closeStore() {
	closed := make(chan error, 1)
	go func() { closed <- c.store.Close() }()
	select {
	case err := <-closed:
		if err != nil && !errors.Is(err, os.ErrClosed) {
			c.log.Warn("cannot close the log", "error", err)
		}
	case <-time.After(stopWithin):
		c.log.Warn("the disk hangs: the log is not closed")
	}
}

// handOver gives leadership to a living voter, if this node has it and there is one
// that means to go on voting. Raft itself would also choose a dead one.
func (c *Cluster) handOver() {
	if c.raft().State() != raft.Leader {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), callWithin)
	defer cancel()
	for _, heir := range c.heirs() {
		err := c.transfer(ctx, heir)
		if err == nil {
			return
		}
		c.log.Warn("cannot hand leadership over; the others will elect after a timeout", "to", heir.ID, "error", err)
		if ctx.Err() != nil {
			return
		}
	}
}

// heirs are the voters that could lead, one that has answered lately first.
func (c *Cluster) heirs() []raft.Server {
	var heirs []raft.Server
	servers := c.servers()
	for _, m := range c.gossip.alive() {
		s, ok := findServer(servers, m.ID)
		if ok && s.Suffrage == raft.Voter && m.ID != c.id.nodeID() && m.Going == "" && !m.NonVoter {
			heirs = append(heirs, s)
		}
	}
	if i := slices.IndexFunc(heirs, func(s raft.Server) bool { return c.inTouch(s.ID) }); i > 0 {
		heirs[0], heirs[i] = heirs[i], heirs[0]
	}
	return heirs
}

// transfer hands leadership over. Until Raft has given its answer, which may be after
// ctx, nothing may keep it from sending.
func (c *Cluster) transfer(ctx context.Context, heir raft.Server) error {
	c.transfers.Add(1)
	future := c.raft().LeadershipTransferToServer(heir.ID, heir.Address)
	answered := make(chan error, 1)
	go func() {
		defer c.transfers.Add(-1)
		answered <- future.Error()
	}()
	select {
	case err := <-answered:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}
