package cluster

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/hashicorp/raft"
)

// raftConfig returns Raft's settings; slow stretches its timeouts.
func (c *Cluster) raftConfig(slow int) *raft.Config {
	config := raft.DefaultConfig()
	config.LocalID = raft.ServerID(c.id.nodeID())
	config.HeartbeatTimeout *= time.Duration(slow)
	config.ElectionTimeout *= time.Duration(slow)
	config.LeaderLeaseTimeout *= time.Duration(slow)
	// Followers learn of a commit this late when no other follows it. With Raft's
	// 50 ms a lone write through a follower takes up to 100; with 20 it takes 40,
	// for 1 % of a core and node.
	config.CommitTimeout = 20 * time.Millisecond * time.Duration(slow)
	// A node that was removed is told so, or comes back; it stops by itself in
	// neither case.
	config.ShutdownOnRemove = false
	config.NotifyCh = c.leading
	config.NoLegacyTelemetry = true
	config.Logger = c.library.hclog("raft")
	return config
}

// stores are what Raft keeps on disk.
type stores struct {
	logs      raft.LogStore
	stable    raft.StableStore
	snapshots *snapshots
}

// replica is one run of Raft over the stores. There is one at a time.
type replica struct {
	*raft.Raft
	transport *raftTransport
}

// raft is the Raft that runs now. It is not kept by anybody for long, because it
// may be restarted.
func (c *Cluster) raft() *raft.Raft { return c.replica.Load().Raft }

// openStores opens what Raft keeps in the data directory.
func (c *Cluster) openStores() error {
	snapshots, err := openSnapshots(c.cfg.DataDir, c.library)
	if err != nil {
		return err
	}
	var logs raft.LogStore = c.store
	if wrap := c.cfg.hooks.logs; wrap != nil {
		logs = wrap(logs)
	}
	snapshots.renew = func() {
		if running := c.replica.Load(); running != nil {
			running.Snapshot() // what comes of it, Raft logs
		}
	}
	c.stores = stores{logs: logs, stable: &guardedStable{StableStore: c.store, disk: c.disk}, snapshots: snapshots}
	if c.hadState, err = raft.HasExistingState(logs, c.store, snapshots); err != nil {
		return fmt.Errorf("cannot read the log in %s: %w", c.cfg.DataDir, err)
	}
	return c.checkLog()
}

// checkLog refuses a directory whose parts do not belong together. A node that lost
// its log, or a part of it, has lost votes and entries that others count on.
func (c *Cluster) checkLog() error {
	snapshot, err := c.stores.snapshots.newest()
	if err != nil {
		return fmt.Errorf("cannot read the snapshots in %s: %w", c.cfg.DataDir, err)
	}
	last, whole, err := c.store.extent()
	if err != nil {
		return err
	}
	served := c.View().Index
	lost, lostIndex := c.stores.snapshots.newestLost()
	switch {
	case max(last, snapshot) < lostIndex:
		return &damage{lost, fmt.Sprintf("without it, the log ends at index %d, not at %d", max(last, snapshot), lostIndex)}
	case last > snapshot && whole > snapshot+1 && lost != "":
		return &damage{lost, fmt.Sprintf("without it, entries up to %d are missing before the log", whole-1)}
	case last > snapshot && whole > snapshot+1:
		return &damage{c.store.path, fmt.Sprintf("entries %d to %d are missing", snapshot+1, whole-1)}
	case max(last, snapshot) < served:
		return &damage{c.store.path, fmt.Sprintf("it ends at index %d, but this node served the view of index %d: it is an older one, or was emptied", max(last, snapshot), served)}
	case c.hadState && c.id.clusterID() == "":
		return &damage{c.id.path, "it names no cluster, but there is a log of one"}
	}
	return c.stores.snapshots.setLostAside()
}

// startRaft starts Raft over the stores. A restarted one reads its log from the
// beginning, into a new machine.
func (c *Cluster) startRaft() error {
	c.fsm.reset()
	logs, err := raft.NewLogCache(512, &guardedLog{LogStore: c.stores.logs, disk: c.disk, within: storeWithin})
	if err != nil {
		return err
	}
	transport := c.newRaftTransport()
	running, err := c.newRaft(logs, transport)
	if err != nil {
		transport.Close()
		return fmt.Errorf("cannot start raft: %w", cmp.Or(c.fsm.failure(), err))
	}
	c.replica.Store(&replica{running, transport})
	return nil
}

// newRaft makes a Raft in a goroutine of its own, which ends where the log turns out to be
// damaged (guardedLog).
func (c *Cluster) newRaft(logs raft.LogStore, transport raft.Transport) (running *raft.Raft, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		running, err = raft.NewRaft(c.raftConfig(c.cfg.RaftMultiplier), c.fsm, logs, c.stores.stable, c.stores.snapshots, transport)
	}()
	<-done
	if d := c.store.broken.Load(); d != nil {
		return nil, d
	}
	return running, err
}

// stopRaft ends Raft in the order that hashicorp/raft#268 asks for: begin the
// shutdown, close the transport, wait. On a disk that hangs Raft never ends, which
// is the error.
func (c *Cluster) stopRaft() error {
	now := c.replica.Load()
	ending := now.Shutdown()
	now.transport.Close()
	ctx, cancel := context.WithTimeout(context.Background(), stopWithin)
	defer cancel()
	if err := await(ctx, ending); err != nil {
		return fmt.Errorf("cannot stop raft: %w%s", err, inBrackets(c.disk.problems()))
	}
	return nil
}

// admitRaft lets in the connections of this node's cluster only. An empty node
// that gave its promise becomes a member by the founder's first connection.
func (c *Cluster) admitRaft(clusterID string) error {
	own := c.id.clusterID()
	if own == "" && c.promised.holds(clusterID) {
		return c.adopt(clusterID)
	}
	if own != clusterID {
		c.library.say(slog.LevelWarn, "refused a node of another cluster", "theirs", clusterID, "ours", own)
		return ErrForeign
	}
	return nil
}

// servers returns Raft's members.
func (c *Cluster) servers() []raft.Server {
	if c.replica.Load() == nil { // a connection may come before Raft is there
		return nil
	}
	future := c.raft().GetConfiguration()
	if future.Error() != nil {
		return nil
	}
	return future.Configuration().Servers
}

// voters returns how many of Raft's members vote.
func voters(servers []raft.Server) int {
	n := 0
	for _, s := range servers {
		if s.Suffrage == raft.Voter {
			n++
		}
	}
	return n
}

func findServer(servers []raft.Server, id string) (raft.Server, bool) {
	i := slices.IndexFunc(servers, func(s raft.Server) bool { return s.ID == raft.ServerID(id) })
	if i < 0 {
		return raft.Server{}, false
	}
	return servers[i], true
}

// leader returns the id and the Raft address of the leader, as it gave them with
// its last message; empty while none is known.
func (c *Cluster) leader() (id, addr string) {
	serverAddr, serverID := c.raft().LeaderWithID()
	return string(serverID), string(serverAddr)
}

// await waits for a future of Raft, which has no deadline of its own
// (hashicorp/raft#498).
func await(ctx context.Context, future raft.Future) error {
	done := make(chan error, 1)
	go func() { done <- future.Error() }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}
