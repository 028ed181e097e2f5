package main

import (
	"fmt"
	"slices"
	"sync"
	"testing"

	"lbnode/cluster/admin"
	"lbnode/state"
)

// lockstep sends one request to each of the nodes at once, so many times, and gives the
// most that one backend got of them at a time.
func lockstep(t *testing.T, nodes []*lb, rounds int) int {
	t.Helper()
	most := 0
	for range rounds {
		got, mu, asking := shares{}, sync.Mutex{}, sync.WaitGroup{}
		for _, n := range nodes {
			asking.Go(func() {
				for name := range sendTo(t, n, "/even", 1, 1) {
					mu.Lock()
					got[name]++
					most = max(most, got[name])
					mu.Unlock()
				}
			})
		}
		asking.Wait()
	}
	return most
}

// Nodes that start together, and get the same requests, spread them over the backends at
// each moment as well. It stays so when the leader goes, and when all start again.
func TestNodesAreNotInStep(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ nodes, backends int }{{3, 3}, {3, 6}, {3, 2}, {5, 3}} {
		t.Run(fmt.Sprintf("%d nodes, %d backends", test.nodes, test.backends), func(t *testing.T) {
			t.Parallel()
			nodes := newLBs(t, test.nodes)
			startAll(nodes)
			whole(t, nodes)
			makePool(t, nodes, admin.PoolSpec{Name: "even", Settings: state.Settings{HealthCheck: calm}, Backends: locals(t, slices.Repeat([]int{1}, test.backends)...)})
			want := (test.nodes + test.backends - 1) / test.backends
			for range amount(1, 10) {
				inStep := lockstep(t, nodes, 12)
				lead, rest := roles(t, nodes)
				lead.kill()
				during := lockstep(t, rest, 12)
				eventually(t, patience, "the survivors have a leader", func() bool {
					return every(rest, func(n *lb) bool { v := n.view(); return v != nil && v.Leader != "" && v.Leader != lead.name })
				})
				after := lockstep(t, rest, 12)
				for _, n := range rest {
					n.kill()
				}
				startAll(nodes)
				whole(t, nodes)
				again := lockstep(t, nodes, 12)
				if inStep > want || during > want || after > want || again > want {
					t.Errorf("got at most %d requests at a time on one backend, %d and %d without the leader, %d after a restart; want %d", inStep, during, after, again, want)
				}
			}
		})
	}
}

// Nor are those in step that come one by one to a pool that is there already.
func TestNodesThatJoinAreNotInStep(t *testing.T) {
	t.Parallel()
	for i := range amount(3, 20) {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			t.Parallel()
			nodes := []*lb{loneLB(t, "lb1")}
			nodes[0].start()
			whole(t, nodes)
			makePool(t, nodes, admin.PoolSpec{Name: "even", Settings: state.Settings{HealthCheck: calm}, Backends: locals(t, 1, 1, 1)})
			for _, name := range []string{"lb2", "lb3"} {
				n := loneLB(t, name, "-join", own(nodes[0].view()).Addr)
				n.start()
				nodes = append(nodes, n)
				whole(t, nodes)
			}
			if got := lockstep(t, nodes, 12); got != 1 {
				t.Errorf("got %d requests at a time on one backend, want 1", got)
			}
		})
	}
}

// loneLB prepares a node that knows of no other but by the arguments.
func loneLB(t *testing.T, name string, more ...string) *lb {
	host := loopback()
	n := &lb{http: freeAddrOn(t, host), admin: freeAddrOn(t, host)}
	n.process = newProcess(t, name, append([]string{
		"-node", name, "-data-dir", t.TempDir(), "-bind", freeAddrOn(t, host), "-raft", freeAddrOn(t, host),
		"-http", n.http, "-admin", n.admin,
	}, more...)...)
	n.client = admin.NewClient(n.admin, "")
	return n
}
