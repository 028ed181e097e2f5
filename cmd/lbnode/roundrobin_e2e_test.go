package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"lbnode/cluster/admin"
	"lbnode/state"
)

// calm are probes by which a crowded machine is no reason to judge a backend unhealthy:
// what is counted here would not be what it seems.
var calm = state.HealthCheck{Interval: state.Duration(2 * time.Second), Timeout: state.Duration(2 * time.Second), Fall: 15}

// makePool makes a pool, and a route to it by its name, and waits until all nodes send
// its backends requests.
func makePool(t *testing.T, nodes []*lb, pool admin.PoolSpec) {
	t.Helper()
	client := nodes[0].client
	insist(t, "the pool is made", func() error { _, err := client.CreatePool(t.Context(), pool); return err })
	insist(t, "the route is made", func() error {
		_, err := client.PutRoute(t.Context(), admin.Route{Path: "/" + pool.Name, Pool: pool.Name})
		return err
	})
	for _, b := range pool.Backends {
		waitHealth(t, nodes, pool.Name, b.Name, state.Healthy)
	}
}

func waitHealth(t *testing.T, nodes []*lb, pool, backend string, want state.Health) {
	t.Helper()
	eventually(t, patience, backend+" is "+string(want)+" on every node", func() bool {
		return every(nodes, func(n *lb) bool {
			v := n.view()
			b := (*admin.ClusterBackend)(nil)
			if v != nil {
				b = backendIn(v, pool, backend)
			}
			return b != nil && b.Health == want
		})
	})
}

// agree waits until all nodes serve what the first of them does.
func agree(t *testing.T, nodes []*lb) {
	t.Helper()
	eventually(t, patience, "all nodes have one view", func() bool {
		want := nodes[0].digest()
		return want != "" && every(nodes, func(n *lb) bool { return n.digest() == want })
	})
}

// locals are backends within the test, of these weights: web-1, web-2...
func locals(t *testing.T, weights ...int) (backends []admin.BackendSpec) {
	for i, w := range weights {
		name := fmt.Sprintf("web-%d", i+1)
		backends = append(backends, admin.BackendSpec{Name: name, URL: localBackend(t, name), Weight: w})
	}
	return backends
}

// shares is who gets how much of a pool's traffic while that stays the same.
type shares map[string]int

func (s shares) of(name string, requests int) float64 {
	total := 0
	for _, w := range s {
		total += w
	}
	return float64(requests*s[name]) / float64(total)
}

// slack is how far from its share a backend may be after so many requests: not at all after
// whole turns, and else by one. With weights it is by less than two: there are weights, such
// as 4, 3 and 2, that no order spreads better over each stretch of requests.
func (s shares) slack(requests int) float64 {
	turn, unit := 0, 0
	for w := range maps.Values(s) {
		turn += w
		for a := w; a != 0; {
			unit, a = a, unit%a
		}
	}
	switch {
	case requests%(turn/unit) == 0:
		return 0
	case turn == unit*len(s):
		return 1
	}
	return 2
}

// tally compares what each node sends to each backend with its share, period by period.
type tally struct {
	path    string
	periods int
	worst   float64                       // difference in a period
	sum     map[string]map[string]float64 // of the differences, by node and backend
}

func newTally(path string) *tally { return &tally{path: path, sum: map[string]map[string]float64{}} }

// sendTo sends the node requests by that many clients at a time and counts who answers.
func sendTo(t *testing.T, n *lb, path string, clients, each int) shares {
	t.Helper()
	got, mu, sending := shares{}, sync.Mutex{}, sync.WaitGroup{}
	for range clients {
		sending.Go(func() {
			client := &http.Client{Transport: &http.Transport{}, Timeout: patience}
			defer client.CloseIdleConnections()
			for range each {
				name, err := fetch(client, "http://"+n.http+path)
				if err != nil {
					t.Errorf("%s: %v", n.name, err)
					return
				}
				mu.Lock()
				got[name]++
				mu.Unlock()
			}
		})
	}
	sending.Wait()
	return got
}

// period asks all nodes at once. Each must keep to the shares, give or take one request.
func (ta *tally) period(t *testing.T, what string, nodes []*lb, want shares, clients, each int) {
	t.Helper()
	var mu sync.Mutex
	var asking sync.WaitGroup
	for _, n := range nodes {
		asking.Go(func() {
			got := sendTo(t, n, ta.path, clients, each)
			mu.Lock()
			defer mu.Unlock()
			ta.compare(t, what, n.name, got, want, clients*each)
		})
	}
	asking.Wait()
}

func (ta *tally) compare(t *testing.T, what, node string, got, want shares, requests int) {
	t.Helper()
	if ta.sum[node] == nil {
		ta.sum[node] = map[string]float64{}
	}
	ta.periods++
	for name := range maps.Keys(want) {
		off := float64(got[name]) - want.of(name, requests)
		ta.sum[node][name] += off
		ta.worst = max(ta.worst, math.Abs(off))
		if slack := want.slack(requests); math.Abs(off) > slack {
			t.Errorf("%s, %s, %s: got %d of %d requests on %s, want %.2f ± %g", ta.path, what, node, got[name], requests, name, want.of(name, requests), slack)
		}
	}
	for name, n := range got {
		if want[name] == 0 {
			t.Errorf("%s, %s, %s: got %d requests on %s, want none", ta.path, what, node, n, name)
		}
	}
}

