package admin

import (
	"bytes"
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"

	"lbnode/cluster"
	"lbnode/state"
)

// now is the time at which the cluster of threeNodes is looked at.
func now() time.Time { return time.Date(2023, 11, 14, 22, 15, 0, 0, time.UTC) }

// threeNodes is a cluster in which lb3 has died, as lb1 sees it.
func threeNodes(t *testing.T) *fakeCluster {
	t.Helper()
	c := newFakeCluster()
	c.apply(t,
		&state.InitCluster{ClusterID: "c1"},
		&state.CreatePool{Pool: state.Pool{Name: "web", Backends: []*state.Backend{
			{ID: "b1", Name: "web-1", Host: "10.0.0.1", Port: 3001},
			{ID: "b2", Name: "web-2", Host: "10.0.0.2", Port: 3001, Weight: 2, Admin: state.Drain},
		}}},
		&state.CreatePool{Pool: state.Pool{Name: "idle"}},
		&state.SetHealth{Verdicts: []state.Verdict{{BackendID: "b1", URL: "http://10.0.0.1:3001", Health: state.Healthy}}},
	)
	view := cluster.ViewStatus{Index: c.View().Index, Digest: "9f2c41aa00000000"}
	seen := func(after time.Duration, latency time.Duration, url string) cluster.Local {
		return cluster.Local{Ready: true, RequestsPerSecond: 12.345, Backends: map[string]cluster.LocalBackend{"b1": {
			InFlight:    2,
			Observation: &cluster.Observation{BackendID: "b1", URL: url, Healthy: true, At: now().Add(-after), Latency: latency, Reason: "200 OK"},
		}}}
	}
	const url = "http://10.0.0.1:3001"
	c.status = cluster.Status{
		ClusterID: "c1", AsSeenBy: "lb1", Leader: "lb1", Term: 4, CommitIndex: 4, Quorum: 2, FailureTolerance: 0, Agreement: true,
		Warnings: []string{"lb1: the disk is slow"},
		Nodes: []cluster.NodeStatus{
			{ID: "n1", Name: "lb1", Addr: "10.0.1.1:7946", RaftAddr: "10.0.1.1:7947", AdminAddr: "127.0.0.1:8404", HTTPAddr: "10.0.1.1:8080",
				Version: "v1.2.3", State: cluster.Alive, Member: true, Voter: true, Leader: true,
				Report: cluster.Report{View: view, AppliedIndex: 4, StoreBytes: 65536, Local: seen(400*time.Millisecond, 812*time.Microsecond, url)}},
			{ID: "n2", Name: "lb2", Addr: "10.0.1.2:7946", HTTPAddr: "10.0.1.2:8080", State: cluster.Suspect, Member: true, Voter: true, Lag: 1,
				Report: cluster.Report{View: cluster.ViewStatus{Index: 3, Digest: "77", Stale: true}, LastContact: 12 * time.Millisecond,
					Local: seen(-time.Second, 2*time.Millisecond, url)}}, // its clock is ahead
			{ID: "n3", Name: "lb3", Addr: "10.0.1.3:7946", State: cluster.Failed,
				Report: cluster.Report{View: view, LastContact: -1, Local: seen(time.Second, time.Millisecond, url)}},
			{ID: "n4", Name: "lb4", Addr: "10.0.1.4:7946", State: cluster.Alive,
				Report: cluster.Report{View: view, Local: seen(time.Second, time.Millisecond, "http://10.9.9.9:3001")}}, // of an address it has left
		},
	}
	return c
}

