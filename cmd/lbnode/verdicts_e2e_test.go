package main

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"lbnode/cluster/admin"
	"lbnode/state"
)

// whenAgreed is when each of the nodes first showed a backend with another health.
func whenAgreed(t *testing.T, nodes []*lb, name, health string, since time.Time) []time.Duration {
	t.Helper()
	took := make([]time.Duration, len(nodes))
	eventually(t, patience, name+" is "+health+" on every node", func() bool {
		missing := false
		for i, n := range nodes {
			if took[i] == 0 && n.agreed(t, name) == health {
				took[i] = time.Since(since)
			}
			missing = missing || took[i] == 0
		}
		return !missing
	})
	return took
}

// agreed is a backend's health in the view that the node serves, "" if that does not have
// it yet. It costs less than what the node shows of the whole cluster.
func (n *lb) agreed(t *testing.T, name string) string {
	t.Helper()
	backends, err := n.client.Backends(t.Context(), state.DefaultPool)
	var problem *admin.Problem
	if err != nil && !(errors.As(err, &problem) && problem.Status == http.StatusNotFound) {
		t.Fatalf("%s does not tell of its backends: %v", n.name, err)
	}
	for _, b := range backends {
		if b.Name == name {
			return string(b.Health)
		}
	}
	return ""
}

// A backend is killed while all nodes have requests for it: none fails, and all nodes
// agree on its death after so many probes.
func TestBackendDiesUnderLoad(t *testing.T) {
	t.Parallel()
	const verdictWithin = 300 * time.Millisecond // after the last of the probes that it takes
	for _, interval := range amount([]time.Duration{500 * time.Millisecond}, []time.Duration{500 * time.Millisecond, 2 * time.Second}) {
		t.Run(interval.String(), func(t *testing.T) {
			nodes := newLBs(t, 3)
			startAll(nodes)
			whole(t, nodes)
			spec := admin.PoolSpec{Name: state.DefaultPool, Settings: state.Settings{HealthCheck: state.HealthCheck{Interval: state.Duration(interval), Timeout: state.Duration(interval / 2), Fall: 3}}}
			if _, err := nodes[0].client.CreatePool(t.Context(), spec); err != nil {
				t.Fatal(err)
			}
			var backends []*process
			for i := range 3 {
				backend, addr := newBackend(t, fmt.Sprintf("web-%d", i+1))
				backend.start()
				backends = append(backends, backend)
				if _, err := nodes[i].client.AddBackend(t.Context(), state.DefaultPool, admin.BackendSpec{Name: backend.name, URL: "http://" + addr}); err != nil {
					t.Fatal(err)
				}
				whenAgreed(t, nodes, backend.name, "healthy", time.Now())
			}
			load, within := startSteadyLoad(t, nodes, amount(300, 1000)), 3*interval+verdictWithin
			var died, back []time.Duration
			for i := range amount(1, 10) {
				victim := backends[i%len(backends)]
				victim.kill()
				took := whenAgreed(t, nodes, victim.name, "unhealthy", time.Now())
				died = append(died, took...)
				// How late is for the long form to say, on a machine with nothing else to do.
				for j, took := range took {
					if *long && took > within {
						t.Errorf("%s called %s unhealthy %s after it was killed, want %s at most", nodes[j].name, victim.name, took, within)
					}
				}
				victim.start()
				began := time.Now()
				forgive(t, nodes[0], victim.name) // or it is held once it has died three times
				back = append(back, whenAgreed(t, nodes, victim.name, "healthy", began)...)
			}
			t.Logf("%s; unhealthy within %s: %s; healthy again: %s", load.conclude(t), within, spread(died), spread(back))
		})
	}
}

// forgive makes the cluster forget how often a backend has failed.
func forgive(t *testing.T, n *lb, name string) {
	t.Helper()
	for _, wanted := range []state.Admin{state.Maint, state.Ready} {
		if _, _, err := n.client.UpdateBackend(t.Context(), state.DefaultPool, name, admin.BackendSpec{Admin: wanted}); err != nil {
			t.Fatal(err)
		}
	}
}

// However many nodes there are, three of them probe each backend; where one is lost,
// another takes its place.
func TestThreeProbesAnInterval(t *testing.T) {
	t.Parallel()
	for _, count := range amount([]int{5}, []int{3, 5, 9}) {
		t.Run(fmt.Sprint(count), func(t *testing.T) {
			nodes := newLBs(t, count)
			startAll(nodes)
			whole(t, nodes)
			b := addProbed(t, nodes[0], 6)
			b.count(t, nodes)
			if count == 3 {
				return
			}
			_, followers := roles(t, nodes)
			followers[0].kill()
			rest := without(nodes, followers[0])
			eventually(t, patience, "the loss is known", func() bool {
				return every(rest, func(n *lb) bool { v := n.view(); return v != nil && status(v, followers[0].name) == "failed" })
			})
			b.count(t, rest)
		})
	}
}

// probed are backends that count how often they are probed.
type probed []atomic.Int64

const probeEvery = 500 * time.Millisecond

func addProbed(t *testing.T, n *lb, count int) probed {
	t.Helper()
	spec := admin.PoolSpec{Name: state.DefaultPool, Settings: state.Settings{HealthCheck: state.HealthCheck{Interval: state.Duration(probeEvery), Timeout: state.Duration(probeEvery)}}}
	if _, err := n.client.CreatePool(t.Context(), spec); err != nil {
		t.Fatal(err)
	}
	p := make(probed, count)
	for i := range p {
		server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { p[i].Add(1) }))
		t.Cleanup(server.Close)
		if _, err := n.client.AddBackend(t.Context(), state.DefaultPool, admin.BackendSpec{Name: fmt.Sprintf("web-%d", i+1), URL: server.URL}); err != nil {
			t.Fatal(err)
		}
	}
	return p
}

