package cluster

import (
	"cmp"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"lbnode/state"
)

func ids(prefix string, n int) []string {
	all := make([]string, n)
	for i := range all {
		all[i] = fmt.Sprintf("%s%04d", prefix, i)
	}
	return all
}

// Every node has about its share of the backends to probe: with 30,000 choices
// over 10 nodes, 3,000 each; five standard deviations are 5·√(30000·0.1·0.9) ≈ 260.
func TestObserversSpreadEvenly(t *testing.T) {
	nodes, load := ids("node", 10), map[string]int{}
	alive := newElectorate(nodes)
	for _, backend := range ids("backend", 10000) {
		chosen := alive.observers(backend)
		if len(chosen) != maxObservers || chosen[0] == chosen[1] || chosen[1] == chosen[2] || chosen[0] == chosen[2] {
			t.Fatalf("got observers %v, want 3 different nodes", chosen)
		}
		for _, node := range chosen {
			load[node]++
		}
	}
	for _, node := range nodes {
		if load[node] < 2740 || load[node] > 3260 {
			t.Errorf("got %d backends for %s, want about 3000", load[node], node)
		}
	}
}

// The observers are the nodes of the highest scores, and the order in which nodes
// are listed does not matter.
func TestObserversScoreHighest(t *testing.T) {
	for size := range 12 {
		nodes := newElectorate(ids("node", size))
		for _, backend := range ids("backend", 50) {
			got := nodes.observers(backend)
			rand.Shuffle(size, func(i, j int) { nodes[i], nodes[j] = nodes[j], nodes[i] })
			if again := nodes.observers(backend); !slices.Equal(got, again) {
				t.Fatalf("got %v and, in another order, %v", got, again)
			}
			all := slices.Clone(nodes)
			slices.SortFunc(all, func(a, b elector) int {
				return cmp.Compare(scatter(hash(backend)+b.hash), scatter(hash(backend)+a.hash))
			})
			for i, e := range all[:min(size, maxObservers)] {
				if got[i] != e.id {
					t.Fatalf("%d nodes, %s: got %v, want %s in place %d", size, backend, got, e.id, i)
				}
			}
		}
	}
}

func TestObserversMoveLittle(t *testing.T) {
	nodes := ids("node", 10)
	without := slices.Delete(slices.Clone(nodes), 4, 5)
	for _, backend := range ids("backend", 1000) {
		before, after := newElectorate(nodes).observers(backend), newElectorate(without).observers(backend)
		for _, node := range before {
			if node != nodes[4] && !slices.Contains(after, node) {
				t.Fatalf("%s lost its observer %s although another node went", backend, node)
			}
		}
	}
}

func TestFewNodesAllObserve(t *testing.T) {
	for n := range 4 {
		if got := len(newElectorate(ids("node", n)).observers("b")); got != n {
			t.Errorf("%d nodes: got %d observers", n, got)
		}
	}
}

func TestMajority(t *testing.T) {
	b := &state.Backend{ID: "b", Protocol: "http", Host: "h", Port: 1}
	up, down := Observation{BackendID: "b", URL: b.URL(), Healthy: true}, Observation{BackendID: "b", URL: b.URL()}
	moved := Observation{BackendID: "b", URL: "http://elsewhere:1", Healthy: true}
	for _, test := range []struct {
		name  string
		seen  []Observation // by node 0, 1, 2; zero for none
		nodes int
		want  state.Health
	}{
		{"all up", []Observation{up, up, up}, 3, state.Healthy},
		{"two of three up", []Observation{up, down, up}, 3, state.Healthy},
		{"two of three down", []Observation{down, up, down}, 3, state.Unhealthy},
		{"one of three", []Observation{down, {}, {}}, 3, ""},
		{"two of three, one silent", []Observation{down, {}, down}, 3, state.Unhealthy},
		{"split", []Observation{down, up, {}}, 3, ""},
		{"two nodes agree", []Observation{down, down}, 2, state.Unhealthy},
		{"two nodes do not", []Observation{down, up}, 2, ""},
		{"one node alone", []Observation{up}, 1, state.Healthy},
		{"an address that it has left", []Observation{moved, moved, up}, 3, ""},
		{"nobody left", nil, 0, ""},
	} {
		nodes, fresh := ids("node", test.nodes), map[string]nodeReport{}
		for i, o := range test.seen {
			if o.BackendID != "" {
				fresh[nodes[i]] = nodeReport{byBackend: map[string]Observation{"b": o}}
			}
		}
		if got := majority(b, nodes, fresh); got != test.want {
			t.Errorf("%s: got %q, want %q", test.name, got, test.want)
		}
	}
}

