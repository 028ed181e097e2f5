package cluster

import (
	"cmp"
	"context"
	"maps"
	"os"
	"slices"
	"sync"

	"github.com/hashicorp/raft"
)

const twoVoters = "two voters tolerate no failure: when either is lost, no change can be made; add a third node"

// nodeReports keeps what each node last said of itself.
type nodeReports struct {
	mu   sync.Mutex
	last map[string]Report // by node id
}

func newNodeReports() *nodeReports { return &nodeReports{last: map[string]Report{}} }

// report is what this node says of itself.
func (c *Cluster) report() Report {
	view := c.View()
	r := Report{
		View:         ViewStatus{Index: view.Index, Digest: view.Digest(), Stale: c.views.stale.Load()},
		AppliedIndex: c.raft().AppliedIndex(),
		LastContact:  c.lastContact(),
		Local:        c.cfg.Local(),
		Problems:     slices.Concat(c.ailments(), c.disk.problems(), c.views.problems()),
		Secrets:      c.keys.fingerprints(),
	}
	if file, err := os.Stat(storePath(c.cfg.DataDir)); err == nil {
		r.StoreBytes = file.Size()
	} else {
		r.Problems = append(r.Problems, "cannot find the size of the log: "+err.Error())
	}
	return r
}

// Status asks every living node how it is and returns the whole cluster as this
// node sees it. It takes at most statusWithin and needs no quorum.
func (c *Cluster) Status(ctx context.Context) Status {
	servers := c.servers()
	leader, _ := c.leader()
	members := c.known(servers)
	answers := c.askAll(ctx, members)
	s := Status{
		ClusterID:   c.id.clusterID(),
		AsSeenBy:    c.cfg.Name,
		Term:        c.raft().CurrentTerm(),
		CommitIndex: c.raft().CommitIndex(),
		Degraded:    c.degraded(),
	}
	if len(servers) > 0 {
		s.Quorum = voters(servers)/2 + 1
	}
	for _, m := range members {
		server, isServer := findServer(servers, m.ID)
		n := NodeStatus{
			ID: m.ID, Name: m.Name, Addr: m.Addr.String(), RaftAddr: m.RaftAddr,
			AdminAddr: m.AdminAddr, HTTPAddr: m.HTTPAddr, Version: m.Version,
			State: m.State, Leader: m.ID == leader,
			Member: isServer,
			Voter:  isServer && server.Suffrage == raft.Voter,
		}
		c.fill(&n, answers, s.CommitIndex)
		if n.Leader {
			s.Leader = n.Name
		}
		s.Nodes = append(s.Nodes, n)
	}
	s.conclude()
	s.Warnings = s.warnings()
	return s
}

// fill adds what a node said of itself, now or last.
func (c *Cluster) fill(n *NodeStatus, answers map[string]Report, commit uint64) {
	report, answered := answers[n.ID]
	c.nodes.mu.Lock()
	defer c.nodes.mu.Unlock()
	switch {
	case answered:
		c.nodes.last[n.ID] = report
	case n.State == Alive: // gossip has not noticed anything yet
		n.State = Suspect
		fallthrough
	default:
		report = c.nodes.last[n.ID]
		report.Local.Ready = false
		report.Local.RequestsPerSecond = 0
	}
	n.Report = report
	if commit > report.AppliedIndex {
		n.Lag = commit - report.AppliedIndex
	}
}

// conclude draws from the nodes what is said of the whole. Views that nodes have kept
// from before they were started agree on nothing, though they be the same: what was
// acknowledged last may be in none of them.
func (s *Status) conclude() {
	digests, voting, all := map[string]bool{}, 0, true
	unsettled := func(n NodeStatus) bool { return n.State == Suspect || n.State == Alive && n.View.Stale }
	for _, n := range s.Nodes {
		if n.State == Alive {
			digests[n.View.Digest] = true
		}
		if n.State == Alive && n.Voter {
			voting++
		}
		all = all && (n.State == Alive || n.State == Left && !n.Voter)
	}
	s.Agreement = len(digests) == 1 && !slices.ContainsFunc(s.Nodes, unsettled)
	s.FailureTolerance = max(0, voting-s.Quorum)
	s.Healthy = s.Leader != "" && s.Agreement && all && s.Degraded == ""
	slices.SortFunc(s.Nodes, func(a, b NodeStatus) int { return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.ID, b.ID)) })
}

// warnings gathers what the nodes complain of, and what the whole lacks.
func (s *Status) warnings() []string {
	var warnings []string
	voting := 0
	for _, n := range s.Nodes {
		if n.Voter {
			voting++
		}
		for _, problem := range n.Problems {
			warnings = append(warnings, nameOr(n.Name, n.ID)+": "+problem)
		}
	}
	if voting == 2 {
		warnings = append(warnings, twoVoters)
	}
	return warnings
}

// known returns the nodes that gossip knows and the members of Raft that it has
// never met.
func (c *Cluster) known(servers []raft.Server) []member {
	byID := map[string]member{}
	for _, m := range c.gossip.all() {
		byID[m.ID] = m
	}
	for _, s := range servers {
		if _, ok := byID[string(s.ID)]; !ok {
			byID[string(s.ID)] = member{ID: string(s.ID), State: Failed, meta: meta{RaftAddr: string(s.Address)}}
		}
	}
	return slices.Collect(maps.Values(byID))
}

// askAll collects the reports of those that are alive and answer in time. Where
// views differ because some nodes were asked when they were behind, these are asked
// again, for the view that the others had: a cluster in which much is written agrees
// all the same.
func (c *Cluster) askAll(ctx context.Context, members []member) map[string]Report {
	ctx, cancel := context.WithTimeout(ctx, statusWithin)
	defer cancel()
	members = slices.DeleteFunc(slices.Clone(members), func(m member) bool { return m.State != Alive })
	answers := c.ask(ctx, members, reportCall{})
	newest, digests := uint64(0), map[string]bool{}
	for _, r := range answers {
		newest = max(newest, r.View.Index)
		digests[r.View.Digest] = true
	}
	if len(digests) < 2 {
		return answers
	}
	behind := slices.DeleteFunc(members, func(m member) bool {
		r, answered := answers[m.ID]
		return !answered || r.View.Index == newest
	})
	for id, r := range c.ask(ctx, behind, reportCall{At: newest}) {
		answers[id] = r
	}
	return answers
}

func (c *Cluster) ask(ctx context.Context, members []member, call reportCall) map[string]Report {
	var mu sync.Mutex
	var asking sync.WaitGroup
	answers := map[string]Report{}
	for _, m := range members {
		asking.Go(func() {
			report, err := c.askReport(ctx, m, call)
			if err != nil {
				return // shown as suspect, or as it said before
			}
			mu.Lock()
			defer mu.Unlock()
			answers[m.ID] = report
		})
	}
	asking.Wait()
	return answers
}

func (c *Cluster) askReport(ctx context.Context, m member, call reportCall) (report Report, err error) {
	if m.ID == c.id.nodeID() {
		return c.reportAt(ctx, call)
	}
	err = c.calls.call(ctx, named(m.ID, m.RaftAddr), reportPath, call, &report)
	return report, err
}

// reportAt answers a node that shows the cluster.
func (c *Cluster) reportAt(ctx context.Context, call reportCall) (Report, error) {
	if call.At == 0 {
		return c.report(), nil
	}
	if err := c.fsm.applied.wait(ctx, call.At); err != nil {
		return Report{}, err
	}
	r := c.report()
	if v := c.fsm.viewAt(call.At); v != nil {
		r.View.Index, r.View.Digest = v.Index, v.Digest()
	}
	return r, nil
}
