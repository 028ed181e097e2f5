package main

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"time"

	"lbnode/cluster"
	"lbnode/cluster/admin"
	"lbnode/state"
)

func TestDrainageJudges(t *testing.T) {
	node := func(name string, status cluster.MemberState, index uint64) admin.Node {
		return admin.Node{ID: name, Name: name, Status: status, View: cluster.ViewStatus{Index: index}}
	}
	view := func(backend *admin.ClusterBackend, nodes ...admin.Node) *admin.ClusterView {
		v := &admin.ClusterView{AsSeenBy: "lb1", Nodes: nodes, Pools: []admin.ClusterPool{{Name: "web"}}}
		if backend != nil {
			v.Pools[0].Backends = []admin.ClusterBackend{*backend}
		}
		return v
	}
	idle := &admin.ClusterBackend{Name: "web-2", Admin: state.Drain}
	busy := &admin.ClusterBackend{Name: "web-2", Admin: state.Maint, AtNodes: []admin.BackendAtNode{{Node: "lb2", InFlight: 3}}}
	began := time.Now()
	for _, test := range []struct {
		name    string
		view    *admin.ClusterView
		pending []string
		lost    []string
		nodes   int
		vain    string
	}{
		{name: "all idle", view: view(idle, node("lb1", cluster.Alive, 9), node("lb2", cluster.Alive, 8)), nodes: 2},
		{name: "one busy", view: view(busy, node("lb1", cluster.Alive, 8), node("lb2", cluster.Alive, 8)), nodes: 2, pending: []string{"lb2: 3 in flight"}},
		{name: "one behind, and what it has in flight may be of no use", view: view(busy, node("lb1", cluster.Alive, 8), node("lb2", cluster.Alive, 7)),
			nodes: 2, pending: []string{"lb2: does not know of the change yet"}},
		{name: "one has just joined", view: view(idle, node("lb1", cluster.Alive, 8), node("lb2", cluster.Alive, 0)),
			nodes: 2, pending: []string{"lb2: does not know of the change yet"}},
		{name: "one dead", view: view(idle, node("lb1", cluster.Alive, 8), node("lb2", cluster.Failed, 3)), nodes: 2, lost: []string{"lb2"}},
		{name: "one gone", view: view(idle, node("lb1", cluster.Alive, 8), node("lb2", cluster.Left, 3)), nodes: 1},
		{name: "one silent for a moment", view: view(idle, node("lb1", cluster.Alive, 8), node("lb2", cluster.Suspect, 8)),
			nodes: 2, pending: []string{"lb2: no answer yet"}},
		{name: "one silent for long", view: view(idle, node("lb1", cluster.Alive, 8), node("lb3", cluster.Suspect, 8)), nodes: 2, lost: []string{"lb3"}},
		{name: "removed", view: view(nil, node("lb1", cluster.Alive, 8)), vain: "was removed"},
		{name: "ready again", view: view(&admin.ClusterBackend{Name: "web-2", Admin: state.Ready}, node("lb1", cluster.Alive, 8)), vain: "made ready again"},
		{name: "not seen to be there by a node that is behind", view: view(nil, node("lb1", cluster.Alive, 7)),
			nodes: 1, pending: []string{"lb1: does not know of the change yet"}},
	} {
		d := newDrainage(nil, "web", "web-2", 8, io.Discard)
		d.silent["lb3"] = began.Add(-answerWithin)
		got, err := d.judge(test.view, began)
		if test.vain != "" {
			if err == nil || !strings.Contains(err.Error(), test.vain) {
				t.Errorf("%s: got %v, want an error that says %q", test.name, err, test.vain)
			}
			continue
		}
		if want := (look{test.pending, test.nodes, test.lost}); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %+v, %v, want %+v", test.name, got, err, want)
		}
	}
}