// Whatever nodes report, a verdict is only given where it changes something and
// more than half of the observers say so.
func TestJudgeNeedsMoreThanHalf(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	for range 500 {
		nodes := ids("node", 1+random.IntN(6))
		machine := state.NewMachine()
		for i, id := range ids("backend", 8) {
			add := &state.AddBackend{Pool: state.DefaultPool, Backend: state.Backend{ID: id, Name: id, Host: "h", Port: 1 + i}}
			data, err := state.Command{ID: id, Op: add}.Encode()
			if err != nil {
				t.Fatal(err)
			}
			if _, err := machine.Apply(uint64(i+1), data); err != nil {
				t.Fatal(err)
			}
		}
		fresh := map[string]nodeReport{}
		view := machine.View()
		for _, node := range nodes {
			report := nodeReport{byBackend: map[string]Observation{}}
			for _, b := range view.Pools[0].Backends {
				if random.IntN(3) > 0 {
					report.byBackend[b.ID] = Observation{BackendID: b.ID, URL: b.URL(), Healthy: random.IntN(2) == 0}
				}
			}
			fresh[node] = report
		}
		for _, v := range judge(view, nodes, fresh, time.Now()) {
			agree, all := 0, newElectorate(nodes).observers(v.BackendID)
			for _, node := range all {
				if o, ok := fresh[node].byBackend[v.BackendID]; ok && o.Healthy == (v.Health == state.Healthy) {
					agree++
				}
			}
			if 2*agree <= len(all) {
				t.Fatalf("verdict %+v although %d of %d observers say so", v, agree, len(all))
			}
		}
	}
}

func TestOldReportsCountForNothing(t *testing.T) {
	const s = time.Second
	type look struct {
		at    time.Duration
		alive string
		want  string // who has reported
	}
	for _, test := range []struct {
		name    string
		reports map[string]time.Duration
		looks   []look
	}{
		{"old ones", map[string]time.Duration{"a": 0, "b": 10 * s}, []look{{15 * s, "a b c", "a b"}, {16 * s, "a b c", "b"}}},
		{"of one who was gone meanwhile", map[string]time.Duration{"a": 0, "b": 0}, []look{{s, "a b", "a b"}, {2 * s, "a", "a"}, {3 * s, "a b", "a"}}},
		{"after this node was stopped", map[string]time.Duration{"a": 0, "b": 11*s + s/2, "c": 13 * s}, []look{{s, "a b c", "a"}, {11 * s, "a b c", ""}, {13 * s, "a b c", "c"}}},
		{"after it was only slow", map[string]time.Duration{"a": 0, "b": s}, []look{{s, "a b c", "a b"}, {6 * s, "a b c", "a b"}}},
	} {
		r, began := newReports(), time.Now()
		given := map[string]bool{}
		for _, look := range test.looks {
			for node, at := range test.reports {
				if at <= look.at && !given[node] {
					given[node] = true
					r.put(observeCall{From: node, Observations: []Observation{{BackendID: "b"}}}, node, began.Add(at))
				}
			}
			fresh := r.fresh(strings.Fields(look.alive), began.Add(look.at))
			if got := strings.Join(slices.Sorted(maps.Keys(fresh)), " "); got != look.want {
				t.Errorf("%s: got the reports of %q after %s, want %q", test.name, got, look.at, look.want)
			}
		}
	}
}
