package main

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"lbnode/cluster"
	"lbnode/cluster/admin"
)

// watch looks at what every node shows, all the time.
type watch struct {
	cancel   context.CancelFunc
	watching sync.WaitGroup

	mu      sync.Mutex
	leaders map[uint64]map[string]bool // by term, the nodes that called themselves leader in it
	gone    map[string]bool            // "a of b": b showed a as failed or left
	wrong   []string                   // backends, which are all well, shown otherwise
}

func startWatch(t *testing.T, nodes []*lb) *watch {
	ctx, cancel := context.WithCancel(context.Background())
	w := &watch{cancel: cancel, leaders: map[uint64]map[string]bool{}, gone: map[string]bool{}}
	for _, n := range nodes {
		w.watching.Go(func() { w.look(ctx, n) })
	}
	t.Cleanup(w.stop)
	return w
}

func (w *watch) stop() {
	w.cancel()
	w.watching.Wait()
}

func (w *watch) look(ctx context.Context, n *lb) {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	var before uint64
	for ctx.Err() == nil {
		if v := n.view(); v != nil {
			// The term is read after the leader. Only with the same term before
			// and after did the node call itself leader in that one.
			w.note(v, v.Term == before)
			before = v.Term
		}
		<-tick.C
	}
}

func (w *watch) note(v *admin.ClusterView, sameTerm bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if sameTerm && v.Leader == v.AsSeenBy {
		if w.leaders[v.Term] == nil {
			w.leaders[v.Term] = map[string]bool{}
		}
		w.leaders[v.Term][v.AsSeenBy] = true
	}
	for _, n := range v.Nodes {
		if n.Status == cluster.Failed || n.Status == cluster.Left {
			w.gone[n.Name+" by "+v.AsSeenBy] = true
		}
	}
	if own(v).View.Stale { // it may be from before the backends were judged, and says so
		return
	}
	for _, p := range v.Pools {
		for _, b := range p.Backends {
			if b.Health != "healthy" {
				w.wrong = append(w.wrong, fmt.Sprintf("%s shows %s as %s", v.AsSeenBy, b.Name, b.Health))
			}
		}
	}
}

// lost are the nodes that were shown as failed or left, and by whom.
func (w *watch) lost() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Sorted(maps.Keys(w.gone))
}

// conclude ends the watch and fails the test if two nodes led in one term or a
// backend was shown as what it was not.
func (w *watch) conclude(t *testing.T) string {
	t.Helper()
	w.stop()
	for term, names := range w.leaders {
		if len(names) > 1 {
			t.Errorf("got the leaders %v in term %d, want one", slices.Sorted(maps.Keys(names)), term)
		}
	}
	if len(w.wrong) > 0 {
		t.Errorf("got %d false views of backends that were well all the time, the first: %s", len(w.wrong), w.wrong[0])
	}
	return fmt.Sprintf("%d terms with a leader", len(w.leaders))
}

// roles returns the leader and the others once all agree on it.
func roles(t *testing.T, nodes []*lb) (lead *lb, followers []*lb) {
	t.Helper()
	eventually(t, patience, "all agree on a leader", func() bool {
		lead, followers = leader(nodes)
		return lead != nil && every(nodes, func(n *lb) bool { v := n.view(); return v != nil && v.Leader == lead.name })
	})
	return lead, followers
}

// whole waits until each of the nodes sees all of them, and no others, alive under
// one leader with one view.
func whole(t *testing.T, nodes []*lb) time.Duration {
	t.Helper()
	done := false
	defer func() {
		if !done {
			showAll(t, nodes)
		}
	}()
	took := eventually(t, patience, "the cluster is whole", func() bool { return isWhole(nodes) })
	done = true
	return took
}

// showAll logs what each node shows.
func showAll(t *testing.T, nodes []*lb) {
	for _, n := range nodes {
		text, err := json.Marshal(n.view())
		if err != nil {
			t.Errorf("cannot show the view of %s: %v", n.name, err)
		}
		t.Logf("%s shows %s", n.name, text)
	}
}

func isWhole(nodes []*lb) bool {
	seen := map[string]bool{}
	for _, n := range nodes {
		v := n.view()
		if v == nil || !v.Healthy || !v.Agreement {
			return false
		}
		alive := 0
		for _, other := range v.Nodes {
			if other.Status == cluster.Alive {
				alive++
			}
		}
		if alive != len(nodes) {
			return false
		}
		seen[fmt.Sprint(v.ClusterID, v.Leader, v.Term, own(v).View.Digest)] = true
	}
	return len(seen) == 1
}

// highestTerm is the highest term that any of the nodes knows.
func highestTerm(nodes []*lb) (term uint64) {
	for _, n := range nodes {
		if v := n.view(); v != nil {
			term = max(term, v.Term)
		}
	}
	return term
}

// warnings are what the node's /cluster warns of, as one text.
func (n *lb) warnings() string {
	if v := n.view(); v != nil {
		return strings.Join(v.Warnings, "; ")
	}
	return ""
}
