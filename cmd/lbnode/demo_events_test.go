package main

import (
	"slices"
	"testing"

	"lbnode/cluster"
	"lbnode/cluster/admin"
	"lbnode/state"
)

// sight is a cluster of three nodes and two backends, all well.
func sight() *admin.ClusterView {
	v := &admin.ClusterView{Leader: "lb1", Term: 2, Quorum: 2}
	for _, name := range []string{"lb1", "lb2", "lb3"} {
		v.Nodes = append(v.Nodes, admin.Node{ID: "id-" + name, Name: name, Status: cluster.Alive, Voter: true})
	}
	pool := admin.ClusterPool{Name: "default"}
	for _, name := range []string{"web-1", "web-2"} {
		pool.Backends = append(pool.Backends, admin.ClusterBackend{
			ID: "id-" + name, Name: name, URL: "http://" + name, Admin: state.Ready, Health: state.Healthy,
		})
	}
	v.Pools = append(v.Pools, pool)
	return v
}

func TestChanges(t *testing.T) {
	fail := func(v *admin.ClusterView, nodes ...int) {
		for _, i := range nodes {
			v.Nodes[i].Status = cluster.Failed
		}
	}
	for _, test := range []struct {
		name       string
		change     func(v *admin.ClusterView)
		want, back []string // going there, and coming back
	}{
		{"nothing", func(*admin.ClusterView) {}, nil, nil},
		{"what is no event", func(v *admin.ClusterView) {
			v.Term, v.CommitIndex, v.AsSeenBy = 9, 99, "lb2"
			v.Nodes[1].Status = cluster.Suspect
			v.Pools[0].Backends[0].InFlight = 7
		}, nil, nil},
		{"node fails", func(v *admin.ClusterView) { fail(v, 1) },
			[]string{"node lb2 is lost (failed)"}, []string{"node lb2 is back"}},
		{"node leaves", func(v *admin.ClusterView) { v.Nodes[1].Status = cluster.Left },
			[]string{"node lb2 is lost (left)"}, []string{"node lb2 is back"}},
		{"node is removed", func(v *admin.ClusterView) { v.Nodes = v.Nodes[:2] },
			[]string{"node lb3 is no longer a member"}, []string{"node lb3 has joined (alive)"}},
		{"leader dies", func(v *admin.ClusterView) { fail(v, 0); v.Leader, v.Term = "lb3", 3 },
			[]string{"node lb1 is lost (failed)", "lb3 is the leader (term 3)"},
			[]string{"node lb1 is back", "lb1 is the leader (term 2)"}},
		{"quorum is lost", func(v *admin.ClusterView) { fail(v, 1, 2); v.Leader = "" },
			[]string{"node lb2 is lost (failed)", "node lb3 is lost (failed)", "no leader",
				"quorum lost: 1 voters alive, 2 needed; traffic flows on, changes are refused"},
			[]string{"node lb2 is back", "node lb3 is back", "lb1 is the leader (term 2)", "quorum regained"}},
		{"a node without a vote fails", func(v *admin.ClusterView) { v.Nodes[2].Voter = false; fail(v, 2) },
			[]string{"node lb3 is lost (failed)"}, []string{"node lb3 is back"}},
		{"backend is unhealthy", func(v *admin.ClusterView) {
			b := &v.Pools[0].Backends[1]
			b.Health = state.Unhealthy
			b.Observers = []admin.Observer{{Healthy: true, Reason: "200 OK"}, {Reason: "timeout after 1s"}}
		}, []string{"backend web-2 is unhealthy: timeout after 1s"}, []string{"backend web-2 is healthy"}},
		{"backend drains", func(v *admin.ClusterView) { v.Pools[0].Backends[0].Admin = state.Drain },
			[]string{"backend web-1 is set to drain"}, []string{"backend web-1 is set to ready"}},
		{"backend is removed", func(v *admin.ClusterView) { v.Pools[0].Backends = v.Pools[0].Backends[:1] },
			[]string{"backend web-2 removed from pool default"},
			[]string{"backend web-2 added to pool default (http://web-2)", "backend web-2 is healthy"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			before, after := sight(), sight()
			test.change(after)
			if got := changes(before, after); !slices.Equal(got, test.want) {
				t.Errorf("got %q, want %q", got, test.want)
			}
			if got := changes(after, before); !slices.Equal(got, test.back) {
				t.Errorf("back: got %q, want %q", got, test.back)
			}
		})
	}
}
