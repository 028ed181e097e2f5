package cluster

import (
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"lbnode/state"
)

// flapping returns a view with a backend that has become unhealthy the given number of
// times in a row, and the backend. There is another one, which is healthy.
func flapping(t *testing.T, falls int) (*state.View, *state.Backend) {
	t.Helper()
	machine := state.NewMachine()
	b := &state.Backend{ID: "b", Name: "b", Protocol: "http", Host: "h", Port: 1}
	other := &state.Backend{ID: "other", Name: "other", Protocol: "http", Host: "h", Port: 2}
	ops := []state.Op{
		&state.AddBackend{Pool: state.DefaultPool, Backend: *b},
		&state.AddBackend{Pool: state.DefaultPool, Backend: *other},
		&state.SetHealth{Verdicts: []state.Verdict{{BackendID: other.ID, URL: other.URL(), Health: state.Healthy}}},
	}
	for _, health := range []state.Health{state.Healthy, state.Unhealthy} {
		ops = append(ops, &state.SetHealth{Verdicts: []state.Verdict{{BackendID: b.ID, URL: b.URL(), Health: health, Falls: falls}}})
	}
	for i, op := range ops {
		data, err := state.Command{ID: NewID(), At: time.Now().UnixMilli(), Op: op}.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if result, err := machine.Apply(uint64(i+1), data); err != nil || result.Err != nil {
			t.Fatal(err, result.Err)
		}
	}
	return machine.View(), machine.View().Pools[0].Backend("b")
}

// A backend that flaps is healthy again once a majority has found it so for long
// enough, by the time that each observer says and the time since it said so.
func TestFlappingBackendIsHeld(t *testing.T) {
	const s = time.Second
	for _, test := range []struct {
		name   string
		falls  int
		steady []time.Duration // of nodes 0, 1, 2 that find it healthy; negative: unhealthy
		age    time.Duration   // of their reports
		want   bool
	}{
		{"it does not flap", 2, []time.Duration{0, 0, -1}, 0, true},
		{"all too short", 3, []time.Duration{9 * s, 9 * s, 9 * s}, 0, false},
		{"one long enough", 3, []time.Duration{60 * s, 9 * s, 9 * s}, 0, false},
		{"two long enough", 3, []time.Duration{60 * s, 9 * s, 10 * s}, 0, true},
		{"long enough with what has passed since", 3, []time.Duration{8 * s, 7 * s, -1}, 3 * s, true},
		{"only one finds it healthy", 3, []time.Duration{60 * s, -1, -1}, 0, false},
		{"two, one of them too short", 3, []time.Duration{60 * s, 9 * s, -1}, 0, false},
		{"longer with more falls", 5, []time.Duration{39 * s, 39 * s, 39 * s}, 0, false},
		{"and no longer", 5, []time.Duration{40 * s, 40 * s, 39 * s}, 0, true},
	} {
		view, b := flapping(t, test.falls)
		now, nodes, fresh := time.Now(), ids("node", 3), map[string]nodeReport{}
		for i, steady := range test.steady {
			o := Observation{BackendID: b.ID, URL: b.URL(), Healthy: steady >= 0, Steady: steady}
			fresh[nodes[i]] = nodeReport{received: now.Add(-test.age), byBackend: map[string]Observation{b.ID: o}}
		}
		verdicts := judge(view, nodes, fresh, now)
		if got := len(verdicts) == 1 && verdicts[0].Health == state.Healthy; got != test.want {
			t.Errorf("%s: got verdicts %+v, want it healthy: %t", test.name, verdicts, test.want)
		}
	}
}

// Nothing is held in a pool in which nothing else serves: what flaps is better than
// nothing, and all that flap share it.
func TestNothingIsHeldWhereNothingServes(t *testing.T) {
	flaps := state.Backend{ID: "b", Protocol: "http", Host: "h", Port: 1, Admin: state.Ready, Health: state.Unhealthy, Falls: 8}
	with := func(change func(b *state.Backend)) state.Backend {
		b := flaps
		b.ID, b.Port = "other", 2
		change(&b)
		return b
	}
	for _, test := range []struct {
		name  string
		other state.Backend
		want  string // who is found healthy
	}{
		{"another serves", with(func(b *state.Backend) { b.Health = state.Healthy }), ""},
		{"another flaps, too", with(func(*state.Backend) {}), "b other"},
		{"another is drained", with(func(b *state.Backend) { b.Health, b.Admin = state.Healthy, state.Drain }), "b"},
		{"another's agent drains it", with(func(b *state.Backend) { b.Health, b.Agent.Admin = state.Healthy, state.Drain }), "b"},
		{"another is starting", with(func(b *state.Backend) { b.Health, b.Falls = state.Starting, 0 }), "b other"},
	} {
		view, now, nodes, fresh := state.EmptyView(), time.Now(), ids("node", 3), map[string]nodeReport{}
		view.Pools = []*state.Pool{{Name: "web", Backends: []*state.Backend{&flaps, &test.other}}}
		for _, node := range nodes {
			report := nodeReport{received: now, byBackend: map[string]Observation{}}
			for _, b := range view.Pools[0].Backends {
				report.byBackend[b.ID] = Observation{BackendID: b.ID, URL: b.URL(), Healthy: true}
			}
			fresh[node] = report
		}
		var got []string
		for _, v := range judge(view, nodes, fresh, now) {
			if v.Health == state.Healthy {
				got = append(got, v.BackendID)
			}
		}
		if strings.Join(got, " ") != test.want {
			t.Errorf("%s: got %v healthy, want %s", test.name, got, test.want)
		}
	}
}

