package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"lbnode/cluster"
	"lbnode/cluster/admin"
	"lbnode/state"
)

// soloCluster is a cluster of one without a log, for the API to stand on.
type soloCluster struct {
	mu      sync.Mutex
	machine *state.Machine
	index   uint64
	status  cluster.Status
	failure error // of Propose
	left    bool

	expelled string
}

// refuse makes all writes from now on end so.
func (c *soloCluster) refuse(failure error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.failure = failure
}

func (c *soloCluster) View() *state.View {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.machine.View()
}

func (c *soloCluster) Barrier(context.Context) error { return nil }

func (c *soloCluster) NextView(context.Context, uint64) *state.View { return c.View() }

func (c *soloCluster) Propose(_ context.Context, w cluster.Write) (state.Result, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.failure != nil {
		return state.Result{}, c.failure
	}
	data, err := state.Command{ID: w.RequestID, IfIndex: w.IfIndex, Op: w.Op}.Encode()
	if err != nil {
		return state.Result{}, err
	}
	c.index++
	return c.machine.Apply(c.index, data)
}

func (c *soloCluster) Status(context.Context) cluster.Status {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.status
}

func (c *soloCluster) Expel(_ context.Context, peer string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.expelled = peer
	return c.failure
}

func (c *soloCluster) Leave(context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.left = true
	return nil
}

const testToken = "0123456789abcdef"

// soloAPI serves the API of a cluster of one, and points the environment at it.
func soloAPI(t *testing.T) *soloCluster {
	t.Helper()
	c := &soloCluster{machine: state.NewMachine(), status: cluster.Status{
		ClusterID: "c1", AsSeenBy: "lb1", Leader: "lb1", Quorum: 1, Agreement: true, Healthy: true,
		Nodes: []cluster.NodeStatus{{ID: "n1", Name: "lb1", Addr: "127.0.0.1:7946", State: cluster.Alive, Voter: true, Leader: true}},
	}}
	server := admin.New(admin.Config{
		Cluster:  c,
		Local:    func() cluster.Local { return cluster.Local{} },
		Observed: func(string) *cluster.Observation { return nil },
		Ready:    func() error { return nil },
		Token:    testToken,
	})
	addr, err := server.Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
	})
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte(testToken+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("LBNODE_ADMIN", addr.String())
	t.Setenv("LBNODE_ADMIN_TOKEN_FILE", file)
	return c
}

// lbnode runs a command line, split at spaces, and returns what it printed.
func lbnode(t *testing.T, line string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	err := run(t.Context(), strings.Fields(line), &out, io.Discard)
	return out.String(), err
}

func mustRun(t *testing.T, line string) string {
	t.Helper()
	out, err := lbnode(t, line)
	if err != nil {
		t.Fatalf("lbnode %s: %v", line, err)
	}
	return out
}

func TestBackendCommands(t *testing.T) {
	c := soloAPI(t)
	for _, step := range []struct{ line, want string }{
		{"backend add web-1 http://10.0.0.11:8080", "added web-1 http://10.0.0.11:8080 to pool default"},
		{"backend add web-2 -weight 3 http://10.0.0.12 -pool=default", "added web-2 http://10.0.0.12:80 to pool default"},
		{"backend -h", "lbnode backend add NAME URL"},
		{"backend ls", "default  web-2  http://10.0.0.12:80    3       ready  starting"},
		{"backend ls -pool default", "default  web-1  http://10.0.0.11:8080  1       ready  starting"},
		{"backend set web-1 drain", "drain"},
		{"backend set -weight 7 -- web-1", "drain"},
		{"backend set web-1 ready -weight 2 -url https://10.0.0.13", "https://10.0.0.13:443"},
		{"backend set web-2 -backup", "3 backup"},
		{"backend set web-2 -weight 4", "4 backup"},
		{"backend set web-2 -backup=false", "4       ready"},
		{"backend add web-3 http://10.0.0.14 -backup", "added web-3"},
		{"backend ls", "1 backup"},
		{"backend rm web-3", "removed web-3"},
		{"backend rm -pool default web-2", "removed web-2 from pool default"},
		{"route add Example.com/api default", "example.com/api goes to pool default"},
		{"route add /x default", "/x goes to pool default"},
		{"route ls", "(any)        /x    default"},
		{"route rm example.com/api", "removed the route for example.com/api"},
		{"route rm /x", "removed the route for /x"},
	} {
		if got := mustRun(t, step.line); !strings.Contains(got, step.want) {
			t.Errorf("lbnode %s: got %q, want %q in it", step.line, got, step.want)
		}
	}
	pool := c.View().Pool("default")
	if len(pool.Backends) != 1 || len(c.View().Routes) != 0 {
		t.Fatalf("got %d backends and %d routes, want 1 and 0", len(pool.Backends), len(c.View().Routes))
	}
	if b := pool.Backends[0]; b.Name != "web-1" || b.Weight != 2 || b.Admin != state.Ready || b.URL() != "https://10.0.0.13:443" {
		t.Errorf("backend: got %+v", b)
	}
	mustRun(t, "leave")
	if !c.left {
		t.Error("leave did not reach the cluster")
	}
}

