package cluster

import (
	"context"
	"fmt"
	"strings"
	"time"
)

// quorumLoop watches whether there is a leader, and says so when that changes.
// A node that has had none for leaderlessAfter, stretched as Raft's timeouts are,
// trusts its own probes.
func (c *Cluster) quorumLoop(ctx context.Context) {
	within := leaderlessAfter * time.Duration(c.cfg.RaftMultiplier)
	leaderSeen, said, leader := time.Now(), time.Now(), ""
	for pause(ctx, 250*time.Millisecond) {
		now, _ := c.leader()
		if now != "" || c.id.clusterID() == "" { // a new cluster has time for its first election
			leaderSeen = time.Now()
		}
		if now != leader {
			leader = now
			c.leaderChanged(leader)
		}
		lost := leader == "" && time.Since(leaderSeen) > within
		if c.setAutonomous(lost) {
			said = time.Now()
		} else if lost && time.Since(said) > waitingEvery && c.views.stale.Load() {
			c.log.Info("waiting for a leader: " + c.quorumLost()) // at a restart somebody looks
			said = time.Now()
		}
	}
}

func (c *Cluster) leaderChanged(id string) {
	if id == "" {
		c.log.Warn("there is no leader")
	} else {
		m, _ := c.gossip.find(id)
		c.log.Info("there is a leader", "peer", m.Name, "id", id, "term", c.raft().CurrentTerm())
	}
	c.observationsDue()
	c.changes.send()
}

func (c *Cluster) setAutonomous(on bool) (changed bool) {
	c.mu.Lock()
	changed = c.autonomous != on
	c.autonomous = on
	c.mu.Unlock()
	if !changed {
		return false
	}
	if on {
		c.log.Warn("degraded: writes are refused and this node trusts its own probes", "reason", c.quorumLost())
	} else {
		c.log.Info("no longer degraded")
	}
	c.cfg.OnAutonomous(on)
	return true
}

// degraded is why this node cannot take writes, empty if it can or if a leader
// may yet be elected any moment.
func (c *Cluster) degraded() string {
	leader, _ := c.leader()
	c.mu.Lock()
	waiting, autonomous := c.waiting, c.autonomous
	c.mu.Unlock()
	switch {
	case waiting != "":
		return "waiting for " + waiting
	case c.id.clusterID() == "":
		return "this node is in no cluster yet"
	case autonomous && leader == "": // quorumLoop learns of a leader a little later
		return c.quorumLost()
	}
	return ""
}

func (c *Cluster) setWaiting(what string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.waiting = what
}

// quorumLost says how many voters are reachable, how many are needed and which
// are missing.
func (c *Cluster) quorumLost() string {
	servers := c.servers()
	if len(servers) == 0 {
		return "this node has not heard from its cluster yet"
	}
	total, missing := voters(servers), []string{}
	for _, s := range servers {
		m, known := c.gossip.find(string(s.ID))
		if s.Suffrage == 0 && (!known || m.State != Alive) {
			m.RaftAddr = nameOr(m.RaftAddr, string(s.Address))
			secret := c.secretOf(m, time.Now())
			missing = append(missing, nameOr(m.Name, string(s.ID))+" at "+m.RaftAddr+bracketed(secret))
		}
	}
	if len(missing) == 0 { // gossip takes some seconds to give a node up
		return fmt.Sprintf("none of the %d voters leads, although gossip still counts all of them", total)
	}
	network := ""
	if c.here().worth == nowhere {
		network = noNetwork + "; "
	}
	return fmt.Sprintf("%s%d of %d voters are alive, %d are needed; missing: %s",
		network, total-len(missing), total, total/2+1, strings.Join(missing, ", "))
}

func nameOr(name, otherwise string) string {
	if name == "" {
		return otherwise
	}
	return name
}
