package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"lbnode/cluster/admin"
)

// journal holds what became of each write. A write makes a route of a name of its
// own.
type journal struct {
	next atomic.Int64

	mu      sync.Mutex
	acked   []string // paths
	refused []string
	unknown int
	took    []time.Duration // of those that were refused
	strange []string
}

// writing is some clients that write.
type writing struct {
	halt    context.CancelFunc // makes them begin no further write
	clients sync.WaitGroup
}

// startWriting has so many clients write through the nodes until they are stopped.
func (j *journal) startWriting(nodes []*lb, clients int) *writing {
	ctx, cancel := context.WithCancel(context.Background())
	w := &writing{halt: cancel}
	for i := range clients {
		w.clients.Go(func() {
			pace := time.NewTicker(25 * time.Millisecond)
			defer pace.Stop()
			for ctx.Err() == nil {
				j.write(nodes[i%len(nodes)])
				<-pace.C
			}
		})
	}
	return w
}

// stop waits for the last answers.
func (w *writing) stop() {
	w.halt()
	w.clients.Wait()
}

// write writes once through a node and says whether that was acknowledged.
func (j *journal) write(n *lb) bool {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	path := fmt.Sprintf("/write/%d", j.next.Add(1))
	began := time.Now()
	_, err := n.client.PutRoute(ctx, admin.Route{Path: path, Pool: "default"})
	took := time.Since(began)
	var problem *admin.Problem
	j.mu.Lock()
	defer j.mu.Unlock()
	switch refusal := errors.As(err, &problem); {
	case err == nil:
		j.acked = append(j.acked, path)
	case !refusal || problem.Status == http.StatusGatewayTimeout:
		j.unknown++
	case problem.Status == http.StatusServiceUnavailable:
		j.refused = append(j.refused, path)
		j.took = append(j.took, took)
	default:
		j.strange = append(j.strange, fmt.Sprintf("%s: %d %s", n.name, problem.Status, problem.Detail))
	}
	return err == nil
}

// verify fails the test unless each node has each write that was acknowledged and
// none that was refused, and returns the figures.
func (j *journal) verify(t *testing.T, nodes []*lb) string {
	t.Helper()
	j.mu.Lock()
	defer j.mu.Unlock()
	lost, sneaked := 0, 0
	for _, n := range nodes {
		has := n.paths(t)
		missing := slices.DeleteFunc(slices.Clone(j.acked), func(p string) bool { return has[p] })
		extra := slices.DeleteFunc(slices.Clone(j.refused), func(p string) bool { return !has[p] })
		if len(missing) > 0 {
			t.Errorf("%s: %d acknowledged writes are lost, the first is %s; it shows %+v", n.name, len(missing), missing[0], own(n.view()).View)
		}
		if len(extra) > 0 {
			t.Errorf("%s: %d writes took effect although they were refused, the first is %s", n.name, len(extra), extra[0])
		}
		lost, sneaked = lost+len(missing), sneaked+len(extra)
	}
	if len(j.strange) > 0 {
		t.Errorf("%d writes got answers that are none of theirs, the first: %s", len(j.strange), j.strange[0])
	}
	return fmt.Sprintf("%d writes acknowledged, %d refused, %d unknown, %d lost, %d there although refused",
		len(j.acked), len(j.refused), j.unknown, lost, sneaked)
}

// paths are those of all routes that the node has.
func (n *lb) paths(t *testing.T) map[string]bool {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	routes, err := n.client.Routes(ctx)
	if err != nil {
		t.Fatalf("%s does not list its routes: %v", n.name, err)
	}
	has := map[string]bool{}
	for _, r := range routes {
		has[r.Path] = true
	}
	return has
}