// conclude checks that the differences do not add up. If each period began with the first
// backend, they would: by half a request each, or so. Chance gives half a request, too, but
// to either side, and four times what is usual is left to it.
func (ta *tally) conclude(t *testing.T) {
	t.Helper()
	most := 0.0
	for node, sums := range ta.sum {
		bound := 2 * math.Sqrt(float64(ta.periods)/float64(len(ta.sum)))
		for name, sum := range sums {
			most = max(most, math.Abs(sum))
			if math.Abs(sum) > bound+1 {
				t.Errorf("%s, %s: %s got %+.1f requests more than its share, want ± %.1f", ta.path, node, name, sum, bound+1)
			}
		}
	}
	t.Logf("%s: %d periods, %.2f requests from the share in the worst of them, %.1f in their sum", ta.path, ta.periods, ta.worst, most)
}

// event is something that happens between two periods.
type event struct {
	name string
	do   func(pool string) error
	then func(shares)
}

// Requests are shared out to ± 1 by each node (see shares.slack), whatever changes, and
// changes begin no new round. Between periods the nodes are waited for, so that it is known who is eligible.
func TestRoundRobinIsExact(t *testing.T) {
	t.Parallel()
	nodes := newLBs(t, 3)
	startAll(nodes)
	whole(t, nodes)
	client, ctx := nodes[0].client, t.Context()
	extra := localBackend(t, "web-4")
	set := func(name string, to admin.BackendSpec) func(string) error {
		return func(pool string) error { _, _, err := client.UpdateBackend(ctx, pool, name, to); return err }
	}
	changes := []event{
		{"nothing", func(string) error { return nil }, func(shares) {}},
		{"another route", func(pool string) error {
			_, err := client.PutRoute(ctx, admin.Route{Host: fmt.Sprintf("h%d.example", rand.Int64()), Pool: pool})
			return err
		}, func(shares) {}},
		{"another pool", func(string) error {
			_, err := client.CreatePool(ctx, admin.PoolSpec{Name: fmt.Sprintf("p%d", rand.Int64())})
			return err
		}, func(shares) {}},
		{"one more", func(pool string) error {
			_, err := client.AddBackend(ctx, pool, admin.BackendSpec{Name: "web-4", URL: extra})
			return err
		}, func(s shares) { s["web-4"] = 1 }},
		{"drained", set("web-2", admin.BackendSpec{Admin: state.Drain}), func(s shares) { s["web-2"] = -s["web-2"] }},
		{"ready", set("web-2", admin.BackendSpec{Admin: state.Ready}), func(s shares) { s["web-2"] = -s["web-2"] }},
		{"heavier", set("web-3", admin.BackendSpec{Weight: 2}), func(s shares) { s["web-3"] = 2 }},
		{"as before", set("web-3", admin.BackendSpec{Weight: 1}), func(s shares) { s["web-3"] = 1 }},
		{"one less", func(pool string) error {
			err, problem := client.RemoveBackend(ctx, pool, "web-4"), (*admin.Problem)(nil)
			if errors.As(err, &problem) && problem.Status == http.StatusNotFound { // it was done before
				return nil
			}
			return err
		}, func(s shares) { delete(s, "web-4") }},
	}
	for name, weights := range map[string][]int{"even": {1, 1, 1}, "weighted": {3, 2, 1}} {
		makePool(t, nodes, admin.PoolSpec{Name: name, Settings: state.Settings{HealthCheck: calm}, Backends: locals(t, weights...)})
		want := shares{"web-1": weights[0], "web-2": weights[1], "web-3": weights[2]}
		ta := newTally("/" + name)
		for range amount(1, 50) {
			for _, c := range changes {
				insist(t, c.name, func() error { return c.do(name) })
				c.then(want)
				if want["web-4"] > 0 {
					waitHealth(t, nodes, name, "web-4", state.Healthy)
				}
				agree(t, nodes)
				eligible := maps.Clone(want)
				maps.DeleteFunc(eligible, func(_ string, w int) bool { return w < 0 })
				ta.period(t, c.name+", in sequence", nodes, eligible, 1, 1+rand.IntN(20))
				ta.period(t, c.name+", at once", nodes, eligible, 4, 1+rand.IntN(20))
				ta.period(t, c.name+", whole turns", nodes, eligible, 4, len(eligible)*14) // of 2 to 8 requests
			}
		}
		ta.conclude(t)
	}
	shortPeriods(t, nodes[1])
}

// shortPeriods sends the node one request or two at a time, with a change before each.
func shortPeriods(t *testing.T, n *lb) {
	ta, want := newTally("/even"), shares{"web-1": 1, "web-2": 1, "web-3": 1}
	for i := range amount(60, 2000) {
		to := admin.BackendSpec{Admin: state.Drain}
		delete(want, "web-3")
		if i%2 == 1 {
			to.Admin, want["web-3"] = state.Ready, 1
		}
		// The node answers once it has applied it.
		insist(t, "the change is made", func() error { _, _, err := n.client.UpdateBackend(t.Context(), "even", "web-3", to); return err })
		ta.period(t, "a short period", []*lb{n}, want, 1, 1+rand.IntN(2))
	}
	ta.conclude(t)
}