// TestClusterShape holds /cluster to its documented names and their order.
func TestClusterShape(t *testing.T) {
	c := threeNodes(t)
	got, err := json.MarshalIndent(newClusterView(c.status, c.View(), now()), "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	compare(t, "testdata/cluster.json", append(got, '\n'))
}

func TestClusterTable(t *testing.T) {
	c := threeNodes(t)
	var got bytes.Buffer
	if err := newClusterView(c.status, c.View(), now()).writeTable(&got, now()); err != nil {
		t.Fatal(err)
	}
	compare(t, "testdata/cluster.txt", got.Bytes())
}

// compare compares got with a golden file; with UPDATE_GOLDEN set it writes it.
func compare(t *testing.T, file string, got []byte) {
	t.Helper()
	if os.Getenv("UPDATE_GOLDEN") != "" {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s:\ngot\n%s\nwant\n%s", file, got, want)
	}
}

func TestDegradedClusterSaysWhy(t *testing.T) {
	c := threeNodes(t)
	c.status.Degraded, c.status.Leader, c.status.Warnings = "no leader", "", nil
	addr := serve(t, c, Config{})
	got := ask(t, "GET", "http://"+addr+"/cluster", "")
	if want := `"healthy":false,"degraded":"no leader","agreement":true,"leader":""`; got.status != 200 || !strings.Contains(got.body, want) {
		t.Errorf("got %d %s, want 200 and %s", got.status, got.body, want)
	}
}

func TestEmptyClusterHasListsNotNull(t *testing.T) {
	c := newFakeCluster()
	c.status = cluster.Status{AsSeenBy: "lb1"}
	addr := serve(t, c, Config{})
	for _, path := range []string{"/cluster", "/v1/pools", "/v1/routes"} {
		got := ask(t, "GET", "http://"+addr+path, "")
		if got.status != 200 || strings.Contains(got.body, "null") || !strings.Contains(got.body, "[]") {
			t.Errorf("%s: got %d %s, want 200 and empty lists", path, got.status, got.body)
		}
	}
}

func TestClusterForm(t *testing.T) {
	addr := serve(t, threeNodes(t), Config{})
	for _, test := range []struct{ accept, want string }{
		{"", "application/json"},
		{"*/*", "application/json"},
		{"text/html, application/xhtml+xml, */*;q=0.8", "application/json"},
		{"application/json, text/plain, */*", "application/json"},
		{"application/json;q=0.5, text/plain", "text/plain; charset=utf-8"},
		{"text/plain", "text/plain; charset=utf-8"},
		{"text/plain, */*;q=0.1", "text/plain; charset=utf-8"},
		{"text/plain;q=0", "application/json"},
		{";;;,,", "application/json"},
	} {
		got := ask(t, "GET", "http://"+addr+"/cluster", "", "Accept", test.accept)
		if got := got.header.Get("Content-Type"); got != test.want {
			t.Errorf("Accept %q: got %q, want %q", test.accept, got, test.want)
		}
	}
	plain := ask(t, "GET", "http://"+addr+"/cluster", "").body
	pretty := ask(t, "GET", "http://"+addr+"/cluster?pretty", "").body
	if strings.Count(plain, "\n") != 1 || strings.Count(pretty, "\n") < 50 {
		t.Errorf("got %d and %d lines, want 1 and, pretty, many", strings.Count(plain, "\n"), strings.Count(pretty, "\n"))
	}
}

// A backend that flaps shows how long most of its observers have found it healthy.
func TestHeldBackendSaysSo(t *testing.T) {
	const s = time.Second
	for _, test := range []struct {
		health state.Health
		falls  int
		steady []time.Duration // negative: unhealthy
		want   string
	}{
		{state.Unhealthy, 5, []time.Duration{13 * s, 12*s + 1, 3 * s}, "flapping: healthy for 12s of 40s"},
		{state.Unhealthy, 5, []time.Duration{12 * s, -1, 13 * s}, "flapping: healthy for 12s of 40s"},
		{state.Unhealthy, 5, []time.Duration{12 * s, -1, -1}, ""}, // what a probe finds says more
		{state.Unhealthy, 2, []time.Duration{12 * s, 12 * s, 12 * s}, ""},
		{state.Unhealthy, 5, []time.Duration{60 * s, 60 * s, 60 * s}, ""}, // it is not that which keeps it out
		{state.Healthy, 5, []time.Duration{12 * s, 12 * s, 12 * s}, ""},
	} {
		b := &state.Backend{ID: "b", Host: "h", Port: 1, Health: test.health, Falls: test.falls, Reason: "lb1: refused"}
		nodes := make([]cluster.NodeStatus, len(test.steady))
		for i, steady := range test.steady {
			o := &cluster.Observation{URL: b.URL(), Healthy: steady >= 0, Steady: steady}
			nodes[i] = cluster.NodeStatus{State: cluster.Alive, Report: cluster.Report{Local: cluster.Local{Backends: map[string]cluster.LocalBackend{"b": {Observation: o}}}}}
		}
		got := newClusterBackend(b, nodes, now())
		if got.Held != test.want || got.Reason != b.Reason {
			t.Errorf("%+v: got held %q, reason %q, want %q and the reason of the verdict", test, got.Held, got.Reason, test.want)
		}
	}
}

func TestAgentsWishIsShown(t *testing.T) {
	for _, test := range []struct {
		agent         state.Wish
		admin         state.Admin
		weight, table string
	}{
		{state.Wish{}, "", "", "http://h:1  2  ready  healthy"},
		{state.Wish{Admin: state.Maint}, state.Maint, "", "2  ready (agent maint)  healthy"},
		{state.Wish{Weight: "50%"}, "", "50%", "2 (agent 50%)  ready  healthy"},
		{state.Wish{Weight: "0%"}, state.Drain, "0%", "2 (agent 0%)  ready (agent drain)  healthy"},
	} {
		b := state.Backend{ID: "b", Name: "b", Protocol: "http", Host: "h", Port: 1, Weight: 2, Admin: state.Ready, Health: state.Healthy, Agent: test.agent}
		pool := newClusterPool(&state.Pool{Backends: []*state.Backend{&b}}, nil, now())
		shown := newBackend(&b, func(string) *cluster.Observation { return nil })
		if got := pool.Backends[0]; got.AgentAdmin != test.admin || got.AgentWeight != test.weight || got.Admin != state.Ready || got.Weight != 2 {
			t.Errorf("%+v: got %+v in /cluster", test.agent, got)
		}
		if shown.AgentAdmin != test.admin || shown.AgentWeight != test.weight || shown.Admin != state.Ready || shown.Weight != 2 {
			t.Errorf("%+v: got %+v in /v1", test.agent, shown)
		}
		var table strings.Builder
		if err := (&ClusterView{Pools: []ClusterPool{pool}}).writeTable(&table, now()); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(strings.Join(strings.Fields(table.String()), " "), strings.Join(strings.Fields(test.table), " ")) {
			t.Errorf("%+v: got the table\n%s\nwant %q in it", test.agent, table.String(), test.table)
		}
	}
}

func TestTableSaysWhyABackendIsUnhealthy(t *testing.T) {
	atNodes := []BackendAtNode{{Node: "lb1", InFlight: 1}, {Node: "lb2", Ejected: true}, {Node: "lb3", Ejected: true}}
	for _, test := range []struct {
		backend ClusterBackend
		want    string
	}{
		{ClusterBackend{Health: state.Healthy, Observers: []Observer{{Reason: "refused"}}}, "healthy"}, // one node's trouble
		{ClusterBackend{Health: state.Unhealthy}, "unhealthy"},
		{ClusterBackend{Health: state.Unhealthy, Observers: []Observer{{Healthy: true, Reason: "200 OK"}, {Reason: "refused"}}}, "unhealthy: refused"},
		{ClusterBackend{Health: state.Unhealthy, Reason: "lb1: 503", Observers: []Observer{{Healthy: true, Reason: "200 OK"}}}, "unhealthy: lb1: 503"},
		{ClusterBackend{Health: state.Unhealthy, Reason: "lb1: 503", Observers: []Observer{{Reason: "refused"}}}, "unhealthy: refused"}, // what is so now
		{ClusterBackend{Health: state.Unhealthy, Reason: "lb1: 503", Held: "flapping", Observers: []Observer{{Reason: "refused"}}}, "unhealthy: flapping"},
		{ClusterBackend{Health: state.Unhealthy, Reason: "ejected by lb1, lb2", Observers: []Observer{{Healthy: true}}}, "unhealthy: ejected by lb1, lb2"},
		{ClusterBackend{Health: state.Unhealthy, Reason: "ejected by lb1, lb2", AtNodes: atNodes}, "unhealthy: ejected by lb2, lb3"}, // what is so now
		{ClusterBackend{Health: state.Unhealthy, AtNodes: atNodes, Observers: []Observer{{Reason: "refused"}}}, "unhealthy: refused"},
		{ClusterBackend{Health: state.Healthy, AtNodes: atNodes}, "healthy, ejected by lb2, lb3"},
		{ClusterBackend{Health: state.Healthy, AtNodes: []BackendAtNode{{Node: "lb1", CircuitOpen: true}}}, "healthy, circuit open at lb1"},
		{ClusterBackend{Health: state.Healthy, AtNodes: []BackendAtNode{{Node: "lb1"}, {Node: "lb2", Unreachable: true}}}, "healthy, unreachable from lb2"},
		{ClusterBackend{Health: state.Unhealthy, AtNodes: []BackendAtNode{{Node: "lb2", Unreachable: true}}, Observers: []Observer{{Reason: "refused"}}}, "unhealthy: refused"},
	} {
		if got := test.backend.verdict(); got != test.want {
			t.Errorf("%+v: got %q, want %q", test.backend, got, test.want)
		}
	}
}

func TestAgo(t *testing.T) {
	for _, test := range []struct{ at, want string }{
		{"", "-"},
		{"2023-11-14T22:14:59.001Z", "0s ago"},
		{"2023-11-14T22:15:01Z", "0s ago"},
		{"2023-11-14T22:14:01Z", "59s ago"},
		{"2023-11-14T22:14:00Z", "1m ago"},
		{"2023-11-14T20:00:00Z", "2h ago"},
		{"2023-11-01T22:15:00Z", "13d ago"},
	} {
		if got := ago(test.at, now()); got != test.want {
			t.Errorf("ago(%q): got %q, want %q", test.at, got, test.want)
		}
	}
}

func TestTableSaysWhoEjectsAndPanics(t *testing.T) {
	c := threeNodes(t)
	for i := range c.status.Nodes { // of the dead lb3 it counts for nothing
		local := &c.status.Nodes[i].Local
		local.Panics = []string{"web"}
		at := local.Backends["b1"]
		at.Ejected = "http://10.0.0.1:3001"
		if c.status.Nodes[i].Name == "lb2" {
			at.Ejected = "http://10.9.9.9:3001" // an address that it has left
		}
		local.Backends["b1"] = at
	}
	view := newClusterView(c.status, c.View(), now())
	var got bytes.Buffer
	if err := view.writeTable(&got, now()); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"healthy, ejected by lb1, lb4", "too few are fit: health is ignored by lb1, lb2, lb4\n"} {
		if strings.Count(got.String(), want) != 1 {
			t.Errorf("got\n%s\nwant %q in it, once", got.String(), want)
		}
	}
}