// Three nodes agree on a backend that falls and rises: why it fell is on all of them,
// and after the third fall it is held, by the next leader, too.
func TestVerdictsSayWhyAndHowOften(t *testing.T) {
	t.Parallel()
	nodes := startCluster(t, 3, nil)
	propose(t, nodes[0], addBackend("web-1", 3001))
	propose(t, nodes[0], addBackend("web-2", 3002)) // serves, or nothing would be held
	agreed := func(health state.Health, falls int) *state.Backend {
		t.Helper()
		for _, n := range nodes {
			eventually(t, waitLong, "all agree on the health", func() bool {
				b := n.View().Pool(state.DefaultPool).Backend("web-1")
				return b.Health == health && b.Falls == falls
			})
		}
		return nodes[0].View().Pool(state.DefaultPool).Backend("web-1")
	}
	eventually(t, waitLong, "all have the backends", func() bool {
		return !slices.ContainsFunc(nodes, func(n *node) bool {
			pool := n.View().Pool(state.DefaultPool)
			return pool == nil || len(pool.Backends) < 2
		})
	})
	b, other := nodes[0].View().Pool(state.DefaultPool).Backend("web-1"), nodes[0].View().Pool(state.DefaultPool).Backend("web-2")
	for _, n := range nodes {
		n.observeAs(Observation{BackendID: other.ID, URL: other.URL(), Healthy: true, At: time.Now()})
	}
	// A report that comes after the next word of the others would make one fall more.
	say := func(healthy bool, reason string, steady time.Duration) {
		t.Helper()
		for _, n := range nodes {
			n.observeAs(Observation{BackendID: b.ID, URL: b.URL(), Healthy: healthy, Reason: reason, Steady: steady, At: time.Now()})
		}
		eventually(t, waitLong, "a leader has heard all", func() bool {
			return slices.ContainsFunc(nodes, func(n *node) bool {
				heard := 0
				for _, report := range n.observers.fresh(n.aliveIDs(), time.Now()) {
					if o := report.byBackend[b.ID]; o.BackendID == b.ID && o.Healthy == healthy && o.Steady == steady {
						heard++
					}
				}
				return heard == len(nodes)
			})
		})
	}
	say(true, "200 OK", 0)
	agreed(state.Healthy, 0)
	for falls := 1; falls <= 3; falls++ {
		say(false, "503 Service Unavailable in 12 ms", 0)
		got := agreed(state.Unhealthy, falls)
		name, what, _ := strings.Cut(got.Reason, ": ")
		if !strings.HasPrefix(name, "lb") || what != "503 Service Unavailable in 12 ms" {
			t.Errorf("fall %d: got reason %q, want a node and what it found", falls, got.Reason)
		}
		if falls < 3 {
			say(true, "200 OK", 0)
			if got := agreed(state.Healthy, falls); got.Reason != "" {
				t.Errorf("got reason %q of a healthy backend, want none", got.Reason)
			}
		}
	}
	for range 2 {
		index := nodes[0].View().Index
		say(true, "200 OK", time.Second)
		if got := agreed(state.Unhealthy, 3); nodes[0].View().Index != index || got.Hold() != 10*time.Second {
			t.Errorf("got %+v at %d, want it held for 10s and no other view than %d", got, nodes[0].View().Index, index)
		}
		if len(nodes) == 3 {
			leader, _ := nodes[0].leader()
			at := slices.IndexFunc(nodes, func(n *node) bool { return n.id.nodeID() == leader })
			nodes[at].Stop()
			nodes = slices.Delete(slices.Clone(nodes), at, at+1)
		}
	}
	say(true, "200 OK", 10*time.Second)
	agreed(state.Healthy, 3)
}

// While a member is of an older version, verdicts come without what it does not know.
func TestVerdictsArePlainForOlderMembers(t *testing.T) {
	t.Parallel()
	nodes := startCluster(t, 3, nil)
	propose(t, nodes[0], addBackend("web-1", 3001))
	if err := nodes[2].gossip.tell(func(m *meta) { m.Commands = 3 }); err != nil {
		t.Fatal(err)
	}
	waitUnderstands(t, nodes, nodes[2], 3)
	b := nodes[0].View().Pool(state.DefaultPool).Backend("web-1")
	for _, n := range nodes {
		n.observeAs(Observation{BackendID: b.ID, URL: b.URL(), Reason: "connection refused", At: time.Now()})
	}
	eventually(t, waitLong, "the verdict is committed", func() bool {
		return nodes[0].View().Pool(state.DefaultPool).Backend("web-1").Health == state.Unhealthy
	})
	if got := nodes[0].View().Pool(state.DefaultPool).Backend("web-1"); got.Reason != "" || nodes[0].fsm.version() != 1 {
		t.Errorf("got reason %q and a log of version %d, want a plain verdict of version 1", got.Reason, nodes[0].fsm.version())
	}
}

