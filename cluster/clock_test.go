package cluster

import (
	"context"
	"reflect"
	"testing"
	"time"

	"lbnode/state"
)

// skews are how far the clocks of three nodes are off.
var skews = []time.Duration{-9 * time.Hour, 0, 7 * time.Hour}

// The same commands from nodes whose clocks differ by hours make what they make by
// one clock, but for the times that are shown.
func TestClocksOnlyShow(t *testing.T) {
	t.Parallel()
	nodes := startCluster(t, 3, nil)
	// The reference applies the same commands at the same indexes.
	reference, id := state.NewMachine(), nodes[0].View().ClusterID
	apply(t, reference, nodes[0].View().Index, state.Command{ID: NewID(), Op: &state.InitCluster{ClusterID: id}})
	ops := []state.Op{
		addBackend("web-1", 3001), addBackend("web-2", 3002),
		&state.UpdateBackend{Pool: state.DefaultPool, Name: "web-1", Patch: state.Backend{Port: 3003}},
		&state.UpdateBackend{Pool: state.DefaultPool, Name: "web-1", Patch: state.Backend{Admin: state.Maint}},
		&state.UpdateBackend{Pool: state.DefaultPool, Name: "web-1", Patch: state.Backend{Admin: state.Ready}},
		addBackend("web-1", 3004), // refused
		&state.RemoveBackend{Pool: state.DefaultPool, Name: "web-2"},
		&state.UpdateBackend{Pool: state.DefaultPool, Name: "web-1", Patch: state.Backend{Port: 3005}},
	}
	for i, op := range ops {
		n, at := nodes[i%3], time.Now().Add(skews[i%3]).UnixMilli()
		command := state.Command{ID: NewID(), At: at, Op: op}
		for _, n := range []*node{n, nodes[(i+1)%3]} { // once more, by another clock
			got := commitCommand(t, n, command)
			command.At += time.Hour.Milliseconds()
			want := apply(t, reference, got.Index, state.Command{ID: command.ID, Op: op})
			if !reflect.DeepEqual(got, want) {
				t.Errorf("got %+v for command %d, want %+v", got, i, want)
			}
		}
		if since := shown(n, "web-1"); i == len(ops)-1 && since != at {
			t.Errorf("got time %d for the last move of web-1, want %d, the proposer's", since, at)
		}
	}
	eventually(t, waitLong, "the first node has it all", func() bool { return nodes[0].View().Index >= reference.View().Index })
	if got, want := withoutTimes(nodes[0].View()), withoutTimes(reference.View()); !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func apply(t *testing.T, m *state.Machine, index uint64, command state.Command) state.Result {
	t.Helper()
	data, err := command.Encode()
	if err != nil {
		t.Fatal(err)
	}
	result, err := m.Apply(index, data)
	if err != nil {
		t.Fatal(err)
	}
	return result
}

// commitCommand commits a command as if the node had made it, and waits until the node has it.
func commitCommand(t *testing.T, n *node, command state.Command) (result state.Result) {
	t.Helper()
	data, err := command.Encode()
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, waitLong, "a command is committed", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), proposeWithin)
		defer cancel()
		result, err = n.commit(ctx, data)
		return err == nil && n.fsm.applied.wait(ctx, result.Index) == nil
	})
	return result
}

// shown is the time that a node shows for a backend's health.
func shown(n *node, backend string) int64 {
	return n.View().Pool(state.DefaultPool).Backend(backend).Since
}

// withoutTimes is the default pool's backends but for the times of their health.
func withoutTimes(view *state.View) (backends []state.Backend) {
	for _, b := range view.Pool(state.DefaultPool).Backends {
		timeless := *b
		timeless.Since = 0
		backends = append(backends, timeless)
	}
	return backends
}

// Observers whose clocks differ by hours are believed all the same.
func TestVerdictDoesNotDependOnClocks(t *testing.T) {
	t.Parallel()
	nodes := startCluster(t, 3, nil)
	propose(t, nodes[0], addBackend("web-1", 3001))
	b := nodes[0].View().Pool(state.DefaultPool).Backend("web-1")
	for i, n := range nodes {
		n.mu.Lock()
		n.observations[b.ID] = LocalBackend{Observation: &Observation{
			BackendID: b.ID, URL: b.URL(), Healthy: i != 1, At: time.Now().Add(skews[i]),
		}}
		n.mu.Unlock()
		n.Observed()
	}
	eventually(t, waitLong, "two of three make it healthy", func() bool {
		pool := nodes[1].View().Pool(state.DefaultPool) // this node may still be behind
		return pool != nil && pool.Backend("web-1").Healthy()
	})
}