// A backend that dies, and one that comes back.
func TestRoundRobinThroughHealth(t *testing.T) {
	t.Parallel()
	nodes := newLBs(t, 3)
	startAll(nodes)
	backend, addr := newBackend(t, "web-3")
	backend.start()
	whole(t, nodes)
	check := state.HealthCheck{Interval: state.Duration(time.Second), Timeout: state.Duration(time.Second), Rise: 1, Fall: 3}
	ta := newTally("")
	for i := range amount(1, 20) { // each with a pool of its own: a backend that dies often is not trusted for a while
		name := fmt.Sprint("even", i)
		makePool(t, nodes, admin.PoolSpec{Name: name, Settings: state.Settings{HealthCheck: check}, Backends: append(locals(t, 1, 1), admin.BackendSpec{Name: "web-3", URL: "http://" + addr})})
		ta.path = "/" + name
		ta.period(t, "all are well", nodes, shares{"web-1": 1, "web-2": 1, "web-3": 1}, 4, 1+rand.IntN(20))
		backend.kill()
		waitHealth(t, nodes, name, "web-3", state.Unhealthy)
		ta.period(t, "one is dead", nodes, shares{"web-1": 1, "web-2": 1}, 4, 1+rand.IntN(20))
		backend.start()
		waitHealth(t, nodes, name, "web-3", state.Healthy)
		// A node whose own probe is due yet goes by the last one, and by no other's.
		eventually(t, patience, "all nodes send it requests", func() bool {
			return every(nodes, func(n *lb) bool { return sendTo(t, n, ta.path, 1, 3)["web-3"] > 0 })
		})
		ta.period(t, "all are well again", nodes, shares{"web-1": 1, "web-2": 1, "web-3": 1}, 4, 1+rand.IntN(20))
	}
	ta.conclude(t)
}

// inTurn sends the node one request after the other until ctx is done, and gives who
// answered, in order.
func inTurn(ctx context.Context, t *testing.T, n *lb, path string) (names []string) {
	client := &http.Client{Transport: &http.Transport{}, Timeout: patience}
	defer client.CloseIdleConnections()
	for ctx.Err() == nil {
		name, err := fetch(client, "http://"+n.http+path)
		if err != nil {
			t.Errorf("%s: %v", n.name, err)
			return names
		}
		names = append(names, name)
	}
	return names
}

// The leader dies, another is elected, unrelated things are written, the dead one comes
// back: none of it makes a node miss a turn.
func TestRoundRobinThroughReelection(t *testing.T) {
	t.Parallel()
	nodes := newLBs(t, 3)
	startAll(nodes)
	whole(t, nodes)
	makePool(t, nodes, admin.PoolSpec{Name: "even", Settings: state.Settings{HealthCheck: calm}, Backends: locals(t, 1, 1, 1)})
	even := shares{"web-1": 1, "web-2": 1, "web-3": 1}
	for range amount(1, 30) {
		lead, rest := roles(t, nodes)
		ctx, stop := context.WithCancel(t.Context())
		streams, streaming := make([][]string, len(rest)), sync.WaitGroup{}
		for i, n := range rest {
			streaming.Go(func() { streams[i] = inTurn(ctx, t, n, "/even") })
		}
		lead.kill()
		eventually(t, patience, "the survivors have a leader", func() bool {
			return every(rest, func(n *lb) bool { v := n.view(); return v != nil && v.Leader != "" && v.Leader != lead.name })
		})
		insist(t, "an unrelated write", func() error {
			_, err := rest[0].client.PutRoute(t.Context(), admin.Route{Host: fmt.Sprintf("h%d.example", rand.Int64()), Pool: "even"})
			return err
		})
		lead.start()
		whole(t, nodes)
		stop()
		streaming.Wait()
		for i, n := range rest {
			checkTurns(t, n.name, streams[i], even)
		}
		ta := newTally("/even")
		ta.period(t, "one has come back", nodes, even, 4, 1+rand.IntN(20))
	}
}

// checkTurns wants each answer to come from who is next to the one before.
func checkTurns(t *testing.T, node string, names []string, all shares) {
	t.Helper()
	order, missed := slices.Sorted(maps.Keys(all)), 0
	for i := 1; i < len(names); i++ {
		if after := (slices.Index(order, names[i-1]) + 1) % len(order); names[i] != order[after] {
			missed++
		}
	}
	if missed > 0 || len(names) < 100 {
		t.Errorf("%s: got %d of %d answers out of turn, want 0 of some hundreds", node, missed, len(names))
	}
	got := shares{}
	for _, name := range names {
		got[name]++
	}
	newTally("/even").compare(t, "a stream through it all", node, got, all, len(names))
	t.Logf("%s: %v of %d requests, %d out of turn", node, got, len(names), missed)
}
