package main

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"lbnode/cluster/admin"
	"lbnode/state"
)

// A backend whose probes pass while it answers everything else with 500 is ejected by
// the nodes that have traffic for it. One node's word is not enough for the cluster;
// that of two is. When it is well it comes back.
func TestEjectionBecomesAVerdict(t *testing.T) {
	t.Parallel()
	var broken atomic.Bool
	broken.Store(true)
	var pool admin.PoolSpec
	pool.Name, pool.Outlier = "default", state.Outlier{Consecutive: 3, Time: state.Duration(2 * time.Second)}
	for i := range 3 {
		name := fmt.Sprintf("web-%d", i+1)
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if name == "web-1" && broken.Load() && r.URL.Path != "/" { // which is probed
				w.WriteHeader(http.StatusInternalServerError)
				return
			}
			io.WriteString(w, "Hello from "+name)
		}))
		t.Cleanup(server.Close)
		pool.Backends = append(pool.Backends, admin.BackendSpec{Name: name, URL: server.URL})
	}
	nodes := newLBs(t, 3)
	startAll(nodes)
	f := &fleet{nodes: nodes}
	f.waitHealthy(t, "three nodes form one cluster", nodes, 3)
	if _, err := nodes[0].client.CreatePool(t.Context(), pool); err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		f.waitBackends(t, 10*time.Second, fmt.Sprintf("web-%d", i+1), "healthy")
	}
	client := &http.Client{Timeout: 5 * time.Second}
	ask := func(n *lb) {
		for range 9 {
			res, err := client.Get("http://" + n.http + "/x")
			if err != nil {
				t.Fatal(err)
			}
			res.Body.Close()
		}
	}
	ejectedBy := func(v *admin.ClusterView) (names []string) {
		if v != nil {
			for _, at := range backendIn(v, "default", "web-1").AtNodes {
				if at.Ejected {
					names = append(names, at.Node)
				}
			}
		}
		return names
	}
	eventually(t, 10*time.Second, "lb1 is seen to eject it", func() bool { ask(nodes[0]); return len(ejectedBy(nodes[2].view())) == 1 })
	if got := nodes[2].health()["web-1"]; got != "healthy" {
		t.Errorf("got it %s by the word of one node, want healthy", got)
	}
	took := eventually(t, 10*time.Second, "it is unhealthy", func() bool {
		ask(nodes[0])
		ask(nodes[1])
		return nodes[2].health()["web-1"] == "unhealthy"
	})
	t.Logf("unhealthy after %s", took.Round(time.Millisecond))
	broken.Store(false)
	took = f.waitBackends(t, 30*time.Second, "web-1", "healthy")
	t.Logf("healthy after %s", took.Round(time.Millisecond))
	eventually(t, 30*time.Second, "all nodes send it requests again", func() bool { return len(ejectedBy(nodes[0].view())) == 0 })
	for _, n := range nodes {
		shares := map[string]int{}
		for range 30 {
			name, err := fetch(client, "http://"+n.http+"/x")
			if err != nil {
				t.Fatal(err)
			}
			shares[name]++
		}
		if shares["web-1"] != 10 {
			t.Errorf("%s: got shares %v once it is back, want even ones", n.name, shares)
		}
	}
}
