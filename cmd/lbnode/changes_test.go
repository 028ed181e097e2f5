package main

import (
	"strings"
	"testing"

	"lbnode/state"
)

// TestPoolIsDescribedWhole: each setting that a pool has is told, in the order of the table.
func TestPoolIsDescribedWhole(t *testing.T) {
	p := &state.Pool{Name: "web", Settings: state.DefaultSettings()}
	p.Strategy, p.HashOn, p.SlowStart = state.Hash, "cookie:a", 5e9
	p.HealthCheck.Headers = map[string]string{"X-B": "2", "X-A": "1"}
	got, at := describePool(p), 0
	p.Each(func(path string, value any) {
		next := strings.Index(got[at:], path+" ")
		if next < 0 {
			t.Fatalf("got %s, want %s after the first %d bytes", got, path, at)
		}
		at += next
	})
	for _, want := range []string{"hash_on cookie:a", `health_check.headers X-A: "1", health_check.headers X-B: "2"`, "slow_start 5s"} {
		if !strings.Contains(got, want) {
			t.Errorf("got %s, want %s in it", got, want)
		}
	}
}