// count looks for some intervals.
func (p probed) count(t *testing.T, nodes []*lb) {
	t.Helper()
	eventually(t, patience, "three nodes tell of each backend", func() bool { return every(nodes, p.observedByThree) })
	for i := range p {
		p[i].Store(0)
	}
	began := time.Now()
	hold(t, 10*probeEvery)
	due := 3 * float64(time.Since(began)) / float64(probeEvery)
	var got []int64
	for i := range p {
		got = append(got, p[i].Load())
	}
	t.Logf("%d nodes: got %v probes of the backends, %.1f of each are due", len(nodes), got, due)
	least := due*amount(0.7, 0.9) - 3 // a busy machine probes late
	for i, got := range got {
		if float64(got) < least || float64(got) > due+3 { // each node may have been about to probe
			t.Errorf("got %d probes of web-%d, want %.1f to %.1f", got, i+1, least, due+3)
		}
	}
}

// observedByThree says whether the node shows three observers for each backend.
func (p probed) observedByThree(n *lb) bool {
	v := n.view()
	if v == nil {
		return false
	}
	for i := range p {
		if b := backendIn(v, state.DefaultPool, fmt.Sprintf("web-%d", i+1)); b == nil || len(b.Observers) != 3 {
			return false
		}
	}
	return true
}

// One node loses its way to a backend that is well: by itself it soon avoids it, the others
// go on, and the verdict stays.
func TestBrokenLinkIsOneNodesOwn(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("iptables"); err != nil {
		t.Skip("needs iptables to cut links")
	}
	hosts := network(t, 4)
	world := hosts[3]
	nodes := newHostLBs(t, hosts[:3], world)
	startAll(nodes)
	whole(t, nodes)
	spec := admin.PoolSpec{Name: state.DefaultPool, Settings: state.Settings{Timeouts: state.Timeouts{Request: state.Duration(4 * time.Second)}}} // or those caught wait for 30 s
	if _, err := nodes[0].client.CreatePool(t.Context(), spec); err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		name, addr := fmt.Sprintf("web-%d", i+1), fmt.Sprintf("%s:%d", world.addr, 9001+i)
		world.daemon(name, "demo", "backend", name, addr)
		if _, err := nodes[0].client.AddBackend(t.Context(), state.DefaultPool, admin.BackendSpec{Name: name, URL: "http://" + addr}); err != nil {
			t.Fatal(err)
		}
		whenAgreed(t, nodes, name, "healthy", time.Now())
		eventually(t, patience, "all nodes can connect to "+name, func() bool {
			v := nodes[0].view()
			return v != nil && len(unreachable(v, name)) == 0
		})
	}
	for _, fault := range amount([]string{"DROP"}, []string{"DROP", "REJECT", "REJECT --reject-with tcp-reset"}) {
		t.Run(fault, func(t *testing.T) {
			watch, load := startWatch(t, nodes), startSteadyLoad(t, nodes, amount(100, 1000))
			var found, back []time.Duration
			for range amount(1, 5) {
				took := breakLink(t, nodes, world, hosts[0], strings.Fields(fault))
				found, back = append(found, took[0]), append(back, took[1])
			}
			watch.conclude(t)
			t.Logf("avoided after %s, used again after %s; %s", spread(found), spread(back), load.conclude(t))
		})
	}
}

// breakLink makes packets of the first node to web-1 go astray for longer than it takes to
// agree that a backend is unhealthy. It returns when the node avoided web-1 and, counted
// from the repair, when it no longer did.
func breakLink(t *testing.T, nodes []*lb, world, from *host, how []string) (took [2]time.Duration) {
	t.Helper()
	const longEnough = 8 * time.Second // for three probes, 2 s apart and 1 s each
	broken, others := nodes[0], nodes[1:]
	avoids := func() bool { return slices.Equal(unreachable(broken.view(), "web-1"), []string{broken.name}) }
	world.filter(from, []string{"-p", "tcp", "--dport", "9001"}, how...)
	began := time.Now()
	took[0] = eventually(t, patience, "the node avoids it", avoids)
	if *long && took[0] > time.Second {
		t.Errorf("%s avoided web-1 after %s, want 1 s at most", broken.name, took[0])
	}
	for _, n := range nodes {
		shares := sendTo(t, n, "/", 1, 30)
		if n == broken && shares["web-1"] > 0 || n != broken && shares["web-1"] == 0 {
			t.Errorf("got the shares %v at %s, whose link to web-1 is broken: %t", shares, n.name, n == broken)
		}
	}
	hold(t, longEnough-time.Since(began))
	for _, n := range others {
		if !avoids() || n.agreed(t, "web-1") != "healthy" {
			t.Errorf("got web-1 %s at %s, avoided by %s: %t; want it healthy and avoided", n.agreed(t, "web-1"), n.name, broken.name, avoids())
		}
	}
	world.mend()
	took[1] = eventually(t, patience, "the node uses it again", func() bool { return !avoids() })
	return took
}

// unreachable are the nodes that cannot connect to a backend, by what one of them shows.
func unreachable(v *admin.ClusterView, backend string) (from []string) {
	if v != nil {
		for _, at := range backendIn(v, state.DefaultPool, backend).AtNodes {
			if at.Unreachable {
				from = append(from, at.Node)
			}
		}
	}
	return from
}
