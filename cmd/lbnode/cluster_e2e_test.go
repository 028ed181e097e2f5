package main

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"lbnode/cluster/admin"
)

// interval is the default time between two probes of a backend.
const interval = 2 * time.Second

// fleet is three nodes and three backends, all real processes.
type fleet struct {
	nodes    []*lb
	backends []*process
}

func startFleet(t *testing.T) *fleet {
	f := &fleet{nodes: newLBs(t, 3)}
	var urls []string
	for i := range 3 {
		p, addr := newBackend(t, fmt.Sprintf("web-%d", i+1))
		p.start()
		f.backends, urls = append(f.backends, p), append(urls, "http://"+addr)
	}
	startAll(f.nodes)
	f.waitHealthy(t, "three nodes form one cluster", f.nodes, 3)
	for i, url := range urls {
		body := fmt.Sprintf(`{"name":"web-%d","url":%q}`, i+1, url)
		if code, answer := call(t, "POST", "http://"+f.nodes[0].admin+"/v1/pools/default/backends", body); code != http.StatusCreated {
			t.Fatalf("cannot add backend %d: %d %v", i+1, code, answer)
		}
	}
	took := eventually(t, time.Second, "all views have one digest", func() bool {
		return every(f.nodes, func(n *lb) bool { d := n.digest(); return d != "" && d == f.nodes[0].digest() })
	})
	t.Logf("one digest on all nodes %s after the last write", took.Round(time.Millisecond))
	f.waitBackends(t, 5*time.Second, "web-1", "healthy")
	f.waitBackends(t, 5*time.Second, "web-2", "healthy")
	f.waitBackends(t, 5*time.Second, "web-3", "healthy")
	return f
}

// waitHealthy waits until the nodes see size nodes alive, one leader and one view.
func (f *fleet) waitHealthy(t *testing.T, what string, nodes []*lb, size int) {
	t.Helper()
	took := eventually(t, 30*time.Second, what, func() bool {
		return every(nodes, func(n *lb) bool {
			v := n.view()
			return v != nil && v.Healthy && v.Agreement && v.ClusterID != "" && len(v.Nodes) == size
		})
	})
	t.Logf("%s: %s", what, took.Round(time.Millisecond))
}

func (f *fleet) waitBackends(t *testing.T, within time.Duration, name, health string) time.Duration {
	t.Helper()
	return eventually(t, within, name+" is "+health+" on every node", func() bool {
		return every(f.nodes, func(n *lb) bool { return n.health()[name] == health })
	})
}

// leader returns the leader and the others as the first answering node sees them.
func leader(nodes []*lb) (*lb, []*lb) {
	for _, n := range nodes {
		v := n.view()
		if v == nil {
			continue
		}
		if i := slices.IndexFunc(nodes, func(n *lb) bool { return n.name == v.Leader }); i >= 0 {
			return nodes[i], slices.Delete(slices.Clone(nodes), i, i+1)
		}
	}
	return nil, nil
}

func TestCluster(t *testing.T) {
	f := startFleet(t)
	for _, step := range []struct {
		name string
		run  func(*testing.T)
	}{
		{"even shares", f.evenShares},
		{"backend killed under load", f.backendKilled},
		{"follower killed under load", f.followerKilled},
		{"leader killed under load", f.leaderKilled},
		{"all killed and restarted", f.allKilled},
		{"two of three killed", f.twoKilled},
	} {
		if !t.Run(step.name, step.run) {
			return
		}
	}
}

func (f *fleet) evenShares(t *testing.T) {
	const requests, clients = 3000, 10
	for _, n := range f.nodes {
		shares := sendTo(t, n, "/", clients, requests/clients)
		t.Logf("%s: %v", n.name, shares)
		for name, got := range shares {
			if got < requests/3-1 || got > requests/3+1 {
				t.Errorf("%s: got %d requests on %s, want %d ± 1", n.name, got, name, requests/3)
			}
		}
		if len(shares) != 3 {
			t.Errorf("%s: got %d backends, want 3", n.name, len(shares))
		}
	}
}

func (f *fleet) backendKilled(t *testing.T) {
	l := startLoad(t, f.nodes, 8)
	f.backends[1].kill()
	took := f.waitBackends(t, 3*interval+time.Second, "web-2", "unhealthy")
	t.Logf("unhealthy on every node after %s", took.Round(time.Millisecond))
	f.backends[1].start()
	took = f.waitBackends(t, 4*interval, "web-2", "healthy")
	t.Logf("healthy on every node after %s", took.Round(time.Millisecond))
	l.stop(t, "a backend killed and restarted")
}

func (f *fleet) followerKilled(t *testing.T) {
	_, followers := leader(f.nodes)
	f.nodeKilled(t, followers[0])
}

func (f *fleet) leaderKilled(t *testing.T) {
	old, _ := leader(f.nodes)
	f.nodeKilled(t, old)
}

// nodeKilled kills a node under load on the others, which must elect a leader
// and take writes, then starts it again with the same command.
func (f *fleet) nodeKilled(t *testing.T, victim *lb) {
	rest := slices.DeleteFunc(slices.Clone(f.nodes), func(n *lb) bool { return n == victim })
	l := startLoad(t, rest, 8)
	victim.kill()
	took := eventually(t, 15*time.Second, "the survivors agree on a leader and know of the loss", func() bool {
		return every(rest, func(n *lb) bool {
			v := n.view()
			return v != nil && v.Leader != "" && v.Leader != victim.name && status(v, victim.name) == "failed"
		})
	})
	t.Logf("a leader among the survivors and the loss known after %s", took.Round(time.Millisecond))
	f.write(t, rest[0], 3)
	victim.start()
	f.waitHealthy(t, "the killed node is back", f.nodes, 3)
	l.stop(t, victim.name+" killed and restarted")
}

