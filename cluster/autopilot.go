package cluster

import (
	"cmp"
	"context"
	"math"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/hashicorp/raft"
	autopilot "github.com/hashicorp/raft-autopilot"
)

// stableFor is how long a new node must keep up with the log before it votes.
const stableFor = 3 * time.Second

// pilotView is what autopilot sees of the cluster. It only promotes; members are
// added and removed by reconcile.
type pilotView Cluster

// AutopilotConfig implements autopilot.ApplicationIntegration.
func (p *pilotView) AutopilotConfig() *autopilot.Config {
	return &autopilot.Config{
		LastContactThreshold:    time.Duration(p.cfg.RaftMultiplier) * time.Second,
		MaxTrailingLogs:         250,
		MinQuorum:               minVoters,
		ServerStabilizationTime: stableFor,
	}
}

// NotifyState implements autopilot.ApplicationIntegration.
func (p *pilotView) NotifyState(*autopilot.State) {}

// RemoveFailedServer implements autopilot.ApplicationIntegration.
func (p *pilotView) RemoveFailedServer(*autopilot.Server) {}

// KnownServers implements autopilot.ApplicationIntegration.
func (p *pilotView) KnownServers() map[raft.ServerID]*autopilot.Server {
	c := (*Cluster)(p)
	leader, _ := c.leader()
	known := map[raft.ServerID]*autopilot.Server{}
	for _, m := range c.gossip.all() {
		server := &autopilot.Server{
			ID:          raft.ServerID(m.ID),
			Name:        m.Name,
			Address:     raft.ServerAddress(m.RaftAddr),
			NodeStatus:  autopilot.NodeFailed,
			Version:     m.Version,
			RaftVersion: raft.ProtocolVersionMax,
			IsLeader:    m.ID == leader,
			NodeType:    autopilot.NodeVoter,
		}
		if m.State == Alive {
			server.NodeStatus = autopilot.NodeAlive
		}
		if m.NonVoter {
			server.NodeType = neverVotes
		}
		known[server.ID] = server
	}
	return known
}

// neverVotes is the type of a node that was started with -non-voter.
const neverVotes autopilot.NodeType = "non-voter"

// FetchServerStats implements autopilot.ApplicationIntegration.
func (p *pilotView) FetchServerStats(ctx context.Context, servers map[raft.ServerID]*autopilot.Server) map[raft.ServerID]*autopilot.ServerStats {
	c := (*Cluster)(p)
	ctx, cancel := context.WithTimeout(ctx, callWithin)
	defer cancel()
	var mu sync.Mutex
	var asking sync.WaitGroup
	stats := map[raft.ServerID]*autopilot.ServerStats{}
	for id, server := range servers {
		asking.Go(func() {
			reply, err := c.askRaft(ctx, string(id), string(server.Address))
			if err != nil {
				return // autopilot takes silence for ill health
			}
			mu.Lock()
			defer mu.Unlock()
			stats[id] = &autopilot.ServerStats{LastContact: reply.LastContact, LastTerm: reply.LastTerm, LastIndex: reply.LastIndex}
		})
	}
	asking.Wait()
	return stats
}

func (c *Cluster) askRaft(ctx context.Context, id, addr string) (reply raftReply, err error) {
	if id == c.id.nodeID() {
		return c.raftState(), nil
	}
	err = c.calls.call(ctx, named(id, addr), raftPath, none{}, &reply)
	return reply, err
}

// raftState answers autopilot.
func (c *Cluster) raftState() raftReply {
	// The term of the last entry is only to be had from the statistics.
	term, err := strconv.ParseUint(c.raft().Stats()["last_log_term"], 10, 64)
	if err != nil {
		c.log.Warn("raft's statistics name no term", "error", err)
	}
	return raftReply{LastIndex: c.raft().LastIndex(), LastTerm: term, LastContact: c.lastContact()}
}

// lastContact is how long ago this node heard from the leader, 0 on the leader,
// negative if never.
func (c *Cluster) lastContact() time.Duration {
	if c.raft().State() == raft.Leader {
		return 0
	}
	last := c.raft().LastContact()
	if last.IsZero() {
		return -1
	}
	return min(time.Since(last), math.MaxInt64)
}

// voterLimit promotes stable nodes while fewer than maxVoters vote.
type voterLimit struct{ *autopilot.StablePromoter }

// GetNodeTypes implements autopilot.Promoter: it leaves the types that
// KnownServers gave.
func (voterLimit) GetNodeTypes(*autopilot.Config, *autopilot.State) map[raft.ServerID]autopilot.NodeType {
	return nil
}

// CalculatePromotionsAndDemotions implements autopilot.Promoter. Failed voters
// do not count: a healthy node takes the place of a dead one, and of one that no
// longer means to vote. One change at a time keeps every step a majority of the one
// before.
func (v voterLimit) CalculatePromotionsAndDemotions(config *autopilot.Config, s *autopilot.State) autopilot.RaftChanges {
	votes := 0
	for _, server := range s.Servers {
		if server.HasVotingRights() {
			votes++
		}
	}
	stable := v.StablePromoter.CalculatePromotionsAndDemotions(config, s).Promotions
	stable = slices.DeleteFunc(stable, func(id raft.ServerID) bool { return s.Servers[id].Server.NodeType == neverVotes })
	slices.SortFunc(stable, func(a, b raft.ServerID) int { return cmp.Compare(a, b) })
	if votes < maxVoters && len(stable) > 0 {
		return autopilot.RaftChanges{Promotions: stable[:1]}
	}
	if unwilling := unwilling(s); len(unwilling) > 0 {
		return autopilot.RaftChanges{Demotions: unwilling}
	}
	return autopilot.RaftChanges{Demotions: replaceable(s, len(stable) > 0)}
}

// unwilling returns a voter to demote that was started again with -non-voter. The
// leader hands over first. The living must be a majority of those who then vote.
func unwilling(s *autopilot.State) []raft.ServerID {
	for _, id := range slices.Sorted(slices.Values(s.Voters)) {
		if server := s.Servers[id]; server.Server.NodeType != neverVotes || server.State == autopilot.RaftLeader {
			continue
		}
		living := 0 // of the others
		for _, other := range s.Voters {
			if other != id && s.Servers[other].Server.NodeStatus == autopilot.NodeAlive {
				living++
			}
		}
		if living > (len(s.Voters)-1)/2 {
			return []raft.ServerID{id}
		}
	}
	return nil
}

// replaceable returns a failed voter to demote when a stable node waits for its
// place.
func replaceable(s *autopilot.State, wanted bool) []raft.ServerID {
	if !wanted {
		return nil
	}
	for _, id := range slices.Sorted(slices.Values(s.Voters)) {
		if server := s.Servers[id]; server.Server.NodeStatus != autopilot.NodeAlive && server.State != autopilot.RaftLeader {
			return []raft.ServerID{id}
		}
	}
	return nil
}