// backend ls says why a backend is unhealthy, and what keeps traffic from it besides.
func TestBackendListSaysWhy(t *testing.T) {
	c := soloAPI(t)
	mustRun(t, "backend add web-1 http://10.0.0.11:8080 -weight 4")
	b := c.View().Pool("default").Backends[0]
	for _, op := range []state.Op{
		&state.UpdatePool{Pool: state.Pool{Name: "default", Settings: state.Settings{HealthCheck: state.HealthCheck{Type: state.CheckAgent, Port: 81}}}},
		&state.SetHealth{Verdicts: []state.Verdict{{
			BackendID: b.ID, URL: b.URL(), Health: state.Unhealthy, Reason: "lb2: agent: down, disk full", Agent: &state.Wish{Admin: state.Drain, Weight: "50%"},
		}}},
	} {
		if result, err := c.Propose(t.Context(), cluster.Write{Op: op}); err != nil || result.Err != nil {
			t.Fatal(err, result.Err)
		}
	}
	for _, want := range []string{"4 (agent 50%)", "ready (agent drain)", "unhealthy", "lb2: agent: down, disk full"} {
		if got := mustRun(t, "backend ls"); !strings.Contains(got, want) {
			t.Errorf("got %q, want %q in it", got, want)
		}
	}
}

func TestBackendOfWhichPool(t *testing.T) {
	c := soloAPI(t)
	for _, pool := range []string{"api", "web"} {
		if _, err := c.Propose(t.Context(), cluster.Write{Op: &state.CreatePool{Pool: state.Pool{Name: pool, Backends: []*state.Backend{
			{ID: pool, Name: "both", Host: "h", Port: 80}, {ID: pool + "x", Name: "only-" + pool, Host: "h", Port: 81},
		}}}}); err != nil {
			t.Fatal(err)
		}
	}
	for _, test := range []struct{ line, want string }{ // want "": it must work
		{"backend set both drain", `in the pools api, web: say which with -pool`},
		{"backend rm both", `in the pools api, web: say which with -pool`},
		{"backend rm only-wbe", `there is no backend "only-wbe" (did you mean "only-web"?)`},
		{"backend rm both -pool wbe", `there is no pool "wbe"`},
		{"backend add both http://i -pool web", `there is already a backend "both"`},
		{"backend add other http://i/path", `url: must have no path`},
		{"backend ls -pool wbe", `there is no pool "wbe"`},
		{"backend rm only-web", ""},
		{"backend rm both -pool api", ""},
		{"backend set both drain", ""},
	} {
		_, err := lbnode(t, test.line)
		if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
			t.Errorf("lbnode %s: got %v, want %q", test.line, err, test.want)
		}
		if errors.Is(err, errUsage) {
			t.Errorf("lbnode %s: got a usage error, want a failure", test.line)
		}
	}
}