func status(v *admin.ClusterView, name string) string {
	for _, n := range v.Nodes {
		if n.Name == name {
			return string(n.Status)
		}
	}
	return ""
}

// write changes a weight back and forth through a node, to see that writes are taken.
func (f *fleet) write(t *testing.T, n *lb, weight int) {
	t.Helper()
	for _, w := range []int{weight, 1} {
		code, answer := call(t, "PATCH", "http://"+n.admin+"/v1/pools/default/backends/web-1", fmt.Sprintf(`{"weight":%d}`, w))
		if code != http.StatusOK {
			t.Errorf("%s: got %d %v, want the write taken", n.name, code, answer)
		}
	}
}

func (f *fleet) allKilled(t *testing.T) {
	want := f.nodes[0].digest()
	for _, n := range f.nodes {
		n.kill()
	}
	startAll(f.nodes)
	f.waitHealthy(t, "all are back", f.nodes, 3)
	for _, n := range f.nodes {
		if got := n.digest(); got != want {
			t.Errorf("%s: got digest %s, want %s as before", n.name, got, want)
		}
	}
}

func (f *fleet) twoKilled(t *testing.T) {
	last := f.nodes[2]
	l := startLoad(t, []*lb{last}, 8)
	f.nodes[0].kill()
	f.nodes[1].kill()
	took := eventually(t, 20*time.Second, "the last node says that it is degraded", func() bool {
		v := last.view()
		return v != nil && v.Degraded != "" && !v.Healthy && v.Leader == ""
	})
	t.Logf("degraded after %s: %s", took.Round(time.Millisecond), last.view().Degraded)
	code, answer := call(t, "PATCH", "http://"+last.admin+"/v1/pools/default/backends/web-1", `{"weight":2}`)
	if code != http.StatusServiceUnavailable || !strings.Contains(fmt.Sprint(answer["detail"]), "leader") {
		t.Errorf("got %d %v, want the write refused with 503 and the reason", code, answer)
	}
	if code := statusOf(t, "http://"+last.admin+"/readyz"); code != http.StatusOK {
		t.Errorf("got %d from /readyz, want 200: traffic still flows", code)
	}
	f.backends[0].kill() // nobody can commit that; the node trusts its own probes
	eventually(t, 3*interval+2*time.Second, "traffic still flows without the lost backend", func() bool {
		before := l.sent.Load()
		return eventually(t, 5*time.Second, "requests go on", func() bool { return l.sent.Load() > before+100 }) > 0
	})
	l.stop(t, "two of three nodes and a backend killed")
}

// Twenty times, three nodes start for the first time at once.
func TestSimultaneousFirstStarts(t *testing.T) {
	for i := range 20 {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			t.Parallel()
			nodes := newLBs(t, 3)
			startAll(nodes)
			took := eventually(t, 60*time.Second, "one cluster of three", func() bool {
				return every(nodes, func(n *lb) bool {
					v := n.view()
					return v != nil && v.Healthy && v.ClusterID != "" && len(v.Nodes) == 3
				})
			})
			ids := map[string]bool{}
			for _, n := range nodes {
				ids[n.view().ClusterID] = true
			}
			if len(ids) != 1 {
				t.Errorf("got %d clusters, want 1: %v", len(ids), ids)
			}
			t.Logf("one cluster after %s", took.Round(time.Millisecond))
		})
	}
}

// A node that is told to stop ends in order, with success, and is shown as left.
func TestStopIsClean(t *testing.T) {
	t.Parallel()
	nodes := newLBs(t, 3)
	startAll(nodes)
	(&fleet{}).waitHealthy(t, "three nodes form one cluster", nodes, 3)
	old, rest := leader(nodes)
	old.cmd.Process.Signal(syscall.SIGTERM)
	if code, out := old.exit(15 * time.Second); code != 0 {
		t.Errorf("got exit code %d, want 0:\n%s", code, out)
	}
	eventually(t, 5*time.Second, "the others know at once", func() bool {
		return every(rest, func(n *lb) bool { v := n.view(); return v != nil && status(v, old.name) == "left" && v.Leader != "" })
	})
}

func TestLeaveShrinksTheCluster(t *testing.T) {
	t.Parallel()
	nodes := newLBs(t, 3)
	startAll(nodes)
	(&fleet{}).waitHealthy(t, "three nodes form one cluster", nodes, 3)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := nodes[0].client.Leave(ctx); err != nil {
		t.Fatalf("cannot leave: %v", err)
	}
	if code, out := nodes[0].exit(15 * time.Second); code != 0 {
		t.Errorf("got exit code %d, want 0:\n%s", code, out)
	}
	eventually(t, 20*time.Second, "two nodes are a healthy cluster of two voters", func() bool {
		return every(nodes[1:], func(n *lb) bool {
			v := n.view()
			return v != nil && v.Healthy && v.Quorum == 2 && v.FailureTolerance == 0
		})
	})
	nodes[0].start()
	(&fleet{}).waitHealthy(t, "the node that left comes back with the same command", nodes, 3)
}
