package main

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"
)

// steadyLoad sends requests at a fixed rate to the nodes that take part, one after
// the other, whether or not earlier ones are answered. How long a request takes is
// counted from when it was due. Where maxUnderway are not answered, on a machine
// that cannot keep up, the next ones are held back and counted.
type steadyLoad struct {
	client  *http.Client
	cancel  context.CancelFunc
	sending sync.WaitGroup

	mu       sync.Mutex
	nodes    []*lb
	underway map[*lb]int
	held     int
	took     []time.Duration
	failed   []string
}

const maxUnderway = 256

// startSteadyLoad begins with so many requests a second.
func startSteadyLoad(t *testing.T, nodes []*lb, perSecond int) *steadyLoad {
	ctx, cancel := context.WithCancel(context.Background())
	l := &steadyLoad{
		client:   &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}, Timeout: patience},
		cancel:   cancel,
		nodes:    slices.Clone(nodes),
		underway: map[*lb]int{},
	}
	t.Cleanup(l.stop)
	l.sending.Go(func() { l.send(ctx, time.Second/time.Duration(perSecond)) })
	return l
}

func (l *steadyLoad) stop() {
	l.cancel()
	l.sending.Wait()
	l.client.CloseIdleConnections()
}

func (l *steadyLoad) send(ctx context.Context, every time.Duration) {
	due := time.Now()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for i := 0; ; i++ {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		if n := l.begin(i); n != nil {
			at := due
			l.sending.Go(func() { l.request(n, at) })
		}
		due = due.Add(every)
		timer.Reset(time.Until(due))
	}
}

// begin chooses the node for the i-th request, nil if it is not to be sent.
func (l *steadyLoad) begin(i int) *lb {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.nodes) == 0 {
		return nil
	}
	n := l.nodes[i%len(l.nodes)]
	if l.underway[n] >= maxUnderway/len(l.nodes) {
		l.held++
		return nil
	}
	l.underway[n]++
	return n
}

func (l *steadyLoad) request(n *lb, due time.Time) {
	_, err := fetch(l.client, "http://"+n.http+"/")
	l.mu.Lock()
	defer l.mu.Unlock()
	l.underway[n]--
	l.took = append(l.took, time.Since(due))
	if err != nil {
		l.failed = append(l.failed, n.name+" at "+time.Now().Format("15:04:05.000")+": "+err.Error())
	}
}

// spare sends no more requests to a node and waits for those under way.
func (l *steadyLoad) spare(t *testing.T, spared ...*lb) {
	t.Helper()
	l.mu.Lock()
	l.nodes = slices.DeleteFunc(l.nodes, func(n *lb) bool { return slices.Contains(spared, n) })
	l.mu.Unlock()
	eventually(t, patience, "no request is under way at the spared nodes", func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		return !slices.ContainsFunc(spared, func(n *lb) bool { return l.underway[n] > 0 })
	})
}

// include sends requests to the nodes again.
func (l *steadyLoad) include(nodes ...*lb) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.nodes = append(l.nodes, nodes...)
}

// conclude ends the load, fails the test if any request failed, and returns its
// figures.
func (l *steadyLoad) conclude(t *testing.T) string {
	t.Helper()
	l.stop()
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.took) == 0 {
		t.Error("got no requests at all")
	}
	if len(l.failed) > 0 {
		t.Errorf("got %d of %d requests failed, want 0; the first ones: %q", len(l.failed), len(l.took), l.failed[:min(3, len(l.failed))])
	}
	return fmt.Sprintf("%d requests, %d failed, %d held back, %s", len(l.took), len(l.failed), l.held, spread(l.took))
}

// spread sums durations up.
func spread(took []time.Duration) string {
	if len(took) == 0 {
		return "none"
	}
	sorted := slices.Sorted(slices.Values(took))
	at := func(percent int) time.Duration {
		d := sorted[(len(sorted)-1)*percent/100]
		if d > time.Second {
			return d.Round(10 * time.Millisecond)
		}
		return d.Round(10 * time.Microsecond)
	}
	return fmt.Sprintf("p50 %s p99 %s max %s of %d", at(50), at(99), at(100), len(sorted))
}