func TestClientUsageErrors(t *testing.T) {
	soloAPI(t)
	for _, test := range []struct{ line, want string }{
		{"backend", "needs one of ls, add, rm, set"},
		{"backend lss", `unknown command "backend lss" (did you mean "ls"?)`},
		{"backend add web-1", "something is missing: lbnode backend add NAME URL"},
		{"backend add web-1 http://h extra", `unexpected "extra"`},
		{"backend add web-1 http://h -wieght 2", `-wieght (did you mean "weight"?)`},
		{"backend add web-1 http://h -weight 0", "to stop traffic: lbnode backend set NAME drain"},
		{"backend add web-1 http://h -weight", "flag needs an argument"},
		{"backend add web-1 http://h -backup=maybe", "must be true or false"},
		{"backend set web-1", "nothing to change"},
		{"backend set web-1 -url=", "nothing to change"},
		{"backend set web-1 ready -url=", "nothing to change"},
		{"backend set web-1 drian", `unknown admin state "drian" (did you mean "drain"?)`},
		{"backend ls -o xml", `-o must be table or json, not "xml"`},
		{"status now", `unexpected "now"`},
		{"route add /x", "something is missing"},
		{"raft", "needs one of peers, remove"},
		{"raft remove", "something is missing: lbnode raft remove NAME|ID"},
		{"version -admin x", "not defined: -admin"},
	} {
		out, err := lbnode(t, test.line)
		if !errors.Is(err, errUsage) || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("lbnode %s: got %v, want a usage error of one line with %q", test.line, err, test.want)
		}
		if out != "" {
			t.Errorf("lbnode %s: printed %q beside the error", test.line, out)
		}
	}
}

func TestStatusOfAnUnwellCluster(t *testing.T) {
	c := soloAPI(t)
	if got := mustRun(t, "status"); !strings.Contains(got, "cluster c1 is healthy") {
		t.Errorf("status: got %q", got)
	}
	c.mu.Lock()
	c.status.Healthy, c.status.Agreement, c.status.Leader = false, false, ""
	c.status.Nodes = append(c.status.Nodes, cluster.NodeStatus{Name: "lb2", State: cluster.Failed}, cluster.NodeStatus{Name: "lb3", State: cluster.Left})
	c.mu.Unlock()
	for _, output := range []string{"table", "json"} {
		out, err := lbnode(t, "status -o "+output)
		if want := "degraded: no leader; node lb2 is failed; the nodes do not agree yet"; !errors.Is(err, errDegraded) || err.Error() != want {
			t.Errorf("status -o %s: got %v, want %s", output, err, want)
		}
		if !strings.Contains(out, "lb2") {
			t.Errorf("status -o %s: got %q, want the nodes all the same", output, out)
		}
	}
	if got := mustRun(t, "members"); !strings.Contains(got, "failed") || !strings.Contains(got, "leader") {
		t.Errorf("members: got %q", got)
	}
}

// TestJSON checks that every command that prints can print JSON and nothing else.
func TestJSON(t *testing.T) {
	soloAPI(t)
	for _, test := range []struct {
		line string
		into any
	}{
		{"backend add web-1 http://10.0.0.11:8080", &admin.Backend{}},
		{"backend set web-1 drain", &admin.Backend{}},
		{"backend ls", &[]admin.Pool{}},
		{"backend ls -pool default", &[]admin.Backend{}},
		{"route add a.example default", &admin.Route{}},
		{"route ls", &[]admin.Route{}},
		{"status", &admin.ClusterView{}},
		{"members", &[]admin.Node{}},
		{"version", &map[string]string{}},
		{"route rm a.example", &map[string]string{}},
		{"backend rm web-1", &map[string]string{}},
		{"raft peers", &[]admin.Node{}},
		{"raft remove lb3", &map[string]string{}},
		{"leave", &map[string]string{}},
	} {
		decoder := json.NewDecoder(strings.NewReader(mustRun(t, test.line+" -o json")))
		decoder.DisallowUnknownFields()
		if err := decoder.Decode(test.into); err != nil {
			t.Errorf("lbnode %s -o json: %v", test.line, err)
		}
		if decoder.More() {
			t.Errorf("lbnode %s -o json: printed more than one value", test.line)
		}
	}
}

