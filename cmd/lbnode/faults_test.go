package main

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"

	"lbnode/cluster/admin"
	"lbnode/state"
)

const (
	// formsAtOnce is how many short forms run at a time; they mostly wait.
	formsAtOnce = 6
	// patience is how long anything may take. It says nothing of how long it
	// should: that is logged.
	patience = 3 * time.Minute
)

// TestFaults is the fault suite with real processes. Each form makes a cluster,
// does something bad to it while requests and writes go on, and checks that no
// request failed, no acknowledged write was lost, no refused one took effect, and
// that the cluster heals. Each logs its figures. With -long the forms run one by
// one and for as long as it takes to believe them, which is hours: give a -timeout.
func TestFaults(t *testing.T) {
	forms := []struct {
		name string
		run  func(*testing.T)
	}{
		{"kill any role", killAnyRole},
		{"cuts", cutLinks},
		{"clock", moveClock},
		{"pause", pauseAnyRole},
		{"udp blocked", blockUDP},
		{"disk hangs", hangLeadersDisk},
		{"disk full", fillLeadersDisk},
		{"kill in mid-write", killInMidWrite},
		{"damaged files", damageFiles},
		{"quorum lost", loseQuorum},
		{"packets lost", losePackets},
		{"slow links", slowLinks},
		{"first starts", firstStarts},
		{"members change", changeMembers},
	}
	slots := make(chan struct{}, amount(formsAtOnce, 1))
	var running sync.WaitGroup
	for _, form := range forms {
		slots <- struct{}{}
		running.Go(func() {
			defer func() { <-slots }()
			t.Run(form.name, form.run)
		})
	}
	running.Wait()
}

// amount is how much of something a form does: in the short form, in the long one.
func amount[T any](short, longer T) T {
	if *long {
		return longer
	}
	return short
}

// hold lets a fault last.
func hold(t *testing.T, d time.Duration) {
	select {
	case <-time.After(d):
	case <-t.Context().Done():
	}
}

// trial is a cluster with all that goes on while it suffers.
type trial struct {
	nodes   []*lb
	load    *steadyLoad
	journal *journal
	watch   *watch
}

// startTrial starts the nodes, waits until they are one cluster that knows the
// backends, and begins the load. Without backends, some are made.
func startTrial(t *testing.T, nodes []*lb, backends ...string) *trial {
	t.Helper()
	if len(backends) == 0 {
		backends = []string{localBackend(t, "web-1"), localBackend(t, "web-2"), localBackend(t, "web-3")}
	}
	startAll(nodes)
	whole(t, nodes)
	pool := admin.PoolSpec{Name: "default", Settings: state.Settings{HealthCheck: state.HealthCheck{ // half a minute to judge a backend unhealthy: a slow machine is no reason
		Interval: state.Duration(2 * time.Second), Timeout: state.Duration(2 * time.Second), Fall: 15,
	},
	}}
	client := nodes[0].client
	insist(t, "the pool is made", func() error { _, err := client.CreatePool(t.Context(), pool); return err })
	for i, url := range backends {
		spec := admin.BackendSpec{Name: fmt.Sprintf("web-%d", i+1), URL: url}
		insist(t, spec.Name+" is added", func() error { _, err := client.AddBackend(t.Context(), "default", spec); return err })
	}
	insist(t, "the route is made", func() error {
		_, err := client.PutRoute(t.Context(), admin.Route{Path: "/", Pool: "default"})
		return err
	})
	eventually(t, patience, "all backends are healthy on all nodes", func() bool {
		return every(nodes, func(n *lb) bool {
			healthy := 0
			for _, h := range n.health() {
				if h == "healthy" {
					healthy++
				}
			}
			return healthy == len(backends)
		})
	})
	return &trial{
		nodes:   nodes,
		load:    startSteadyLoad(t, nodes, amount(100, 500)),
		journal: &journal{},
		watch:   startWatch(t, nodes),
	}
}

// insist writes again and again, as on a machine so busy that the outcome stays
// unknown, until it is done. Then it may have been done before.
func insist(t *testing.T, what string, write func() error) {
	t.Helper()
	eventually(t, patience, what, func() bool {
		err := write()
		var problem *admin.Problem
		return err == nil || errors.As(err, &problem) && problem.Status == http.StatusConflict
	})
}

// end ends all that goes on and logs the figures, those of the form first.
func (tr *trial) end(t *testing.T, figures string) {
	t.Helper()
	whole(t, tr.nodes) // an acknowledged write is on the other nodes a moment later
	t.Logf("%s; %s; %s; %s", figures, tr.load.conclude(t), tr.journal.verify(t, tr.nodes), tr.watch.conclude(t))
}

// without returns the nodes but for some.
func without(nodes []*lb, some ...*lb) []*lb {
	return slices.DeleteFunc(slices.Clone(nodes), func(n *lb) bool { return slices.Contains(some, n) })
}

// localBackend serves within the test itself and returns its URL.
func localBackend(t *testing.T, name string) string {
	server := httptest.NewUnstartedServer(nil)
	_, port, err := net.SplitHostPort(server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	server.Config.Handler = greeter(name, port)
	server.Start()
	t.Cleanup(server.Close)
	return server.URL
}