func TestWaitIsForDrainAndMaint(t *testing.T) {
	c := soloAPI(t)
	mustRun(t, "backend add web-1 http://h")
	for _, test := range []struct{ line, want string }{
		{"backend set web-1 ready -wait", "-wait is for drain and maint"},
		{"backend set web-1 -weight 2 -wait", "-wait is for drain and maint"},
		{"backend set web-1 drain -timeout 1m", "-timeout is for -wait"},
		{"backend set web-1 drain -wait -timeout 0s", "-timeout must be above 0"},
		{"backend set web-1 drain -wait -url http://i", "stays where it is"},
	} {
		if _, err := lbnode(t, test.line); !errors.Is(err, errUsage) || !strings.Contains(err.Error(), test.want) {
			t.Errorf("lbnode %s: got %v, want a usage error with %q", test.line, err, test.want)
		}
	}
	if b := c.View().Pool("default").Backends[0]; b.Admin != state.Ready || b.Weight != 1 {
		t.Errorf("got %+v, want nothing changed", b)
	}
}

// Three nodes, of which one has a request under way at the backend that is drained.
func TestDrainWaits(t *testing.T) {
	t.Parallel()
	var hold chan bool
	arrived := make(chan bool)
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/hold" {
			arrived <- true
			<-hold
		}
	}))
	defer backend.Close()
	nodes := newLBs(t, 3)
	startAll(nodes)
	f := &fleet{nodes: nodes}
	f.waitHealthy(t, "three nodes form one cluster", nodes, 3)
	if _, err := nodes[0].client.AddBackend(t.Context(), "default", admin.BackendSpec{Name: "web-2", URL: backend.URL}); err != nil {
		t.Fatal(err)
	}
	set := func(node *lb, args ...string) *process {
		p := newProcess(t, "set", append([]string{"backend", "set", "web-2", "-admin", node.admin}, args...)...)
		p.start()
		return p
	}
	// request sends one through lb2 and returns when it is at the backend.
	request := func() chan int {
		f.waitBackends(t, 10*time.Second, "web-2", "healthy")
		hold = make(chan bool)
		code := make(chan int, 1)
		go func() {
			response, err := http.Get("http://" + nodes[1].http + "/hold")
			if err != nil {
				code <- 0
				return
			}
			response.Body.Close()
			code <- response.StatusCode
		}()
		<-arrived
		return code
	}
	ended := func(what string, p *process, want int, words ...string) {
		t.Helper()
		got, out := p.exit(20 * time.Second)
		if got != want {
			t.Errorf("%s: got exit code %d, want %d", what, got, want)
		}
		for _, w := range words {
			if !strings.Contains(out, w) {
				t.Errorf("%s: got %q, want %q in it", what, out, w)
			}
		}
	}

	code := request()
	ended("the request takes too long", set(nodes[0], "drain", "-wait", "-timeout", "1s"), 1, "waiting for lb2: 1 in flight", "gave up after 1s waiting for lb2: 1 in flight")
	p := set(nodes[2], "maint", "-wait")
	eventually(t, 5*time.Second, "maint on every node", func() bool {
		return every(nodes, func(n *lb) bool {
			v := n.view()
			return v != nil && backendIn(v, "default", "web-2").Admin == state.Maint
		})
	})
	select {
	case <-p.done:
		t.Error("maint -wait ended while a request was in flight")
	default:
	}
	close(hold)
	ended("the request ends", p, 0, "3 of 3 nodes confirmed: no request is in flight at web-2")
	if got := <-code; got != http.StatusOK {
		t.Errorf("got %d for the request that was waited for, want 200", got)
	}

	ended("ready", set(nodes[0], "ready"), 0)
	code = request()
	nodes[2].signal(syscall.SIGKILL)
	eventually(t, patience, "the others have a leader", func() bool { v := nodes[0].view(); return v != nil && v.Leader != "" && v.Leader != "lb3" })
	p = set(nodes[0], "drain", "-wait")
	eventually(t, 10*time.Second, "the dead node is known", func() bool { v := nodes[0].view(); return v != nil && status(v, "lb3") == "failed" })
	close(hold)
	ended("a node is dead", p, 3, "2 of 3 nodes confirmed; lb3 cannot be reached")
	<-code
}
