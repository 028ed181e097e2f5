package main

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"lbnode/cluster"
	"lbnode/cluster/admin"
	"lbnode/state"
)

// keeping are the strategies whose pools keep clients here: one that takes turns, one that
// measures, and one by which a client had a backend anyway.
var keeping = []string{state.RoundRobin, "least_time", state.Hash}

// house is a cluster with a sticky pool for each strategy, of the same three backends, and
// guests at all of them.
type house struct {
	nodes    []*lb
	backends []*process
	pools    []string
	guests   []*guest
	visits   atomic.Int64

	mu   sync.RWMutex // held for reading during a visit
	open []*lb        // where guests connect to
}

// guest is a client that keeps cookies, and makes a connection for each request.
type guest struct {
	client *http.Client
	url    string
	pool   string
	home   string // who is to answer
}

const guestsEach = 60

// openHouse starts nodes and backends and lets the guests come.
func openHouse(t *testing.T, nodes []*lb) *house {
	t.Helper()
	h := &house{nodes: nodes, open: nodes, pools: keeping}
	var backends []admin.BackendSpec
	for i := range 3 {
		p, addr := newBackend(t, fmt.Sprintf("web-%d", i+1))
		p.start()
		h.backends = append(h.backends, p)
		backends = append(backends, admin.BackendSpec{Name: p.name, URL: "http://" + addr})
	}
	startAll(nodes)
	whole(t, nodes)
	check := state.HealthCheck{Interval: state.Duration(time.Second), Timeout: state.Duration(time.Second), Rise: 1, Fall: 3}
	for _, strategy := range h.pools {
		pool := admin.PoolSpec{Name: strategy, Settings: state.Settings{Strategy: strategy, HealthCheck: check, Sticky: state.Sticky{Cookie: "lb"}}, Backends: backends}
		if strategy == state.Hash {
			pool.HashOn = "query:who"
		}
		makePool(t, nodes, pool)
	}
	h.guests = h.arrive(t)
	return h
}

// arrive lets new guests come to all pools, who stay where they are sent.
func (h *house) arrive(t *testing.T) (guests []*guest) {
	t.Helper()
	for _, pool := range h.pools {
		for range guestsEach {
			guests = append(guests, h.newGuest(t, pool))
		}
	}
	h.each(guests, func(g *guest) { g.home = h.visit(t, g) })
	return guests
}

func (h *house) newGuest(t *testing.T, pool string) *guest {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	at := fmt.Sprintf("http://lb/%s?who=%d", pool, rand.Int64())
	return &guest{client: &http.Client{Jar: jar, Timeout: patience}, url: at, pool: pool}
}

// each does something for all guests, some at a time.
func (h *house) each(guests []*guest, do func(*guest)) {
	var visiting sync.WaitGroup
	slots := make(chan struct{}, 8)
	for _, g := range guests {
		slots <- struct{}{}
		visiting.Go(func() {
			defer func() { <-slots }()
			do(g)
		})
	}
	visiting.Wait()
}

// visit sends a request to any node that is open and gives who answered it.
func (h *house) visit(t *testing.T, g *guest) string {
	h.mu.RLock()
	defer h.mu.RUnlock()
	g.client.Transport = &http.Transport{DialContext: (&restLoad{nodes: h.open}).dial, DisableKeepAlives: true}
	name, err := fetch(g.client, g.url)
	if err != nil {
		t.Errorf("%s: %v", g.pool, err)
	}
	h.visits.Add(1)
	return name
}

func (g *guest) cookie() string {
	at, err := url.Parse(g.url)
	if err != nil {
		return ""
	}
	for _, c := range g.client.Jar.Cookies(at) {
		if c.Name == "lb" {
			return c.Value
		}
	}
	return ""
}

// stay lets guests come again: each must find its backend, and gets no other cookie.
func (h *house) stay(t *testing.T, when string, guests []*guest) {
	t.Helper()
	var moved atomic.Int64
	h.each(guests, func(g *guest) {
		before := g.cookie()
		if got := h.visit(t, g); got != g.home || before == "" || g.cookie() != before {
			if moved.Add(1) == 1 {
				t.Errorf("%s, %s: got an answer of %s and cookie %q after %q, want %s and no other", when, g.pool, got, g.cookie(), before, g.home)
			}
		}
	})
	if moved.Load() > 0 {
		t.Errorf("%s: %d of %d guests moved, want 0", when, moved.Load(), len(guests))
	}
}

