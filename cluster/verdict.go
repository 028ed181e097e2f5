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

// electorate is the living nodes, of which each backend's observers are chosen.
// Their ids are hashed once, because all backends are gone through at each view,
// report and change of the members.
type electorate []elector

type elector struct {
	id    string
	hash  uint64
	score uint64 // for the backend in question
}

func newElectorate(alive []string) electorate {
	e := make(electorate, len(alive))
	for i, id := range alive {
		e[i] = elector{id: id, hash: hash(id)}
	}
	return e
}

// observers chooses the nodes that probe a backend by rendezvous hashing
// (Thaler and Ravishankar, 1998): every node computes the same, and a node that
// comes or goes moves only its own share. The best comes first.
func (e electorate) observers(backendID string) []string {
	backend := hash(backendID)
	var best [maxObservers]elector
	n := 0
	for _, next := range e {
		next.score = scatter(backend + next.hash)
		n = min(n+1, maxObservers)
		place := n - 1
		if best[place].id != "" && !next.beats(best[place]) {
			continue
		}
		for ; place > 0 && next.beats(best[place-1]); place-- {
			best[place] = best[place-1]
		}
		best[place] = next
	}
	chosen := make([]string, n)
	for i := range chosen {
		chosen[i] = best[i].id
	}
	return chosen
}

func (e elector) beats(other elector) bool {
	return cmp.Or(cmp.Compare(e.score, other.score), cmp.Compare(other.id, e.id)) > 0
}

// hash of an id. FNV alone differs little where only the last bytes do.
func hash(id string) uint64 {
	h := fnv.New64a()
	h.Write([]byte(id))
	return scatter(h.Sum64())
}

// scatter is the finaliser of MurmurHash3.
func scatter(x uint64) uint64 {
	x ^= x >> 33
	x *= 0xff51afd7ed558ccd
	x ^= x >> 33
	x *= 0xc4ceb9fe1a85ec53
	return x ^ x>>33
}

// Observes returns a function that says whether this node is to probe a backend,
// as the living nodes are now.
func (c *Cluster) Observes() func(backendID string) bool {
	alive, self := newElectorate(c.aliveIDs()), c.id.nodeID()
	return func(backendID string) bool { return slices.Contains(alive.observers(backendID), self) }
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
	ejected   map[string]string // URLs by backend id
}

func newReports() *reports { return &reports{byNode: map[string]nodeReport{}} }

// clear forgets all. What was reported in one time in office is no ground for a
// verdict in the next: another leader may have heard better since.
func (r *reports) clear() {
	r.mu.Lock()
	defer r.mu.Unlock()
	clear(r.byNode)
}

// put replaces what a node has reported.
func (r *reports) put(call observeCall, now time.Time) {
	report := nodeReport{received: now, byBackend: make(map[string]Observation, len(call.Observations)), ejected: call.Ejected}
	for _, o := range call.Observations {
		report.byBackend[o.BackendID] = o
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.byNode[call.From] = report
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
// backend's observers agree on another health than the committed one, and where
// traffic has found out what probes do not (eject.go).
func judge(view *state.View, alive []string, fresh map[string]nodeReport) []state.Verdict {
	var verdicts []state.Verdict
	electorate := newElectorate(alive)
	for _, pool := range view.Pools {
		ejected := ejectedByMany(pool, alive, fresh)
		for i := range pool.Backends {
			b := &pool.Backends[i]
			health := majority(b, electorate.observers(b.ID), fresh)
			if ejected[b.ID] {
				health = state.Unhealthy
			}
			if health != "" && health != b.Health {
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
		if !pauseUntil(ctx, changed, time.Second) {
			return
		}
	}
}

// observed takes the report of a node.
func (c *Cluster) observed(call observeCall) error {
	if id, _ := c.leader(); id != c.id.nodeID() {
		return errNotLeader
	}
	c.observers.put(call, time.Now())
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
		if !pauseUntil(ctx, c.reporter, wait) {
			return
		}
	}
}

func (c *Cluster) sendObservations(ctx context.Context) error {
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
		return errNotLeader
	case c.id.nodeID():
		return c.observed(call)
	}
	ctx, cancel := context.WithTimeout(ctx, callWithin)
	defer cancel()
	return c.calls.call(ctx, named(id, addr), observePath, call, &none{})
}
