package cluster

import (
	"cmp"
	"context"
	"hash/fnv"
	"slices"
	"sync"
	"time"

	"lbnode/state"
)

// maxObservers is how many nodes probe one backend.
const maxObservers = 3

// observers chooses the nodes that probe a backend by rendezvous hashing
// (Thaler and Ravishankar, 1998) over the living ones: every node computes the
// same, and a node that comes or goes moves only its own share.
func observers(backendID string, alive []string) []string {
	type scored struct {
		id    string
		score uint64
	}
	all := make([]scored, len(alive))
	for i, id := range alive {
		all[i] = scored{id, mix(backendID, id)}
	}
	slices.SortFunc(all, func(a, b scored) int { return cmp.Or(cmp.Compare(b.score, a.score), cmp.Compare(a.id, b.id)) })
	chosen := make([]string, 0, maxObservers)
	for _, s := range all[:min(len(all), maxObservers)] {
		chosen = append(chosen, s.id)
	}
	return chosen
}

// mix hashes a pair. FNV alone differs little where only the last bytes do, so
// the result goes through the finaliser of MurmurHash3.
func mix(backendID, nodeID string) uint64 {
	h := fnv.New64a()
	h.Write([]byte(backendID))
	h.Write([]byte{0})
	h.Write([]byte(nodeID))
	x := h.Sum64()
	x ^= x >> 33
	x *= 0xff51afd7ed558ccd
	x ^= x >> 33
	x *= 0xc4ceb9fe1a85ec53
	return x ^ x>>33
}

// Observes returns a function that says whether this node is to probe a backend,
// as the living nodes are now.
func (c *Cluster) Observes() func(backendID string) bool {
	alive, self := c.aliveIDs(), c.id.nodeID()
	return func(backendID string) bool { return slices.Contains(observers(backendID, alive), self) }
}

func (c *Cluster) aliveIDs() []string {
	alive := c.gossip.alive()
	ids := make([]string, len(alive))
	for i, m := range alive {
		ids[i] = m.ID
	}
	return ids
}

// reports are the observations that nodes have sent to the leader, in its
// memory.
type reports struct {
	mu     sync.Mutex
	byNode map[string]nodeReport
}

// nodeReport is all that one node observes.
type nodeReport struct {
	received  time.Time
	byBackend map[string]Observation
}

func newReports() *reports { return &reports{byNode: map[string]nodeReport{}} }

// put replaces what a node has reported.
func (r *reports) put(node string, observations []Observation, now time.Time) {
	report := nodeReport{received: now, byBackend: make(map[string]Observation, len(observations))}
	for _, o := range observations {
		report.byBackend[o.BackendID] = o
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.byNode[node] = report
}

// fresh returns a copy of what was received of late, and drops the rest.
func (r *reports) fresh(now time.Time) map[string]nodeReport {
	r.mu.Lock()
	defer r.mu.Unlock()
	fresh := map[string]nodeReport{}
	for node, report := range r.byNode {
		if now.Sub(report.received) > reportFresh {
			delete(r.byNode, node)
			continue
		}
		fresh[node] = report
	}
	return fresh
}

// judge returns the verdicts that the reports call for: where a majority of a
// backend's observers agree on another health than the committed one.
func judge(view *state.View, alive []string, fresh map[string]nodeReport) []state.Verdict {
	var verdicts []state.Verdict
	for _, pool := range view.Pools {
		for i := range pool.Backends {
			b := &pool.Backends[i]
			if health := majority(b, observers(b.ID, alive), fresh); health != "" && health != b.Health {
				verdicts = append(verdicts, state.Verdict{BackendID: b.ID, URL: b.URL(), Health: health})
			}
		}
	}
	return verdicts
}

// majority returns what most of a backend's observers say, empty if they do not
// agree or too few have spoken.
func majority(b *state.Backend, observers []string, fresh map[string]nodeReport) state.Health {
	up, down := 0, 0
	for _, node := range observers {
		o, ok := fresh[node].byBackend[b.ID]
		switch {
		case !ok || o.URL != b.URL():
		case o.Healthy:
			up++
		default:
			down++
		}
	}
	need := len(observers)/2 + 1
	switch {
	case up >= need:
		return state.Healthy
	case down >= need:
		return state.Unhealthy
	}
	return ""
}

// judgeLoop commits verdicts, those of one moment together.
func (c *Cluster) judgeLoop(ctx context.Context) {
	for {
		changed := c.changes.wait()
		view := c.fsm.view()
		if verdicts := judge(view, c.aliveIDs(), c.observers.fresh(time.Now())); len(verdicts) > 0 {
			err := c.applyOp(ctx, &state.SetHealth{Verdicts: verdicts})
			if err != nil && ctx.Err() == nil {
				c.log.Warn("cannot commit verdicts", "error", err)
				pause(ctx, time.Second)
			}
		}
		timer := time.NewTimer(time.Second)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-changed:
			timer.Stop()
		case <-timer.C:
		}
	}
}

// observed takes the report of a node.
func (c *Cluster) observed(call observeCall) error {
	if id, _ := c.leader(); id != c.id.nodeID() {
		return errNotLeader
	}
	c.observers.put(call.From, call.Observations, time.Now())
	c.changes.send()
	return nil
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
// once in a while.
func (c *Cluster) reportLoop(ctx context.Context) {
	for {
		wait := resendEvery
		if c.id.clusterID() != "" {
			if err := c.sendObservations(ctx); err != nil {
				c.log.Debug("cannot report to the leader", "error", err)
				wait = 2 * retryAfter
			}
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-c.reporter:
			timer.Stop()
		case <-timer.C:
		}
	}
}

func (c *Cluster) sendObservations(ctx context.Context) error {
	call := observeCall{From: c.id.nodeID(), Observations: []Observation{}}
	for _, b := range c.cfg.Local().Backends {
		if b.Observation != nil {
			call.Observations = append(call.Observations, *b.Observation)
		}
	}
	id, addr := c.leader()
	switch id {
	case "":
		return errNotLeader
	case c.id.nodeID():
		return c.observed(call)
	}
	ctx, cancel := context.WithTimeout(ctx, callWithin)
	defer cancel()
	return c.calls.call(ctx, addr, observePath, call, &none{})
}