// move lets all guests of a backend come again: each must find another, from now on its
// own. It says how many there were.
func (h *house) move(t *testing.T, from, when string) int {
	t.Helper()
	var moved atomic.Int64
	h.each(h.guests, func(g *guest) {
		if g.home != from {
			return
		}
		before := g.cookie()
		if g.home = h.visit(t, g); g.home == from || g.cookie() == before {
			t.Errorf("%s, %s: got an answer of %s and cookie %q after %q, want another's", when, g.pool, g.home, g.cookie(), before)
		}
		moved.Add(1)
	})
	if moved.Load() == 0 {
		t.Errorf("%s: nobody was at %s", when, from)
	}
	return int(moved.Load())
}

// spare lets no guest connect to a node, and waits for those that are there.
func (h *house) spare(n *lb) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.open = without(h.open, n)
}

func (h *house) include(n *lb) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.open = append(slices.Clone(h.open), n)
}

// keepComing lets the guests come again and again until what it returns is called.
func (h *house) keepComing(t *testing.T, when string) (stop func()) {
	done := make(chan struct{})
	var coming sync.WaitGroup
	coming.Go(func() {
		for {
			h.stay(t, when, h.guests)
			select {
			case <-done:
				return
			default:
			}
		}
	})
	return func() { close(done); coming.Wait() }
}

// set changes a backend in all pools, and waits until all nodes know.
func (h *house) set(t *testing.T, backend string, to state.Admin) {
	t.Helper()
	for _, pool := range h.pools {
		insist(t, "the change is made", func() error {
			_, _, err := h.nodes[0].client.UpdateBackend(t.Context(), pool, backend, admin.BackendSpec{Admin: to})
			return err
		})
	}
	agree(t, h.nodes)
}

// homes says how many guests have a backend.
func homes(guests []*guest, backend string) (n int) {
	for _, g := range guests {
		if g.home == backend {
			n++
		}
	}
	return n
}

// everyNode lets each guest come to each of the nodes.
func (h *house) everyNode(t *testing.T, when string) {
	t.Helper()
	all := h.open
	for _, n := range all {
		h.open = []*lb{n}
		h.stay(t, when+", at "+n.name, h.guests)
	}
	h.open = all
}

// busiest is the backend that has most guests: strategies that measure send few to others.
func (h *house) busiest() string {
	return slices.MaxFunc(h.backends, func(a, b *process) int { return homes(h.guests, a.name) - homes(h.guests, b.name) }).name
}

// Every node knows the cookies that the others have set, with a secret or without, and so
// does one that joins and has not heard of a change since.
func TestStickyAtEveryNode(t *testing.T) {
	t.Parallel()
	for _, secret := range []bool{false, true} {
		t.Run(fmt.Sprintf("secret %v", secret), func(t *testing.T) {
			t.Parallel()
			var more []string
			if secret {
				more = []string{"-secret", newSecret(t)}
			}
			h := openHouse(t, newLBs(t, 3, more...))
			h.everyNode(t, "all are there")
			late := loneLB(t, "lb4", append(more, "-join", own(h.nodes[0].view()).Addr)...)
			late.start()
			whole(t, append(slices.Clone(h.nodes), late))
			h.open = []*lb{late}
			h.stay(t, "at a node that has just joined", h.guests)
			h.refuseForeign(t)
		})
	}
}

// refuseForeign comes with cookies that name nobody, or are another pool's.
func (h *house) refuseForeign(t *testing.T) {
	t.Helper()
	id, _, _ := strings.Cut(h.guests[0].cookie(), ".")
	other := h.guests[len(h.guests)-1]
	for what, value := range map[string]string{"no signature": id, "a wrong one": id + "." + strings.Repeat("A", 22), "another pool's": other.cookie()} {
		seen := map[string]bool{}
		for range 9 {
			g := h.newGuest(t, state.RoundRobin)
			at, err := url.Parse(g.url)
			if err != nil {
				t.Fatal(err)
			}
			g.client.Jar.SetCookies(at, []*http.Cookie{{Name: "lb", Value: value, Path: "/"}})
			g.home = h.visit(t, g)
			if g.cookie() == value {
				t.Errorf("%s: the cookie %q is not replaced", what, value)
			}
			h.stay(t, "after "+what, []*guest{g})
			seen[g.home] = true
		}
		if len(seen) == 1 {
			t.Errorf("%s: all 9 guests were sent to %v", what, seen)
		}
	}
}

// Each node in turn is killed, the leader among them, and comes back.
func TestStickyThroughLossOfNodes(t *testing.T) {
	t.Parallel()
	h := openHouse(t, newLBs(t, 3))
	for range amount(1, 20) {
		first, others := roles(t, h.nodes)
		for _, victim := range append(others, first) {
			h.spare(victim) // who is there when it dies has no answer
			stop := h.keepComing(t, victim.name+" is killed")
			victim.kill()
			rest := without(h.nodes, victim)
			eventually(t, patience, "the survivors have a leader", func() bool {
				return every(rest, func(n *lb) bool { v := n.view(); return v != nil && v.Leader != "" && v.Leader != victim.name })
			})
			victim.start()
			whole(t, h.nodes)
			stop()
			h.include(victim)
			h.everyNode(t, victim.name+" is back")
		}
	}
	t.Logf("%d visits", h.visits.Load())
}

