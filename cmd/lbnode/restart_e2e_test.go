package main

import (
	"errors"
	"net/http"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"lbnode/cluster/admin"
	"lbnode/state"
)

// A node that comes back serves the view that it kept as soon as it listens: whoever
// connects first has an answer by it.
func TestRestartedNodeServesAtOnce(t *testing.T) {
	t.Parallel()
	nodes := newLBs(t, 1)
	n := nodes[0]
	n.start()
	whole(t, nodes)
	makePool(t, nodes, admin.PoolSpec{Name: "even", Settings: state.Settings{HealthCheck: calm}, Backends: locals(t, 1)})
	var refused, answered atomic.Int64
	for range amount(5, 100) {
		n.signal(syscall.SIGTERM)
		if code, out := n.exit(patience); code != 0 {
			t.Fatalf("ended with %d: %s", code, out)
		}
		done, waiting := make(chan struct{}), sync.WaitGroup{}
		for range 4 {
			waiting.Go(func() { knock(t, n, done, &refused, &answered) })
		}
		n.start()
		eventually(t, patience, "it serves", func() bool { return n.view() != nil })
		close(done)
		waiting.Wait()
	}
	t.Logf("%d connections refused, %d requests answered", refused.Load(), answered.Load())
	if refused.Load() == 0 || answered.Load() == 0 {
		t.Error("got no connection refused, or no request answered: nobody was there at the start")
	}
}

// knock asks a node again and again, over new connections. If it accepts one, it must
// answer well.
func knock(t *testing.T, n *lb, done <-chan struct{}, refused, answered *atomic.Int64) {
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: patience}
	pause := time.NewTicker(200 * time.Microsecond)
	defer pause.Stop()
	for {
		_, err := fetch(client, "http://"+n.http+"/even")
		switch {
		case errors.Is(err, syscall.ECONNREFUSED):
			refused.Add(1)
		case err != nil:
			t.Error(err)
		default:
			answered.Add(1)
		}
		select {
		case <-done:
			return
		case <-pause.C:
		}
	}
}