func TestNodeThatCannotBeAsked(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed := l.Addr().String()
	l.Close()
	other := httptest.NewServer(http.NotFoundHandler())
	defer other.Close()
	soloAPI(t)
	for _, test := range []struct{ line, want string }{
		{"status -admin " + closed, "cannot reach lbnode at " + closed + ": connection refused; is the node running? set -admin or LBNODE_ADMIN"},
		{"backend add a http://h -admin " + closed, "connection refused"},
		{"members -admin " + other.URL, "not as lbnode does"},
		{"members -admin-token-file /nonexistent", "cannot read the admin token"},
		{"members -admin-token-file=", "the admin token is missing or wrong"},
	} {
		if _, err := lbnode(t, test.line); err == nil || !strings.Contains(err.Error(), test.want) || errors.Is(err, errUsage) {
			t.Errorf("lbnode %s: got %v, want a failure with %q", test.line, err, test.want)
		}
	}
}

func TestFlagBeatsEnvironment(t *testing.T) {
	soloAPI(t)
	addr := os.Getenv("LBNODE_ADMIN")
	t.Setenv("LBNODE_ADMIN", "127.0.0.1:1")
	mustRun(t, "members -admin "+addr)
	mustRun(t, "members --admin="+addr)
}

func TestHelpOfACommand(t *testing.T) {
	var out bytes.Buffer
	err := runBackend(t.Context(), []string{"set", "-h"}, &out, io.Discard)
	if !errors.Is(err, flag.ErrHelp) {
		t.Errorf("got %v, want flag.ErrHelp", err)
	}
	for _, want := range []string{"usage: lbnode backend set NAME [ready|drain|maint]", "-weight share", "-admin address"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("help: got %q, want %q in it", out.String(), want)
		}
	}
}

func TestConditionNamesWhatIsWrong(t *testing.T) {
	healthy := func() *admin.ClusterView {
		return &admin.ClusterView{Healthy: true, Agreement: true, Leader: "lb1", Pools: []admin.ClusterPool{
			{Name: "web", HealthyBackends: 1, Backends: []admin.ClusterBackend{{Name: "web-1", Admin: state.Ready, Health: state.Healthy}}},
			{Name: "resting", Backends: []admin.ClusterBackend{{Name: "web-2", Admin: state.Maint}}},
		}}
	}
	if err := condition(healthy()); err != nil {
		t.Errorf("got %v, want nothing wrong", err)
	}
	for want, spoil := range map[string]func(*admin.ClusterView){
		"pool web has no healthy backend":      func(v *admin.ClusterView) { v.Pools[0].Backends[0].Health = state.Unhealthy },
		"pool web has no healthy backend that": func(v *admin.ClusterView) { v.Pools[0].Backends[0].AgentAdmin = state.Drain },
		"pool web has no healthy backend that is ready": func(v *admin.ClusterView) {
			v.Pools[0].Backends[0].Health = state.Unhealthy
			v.Pools[0].Backends = append(v.Pools[0].Backends, admin.ClusterBackend{Name: "web-3", Admin: state.Drain, Health: state.Healthy})
		},
		"node lb3 has stopped": func(v *admin.ClusterView) {
			v.Healthy, v.Nodes = false, []admin.Node{{Name: "lb3", Status: cluster.Left, Voter: true}}
		},
		"node lb3 is failed": func(v *admin.ClusterView) {
			v.Healthy, v.Nodes = false, []admin.Node{{Name: "lb3", Status: cluster.Failed}}
		},
		"no leader": func(v *admin.ClusterView) { v.Healthy, v.Leader = false, "" },
	} {
		view := healthy()
		spoil(view)
		if err := condition(view); !errors.Is(err, errDegraded) || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want an error that says %q", err, want)
		}
	}
}