func TestPlainVerdicts(t *testing.T) {
	got := plain([]state.Verdict{
		{BackendID: "1", URL: "u", Health: state.Unhealthy, Reason: "x", Falls: 3, Agent: &state.Wish{Admin: state.Drain}},
		{BackendID: "2", URL: "u", Agent: &state.Wish{Admin: state.Drain}},
	})
	if want := (state.Verdict{BackendID: "1", URL: "u", Health: state.Unhealthy}); len(got) != 1 || got[0] != want {
		t.Errorf("got %+v, want %+v alone", got, want)
	}
}

func TestClipReason(t *testing.T) {
	long := strings.Repeat("é", 100)
	for text, want := range map[string]string{
		"lb1: timeout after 1s": "lb1: timeout after 1s",
		"a\r\nb\x00\x7f":        "a  b  ",
		"\xff":                  "?",
		long:                    long[:116] + "…",
		"x" + long:              "x" + long[:116] + "…",
	} {
		got := clipReason(text)
		if got != want || len(got) > state.MaxReason || !utf8.ValidString(got) {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
	}
}

// A majority must say that an agent asks for at least what is agreed, and one that it
// asks for no more.
func TestAgreedWish(t *testing.T) {
	const none = "none"
	had := state.Wish{Admin: state.Drain, Weight: "70%"}
	wish := func(admin state.Admin, weight string) state.Wish { return state.Wish{Admin: admin, Weight: weight} }
	for _, test := range []struct {
		name string
		said []state.Wish // by node 0, 1, 2; weight none for no report
		want state.Wish
	}{
		{"all alike", []state.Wish{wish("", "50%"), wish("", "50%"), wish("", "50%")}, wish("", "50%")},
		{"loads that differ", []state.Wish{wish("drain", "50%"), wish("drain", "53%"), wish("drain", "40%")}, wish("drain", "50%")},
		{"two of three ask for maint", []state.Wish{wish("maint", "70%"), wish("", "70%"), wish("maint", "70%")}, wish("maint", "70%")},
		{"one of three", []state.Wish{wish("drain", "70%"), wish("", "70%"), wish("drain", "70%")}, had},
		{"each another state", []state.Wish{wish("", ""), wish("drain", ""), wish("maint", "")}, wish("drain", "")},
		{"two alike, one silent", []state.Wish{wish("", ""), wish("", none), wish("", "")}, wish("", "")},
		{"two that differ, one silent", []state.Wish{wish("", "50%"), wish("", none), wish("drain", "51%")}, had},
		{"one alone", []state.Wish{wish("", "50%"), wish("", none), wish("", none)}, had},
		{"nobody", []state.Wish{wish("", none), wish("", none), wish("", none)}, had},
	} {
		b := &state.Backend{ID: "b", Protocol: "http", Host: "h", Port: 1, Agent: had}
		nodes, fresh := ids("node", 3), map[string]nodeReport{}
		for i, said := range test.said {
			if said.Weight != none {
				o := Observation{BackendID: b.ID, URL: b.URL(), Agent: said}
				fresh[nodes[i]] = nodeReport{byBackend: map[string]Observation{b.ID: o}}
			}
		}
		got := agreedWish(b, nodes, fresh)
		if got == nil {
			got = &had
		} else if *got == had {
			t.Errorf("%s: got a wish that changes nothing", test.name)
		}
		if *got != test.want {
			t.Errorf("%s: got %+v, want %+v", test.name, *got, test.want)
		}
	}
}

// What agents ask for is agreed on beside the health, or alone.
func TestAgentsWishIsAgreedOn(t *testing.T) {
	t.Parallel()
	nodes := startCluster(t, 3, nil)
	pool := state.Pool{Name: "web", Settings: state.Settings{HealthCheck: state.HealthCheck{Type: state.CheckAgent, Port: 81}}}
	pool.Backends = []*state.Backend{&addBackend("web-1", 3001).Backend}
	propose(t, nodes[0], &state.CreatePool{Pool: pool})
	b := nodes[0].View().Pool("web").Backend("web-1")
	for _, wish := range []state.Wish{{}, {Admin: state.Drain}, {Admin: state.Drain, Weight: "50%"}, {Weight: "0%"}, {}} {
		for _, n := range nodes {
			n.observeAs(Observation{BackendID: b.ID, URL: b.URL(), Healthy: true, Agent: wish, At: time.Now()})
		}
		for _, n := range nodes {
			eventually(t, waitLong, "all nodes have what the agent asks for", func() bool {
				pool := n.View().Pool("web")
				return pool != nil && pool.Backend("web-1").Healthy() && pool.Backend("web-1").Agent == wish
			})
		}
	}
}