// All nodes are told to stop and started again, one by one.
func TestStickyThroughRollingRestart(t *testing.T) {
	t.Parallel()
	h := openHouse(t, newLBs(t, 3, "-lame-duck", "1s"))
	stop := h.keepComing(t, "nodes restart")
	for range amount(1, 20) {
		for _, n := range h.nodes {
			n.signal(syscall.SIGTERM)
			if code, out := n.exit(patience); code != 0 {
				t.Errorf("%s ended with %d: %s", n.name, code, out)
			}
			n.start()
			whole(t, h.nodes)
		}
	}
	stop()
	h.everyNode(t, "all have restarted")
	t.Logf("%d visits", h.visits.Load())
}

// A drained backend keeps its guests and gets no new ones. With "drain": "move" its guests
// move once. Nobody comes back when it is ready again.
func TestStickyThroughDrains(t *testing.T) {
	t.Parallel()
	h := openHouse(t, newLBs(t, 3))
	for range amount(1, 30) {
		drained := h.busiest()
		h.set(t, drained, state.Drain)
		h.everyNode(t, "one is drained")
		if n := homes(h.arrive(t), drained); n > 0 {
			t.Errorf("%d new guests came to a drained backend, want 0", n)
		}
		h.drainBy(t, state.StickyMove)
		moved := h.move(t, drained, "it is to move its guests")
		h.everyNode(t, "they have moved")
		h.set(t, drained, state.Ready)
		h.everyNode(t, "it is ready again")
		h.drainBy(t, state.StickyStay)
		t.Logf("%d of %d guests moved once from a drained backend", moved, len(h.guests))
		h.guests = h.arrive(t)
	}
}

// drainBy says what becomes of the guests of drained backends.
func (h *house) drainBy(t *testing.T, what string) {
	t.Helper()
	for _, pool := range h.pools {
		insist(t, "the change is made", func() error {
			_, err := h.nodes[0].client.UpdatePool(t.Context(), pool, admin.PoolSpec{Settings: state.Settings{Sticky: state.Sticky{Cookie: "lb", Drain: what}}})
			return err
		})
	}
	agree(t, h.nodes)
}

// A backend in maintenance, or dead, loses its guests to others for good.
func TestStickyThroughLossOfBackends(t *testing.T) {
	t.Parallel()
	h := openHouse(t, newLBs(t, 3))
	for range amount(1, 6) { // more, and those that die often would not be trusted for minutes
		lost := h.busiest()
		h.set(t, lost, state.Maint)
		inMaint := h.move(t, lost, "it is in maintenance")
		h.everyNode(t, "they have moved")
		h.set(t, lost, state.Ready)
		h.everyNode(t, "it is ready again")
		h.guests = h.arrive(t)

		lost = h.busiest()
		victim := h.backends[slices.IndexFunc(h.backends, func(p *process) bool { return p.name == lost })]
		victim.kill()
		dead := h.move(t, lost, "it is dead, and nobody knows")
		h.everyNode(t, "they have moved")
		for _, pool := range h.pools {
			waitHealth(t, h.nodes, pool, lost, state.Unhealthy)
		}
		h.everyNode(t, "all know")
		victim.start()
		for _, pool := range h.pools {
			waitHealth(t, h.nodes, pool, lost, state.Healthy)
		}
		h.everyNode(t, "it is back")
		t.Logf("%d guests moved once from a backend in maintenance, %d from a dead one, of %d", inMaint, dead, len(h.guests))
		h.guests = h.arrive(t)
	}
}

// Secrets are exchanged while guests come. They keep their backends, and each gets its one
// new cookie.
func TestStickyThroughExchangeOfSecrets(t *testing.T) {
	t.Parallel()
	nodes := newLBs(t, 3)
	before, after := cluster.GenerateSecret(), cluster.GenerateSecret()
	files := secretFiles(t, nodes, before)
	h := openHouse(t, nodes)
	rotate(t, nodes, files, before+"\n"+after+"\n")
	h.everyNode(t, "the new secret is known")
	rotate(t, nodes, files, after+"\n"+before+"\n")
	h.each(h.guests, func(g *guest) {
		old := g.cookie()
		if got := h.visit(t, g); got != g.home || g.cookie() == old {
			t.Errorf("%s: got an answer of %s and cookie %q, want %s and one by the new secret", g.pool, got, g.cookie(), g.home)
		}
	})
	h.everyNode(t, "the new secret comes first")
	rotate(t, nodes, files, after+"\n")
	h.everyNode(t, "the old secret is gone")
	t.Logf("%d visits", h.visits.Load())
}
