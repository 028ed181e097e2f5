package cluster

import (
	"context"
	"slices"
	"sync"
	"time"
)

// A report of very many backends takes a while to make and to read, and when all of
// them change there is a reason for one at each moment. So reports take a part in
// reportShare + 1 of the time, if they are not put off by more than reportRest.
const (
	reportShare = 3
	reportRest  = 500 * time.Millisecond
)

// readWithin is how long a leader that was stopped needs to read what came meanwhile.
const readWithin = time.Second

// reports are the observations that nodes have sent to the leader, in its
// memory.
type reports struct {
	mu     sync.Mutex
	byNode map[string]nodeReport
	looked time.Time // when fresh was last called
	since  time.Time // what came before counts for nothing
}

// nodeReport is all that one node observes.
type nodeReport struct {
	name      string
	received  time.Time
	byBackend map[string]Observation
	ejected   map[string]string // URLs by backend id
}

func newReports() *reports { return &reports{byNode: map[string]nodeReport{}} }

// clear forgets all. What was reported in one time in office is no ground for a
// verdict in the next: another leader may have heard better since.
func (r *reports) clear() {
	r.mu.Lock()
	defer r.mu.Unlock()
	clear(r.byNode)
	r.looked, r.since = time.Time{}, time.Time{}
}

// put replaces what the node of that name has reported.
func (r *reports) put(call observeCall, name string, now time.Time) {
	report := nodeReport{name: name, received: now, byBackend: make(map[string]Observation, len(call.Observations)), ejected: call.Ejected}
	for _, o := range call.Observations {
		report.byBackend[o.BackendID] = o
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.byNode[call.From] = report
}

// fresh returns a copy of what was received of late from the living, and drops the rest: who
// was gone must report anew, because it may have been stopped, and so must all if it was
// this node. Then what lay unread is taken for received now, and is dropped, too.
func (r *reports) fresh(alive []string, now time.Time) map[string]nodeReport {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.looked.IsZero() && now.Sub(r.looked) > resendEvery {
		r.since = now.Add(readWithin)
	}
	r.looked = now
	fresh := map[string]nodeReport{}
	for node, report := range r.byNode {
		if now.Sub(report.received) > reportFresh || report.received.Before(r.since) || !slices.Contains(alive, node) {
			delete(r.byNode, node)
			continue
		}
		fresh[node] = report
	}
	return fresh
}

// observed takes the report of a node.
func (c *Cluster) observed(call observeCall) (observeReply, error) {
	if id, _ := c.leader(); id != c.id.nodeID() {
		return observeReply{}, errNotLeader
	}
	m, _ := c.gossip.find(call.From)
	c.observers.put(call, nameOr(m.Name, call.From), time.Now())
	c.changes.send()
	return observeReply{Members: c.gossip.digest()}, nil
}

// Observed tells that this node's probes have come to another opinion of a
// backend; the leader gets to know at once. It does not block.
func (c *Cluster) Observed() { c.observationsDue() }

func (c *Cluster) observationsDue() {
	select {
	case c.reporter <- struct{}{}:
	default: // a report is due already
	}
}

// reportLoop sends this node's observations to the leader, when they change and
// once in a while, and sees from the answer whether the two know the same members.
func (c *Cluster) reportLoop(ctx context.Context) {
	var differ differing
	for {
		began, wait := time.Now(), resendEvery
		if c.id.clusterID() != "" {
			reply, err := c.sendObservations(ctx)
			if err != nil {
				c.log.Debug("cannot report to the leader", "error", err)
				wait = 2 * retryAfter
			} else if differ = c.align(differ, reply.Members); differ != (differing{}) {
				wait = newsTakes
			}
		}
		rest := min(reportShare*time.Since(began), reportRest)
		if !pause(ctx, rest) || !pauseUntil(ctx, c.reporter, wait) {
			return
		}
	}
}

func (c *Cluster) sendObservations(ctx context.Context) (reply observeReply, err error) {
	call := observeCall{From: c.id.nodeID(), Observations: []Observation{}, Ejected: map[string]string{}}
	for id, b := range c.cfg.Local().Backends {
		if b.Ejected != "" {
			call.Ejected[id] = b.Ejected
		}
		if b.Observation != nil {
			call.Observations = append(call.Observations, *b.Observation)
		}
	}
	id, addr := c.leader()
	switch id {
	case "":
		return reply, errNotLeader
	case c.id.nodeID():
		return c.observed(call)
	}
	ctx, cancel := context.WithTimeout(ctx, callWithin)
	defer cancel()
	err = c.calls.call(ctx, named(id, addr), observePath, call, &reply)
	return reply, err
}
