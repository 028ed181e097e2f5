package cluster

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"
)

// A node looks at itself, too, and says what is wrong: in its log when that begins
// and when it ends, and in its report for as long as it lasts.

const (
	// outsideAfter is how long a node must be no member of Raft before it says so:
	// one that catches up with the log passes through memberships of the past.
	outsideAfter = 5 * time.Second
	// installedAgain is how close two whole snapshots from the leader must be to be
	// worth a warning.
	installedAgain = 10 * time.Minute
)

// selfWatch is what watchLoop remembers from one look to the next.
type selfWatch struct {
	member    time.Time // when this node was last seen to be a member of Raft
	installed time.Time // when the last snapshot came
	count     int       // of snapshots
}

// watchLoop looks at this node every second, and when members change. It ends when
// the node must.
func (c *Cluster) watchLoop(ctx context.Context) {
	w := selfWatch{member: time.Now(), count: c.fsm.restored()}
	for {
		changed := c.changes.wait()
		if err := c.findTwin(ctx); err != nil {
			if ctx.Err() == nil {
				c.fail(err)
			}
			return
		}
		now := time.Now()
		problems := slices.Concat(c.blockedLinks(now), c.unlikePeers(now), c.gossip.otherClusters(now))
		if outside := c.outside(&w, now); outside != "" {
			problems = append(problems, outside)
		}
		c.setProblems(problems)
		c.watchSnapshots(&w, now)
		if !pauseUntil(ctx, changed, lookEvery) {
			return
		}
	}
}

// setProblems keeps the problems for the report and logs those that are new and
// those that are over.
func (c *Cluster) setProblems(problems []string) {
	now := map[string]bool{}
	for _, p := range problems {
		now[p] = true
	}
	c.mu.Lock()
	before := c.problems
	c.problems = now
	c.mu.Unlock()
	for p := range now {
		if !before[p] {
			c.log.Warn(p)
		}
	}
	for p := range before {
		if !now[p] {
			c.log.Info("no longer: " + p)
		}
	}
}

// ailments are the problems that this node reports.
func (c *Cluster) ailments() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Sorted(maps.Keys(c.problems))
}

// outside says so if this node was taken out of Raft although it lives. The leader
// takes back whom it can reach.
func (c *Cluster) outside(w *selfWatch, now time.Time) string {
	servers := c.servers()
	_, isMember := findServer(servers, c.id.nodeID())
	if isMember || len(servers) == 0 || len(c.gossip.others()) == 0 {
		w.member = now
	}
	if now.Sub(w.member) < outsideAfter {
		return ""
	}
	return fmt.Sprintf("this node was removed from raft; the leader takes it back once it reaches it at %s: if that does not happen, check the way there, or start it with an empty -data-dir", c.raftAddr())
}

// watchSnapshots warns of a log that grows faster than this node can follow: then
// one whole snapshot after the other is sent to it (hashicorp/raft#697).
func (c *Cluster) watchSnapshots(w *selfWatch, now time.Time) {
	count := c.fsm.restored()
	if count == w.count {
		return
	}
	if count > w.count+1 || !w.installed.IsZero() && now.Sub(w.installed) < installedAgain {
		c.log.Warn("this node falls behind so far that it was sent the whole state again: its disk or its network is too slow for the rate of changes", "times", count)
	}
	w.count, w.installed = count, now
}
