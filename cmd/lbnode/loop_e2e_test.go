package main

import (
	"net/http"
	"strings"
	"testing"
	"time"
)

// Nodes that are the backends of their own pool answer 508 instead of asking each other
// without end, and once probes ask what traffic asks they find that out.
func TestNodesThatAreTheirOwnBackends(t *testing.T) {
	t.Parallel()
	nodes := newLBs(t, 2)
	startAll(nodes)
	eventually(t, time.Minute, "all nodes are healthy", func() bool {
		return every(nodes, func(n *lb) bool { v := n.view(); return v != nil && v.Healthy && len(v.Nodes) == 2 })
	})
	write := func(method, path, body string) {
		t.Helper()
		if r := nodes[0].ask(method, path, body); r.err != nil || r.status >= http.StatusMultipleChoices {
			t.Fatalf("%s %s: got %d %s, %v", method, path, r.status, r.body, r.err)
		}
	}
	write("POST", "/v1/pools", `{"name":"default","health_check":{"type":"tcp","interval":"300ms","timeout":"200ms"}}`)
	for _, n := range nodes {
		write("POST", "/v1/pools/default/backends", `{"name":"`+n.name+`","url":"http://`+n.http+`"}`)
	}
	judged := func(health string) func() bool {
		return func() bool {
			return every(nodes, func(n *lb) bool { h := n.health(); return h["lb1"] == health && h["lb2"] == health })
		}
	}
	eventually(t, time.Minute, "both can be connected to", judged("healthy"))
	for _, n := range nodes {
		for range 5 {
			if got := statusOf(t, "http://"+n.http); got != http.StatusLoopDetected {
				t.Errorf("got %d of %s, want 508", got, n.name)
			}
		}
	}
	write("PATCH", "/v1/pools/default", `{"health_check":{"type":"http"}}`)
	eventually(t, time.Minute, "both fail their probes", judged("unhealthy"))
	for _, b := range nodes[0].view().Pools[0].Backends {
		for _, o := range b.Observers {
			if !strings.HasPrefix(o.Reason, "508 Loop Detected") {
				t.Errorf("got the reason %q of %s for %s, want 508", o.Reason, o.Node, b.Name)
			}
		}
	}
}
