package main

import (
	"context"
	"fmt"
	"time"

	"lbnode/cluster"
	"lbnode/cluster/admin"
	"lbnode/state"
)

// lookTimeout bounds one node's answer. A node asks the others before it answers,
// which takes a while when one has just died.
const lookTimeout = 3 * time.Second

// demoWatcher looks at the cluster and tells what has changed.
type demoWatcher struct {
	clients []*admin.Client // one for each node
	say     func(format string, args ...any)

	// current is the node that is looked at, for as long as it answers: two nodes
	// do not learn of a change at the same moment.
	current int
	blind   bool // no node answered
	last    *admin.ClusterView
}

// run watches until ctx is done.
func (w *demoWatcher) run(ctx context.Context) {
	ticker := time.NewTicker(demoPoll)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			w.observe(ctx)
		}
	}
}

func (w *demoWatcher) observe(ctx context.Context) {
	v := w.look(ctx)
	if ctx.Err() != nil {
		return
	}
	if v == nil {
		if !w.blind {
			w.say("no node answers")
		}
		w.blind = true
		return
	}
	if w.blind {
		w.say("node %s answers", v.AsSeenBy)
	}
	w.blind = false
	if w.last != nil {
		for _, event := range changes(w.last, v) {
			w.say("%s", event)
		}
	}
	w.last = v
}

// look asks the current node, then the others; nil if none answers.
func (w *demoWatcher) look(ctx context.Context) *admin.ClusterView {
	for i := range w.clients {
		at := (w.current + i) % len(w.clients)
		if v := lookAt(ctx, w.clients[at]); v != nil {
			w.current = at
			return v
		}
	}
	return nil
}

func lookAt(ctx context.Context, client *admin.Client) *admin.ClusterView {
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	v, err := client.Cluster(ctx)
	if err != nil {
		return nil
	}
	return v
}

// changes says what happened between two looks, a line for each event.
func changes(before, now *admin.ClusterView) []string {
	events := nodeChanges(before, now)
	if before.Leader != now.Leader {
		if now.Leader == "" {
			events = append(events, "no leader")
		} else {
			events = append(events, fmt.Sprintf("%s is the leader (term %d)", now.Leader, now.Term))
		}
	}
	if had, has := hasQuorum(before), hasQuorum(now); had && !has {
		events = append(events, fmt.Sprintf("quorum lost: %d voters alive, %d needed; traffic flows on, changes are refused", aliveVoters(now), now.Quorum))
	} else if has && !had {
		events = append(events, "quorum regained")
	}
	return append(events, backendChanges(before, now)...)
}

func nodeChanges(before, now *admin.ClusterView) []string {
	var events []string
	old := make(map[string]admin.Node)
	for _, n := range before.Nodes {
		old[n.ID] = n
	}
	for _, n := range now.Nodes {
		was, known := old[n.ID]
		delete(old, n.ID)
		switch {
		case !known:
			events = append(events, fmt.Sprintf("node %s has joined (%s)", n.Name, n.Status))
		case isUp(was) && !isUp(n):
			events = append(events, fmt.Sprintf("node %s is lost (%s)", n.Name, n.Status))
		case !isUp(was) && isUp(n):
			events = append(events, fmt.Sprintf("node %s is back", n.Name))
		}
	}
	for _, n := range before.Nodes {
		if _, gone := old[n.ID]; gone {
			events = append(events, fmt.Sprintf("node %s is no longer a member", n.Name))
		}
	}
	return events
}

// isUp counts a suspect as up: most are back a moment later.
func isUp(n admin.Node) bool { return n.Status == cluster.Alive || n.Status == cluster.Suspect }

func aliveNodes(v *admin.ClusterView) int {
	count := 0
	for _, n := range v.Nodes {
		if n.Status == cluster.Alive {
			count++
		}
	}
	return count
}

func aliveVoters(v *admin.ClusterView) int {
	count := 0
	for _, n := range v.Nodes {
		if n.Voter && isUp(n) {
			count++
		}
	}
	return count
}

func hasQuorum(v *admin.ClusterView) bool { return aliveVoters(v) >= v.Quorum }

func healthyBackends(v *admin.ClusterView) int {
	count := 0
	for _, p := range v.Pools {
		count += p.HealthyBackends
	}
	return count
}

// pooled is a backend and the name of its pool.
type pooled struct {
	admin.ClusterBackend
	pool string
}

func backendsOf(v *admin.ClusterView) []pooled {
	var list []pooled
	for _, p := range v.Pools {
		for _, b := range p.Backends {
			list = append(list, pooled{b, p.Name})
		}
	}
	return list
}

func backendChanges(before, now *admin.ClusterView) []string {
	var events []string
	old := make(map[string]pooled)
	for _, b := range backendsOf(before) {
		old[b.ID] = b
	}
	for _, b := range backendsOf(now) {
		was, known := old[b.ID]
		delete(old, b.ID)
		if !known {
			events = append(events, fmt.Sprintf("backend %s added to pool %s (%s)", b.Name, b.pool, b.URL))
			was.Health, was.Admin = state.Starting, state.Ready
		}
		if was.Admin != b.Admin {
			events = append(events, fmt.Sprintf("backend %s is set to %s", b.Name, b.Admin))
		}
		if was.Health != b.Health {
			events = append(events, fmt.Sprintf("backend %s is %s%s", b.Name, b.Health, whyUnhealthy(b)))
		}
	}
	for _, b := range backendsOf(before) {
		if _, gone := old[b.ID]; gone {
			events = append(events, fmt.Sprintf("backend %s removed from pool %s", b.Name, b.pool))
		}
	}
	return events
}

// whyUnhealthy gives what one of those who find b unhealthy saw.
func whyUnhealthy(b pooled) string {
	if b.Health != state.Unhealthy {
		return ""
	}
	for _, o := range b.Observers {
		if !o.Healthy {
			return ": " + o.Reason
		}
	}
	return ""
}
