package proxy

import (
	"fmt"
	"testing"

	"lbnode/state"
)

// BenchmarkAllUnreachable finds every backend of a large pool unreachable, one after
// the other, as when a network fails.
func BenchmarkAllUnreachable(b *testing.B) {
	var backends []state.Backend
	for i := range 2500 {
		name := fmt.Sprintf("web-%d", i)
		backends = append(backends, state.Backend{ID: name, Name: name, Protocol: "http", Host: "h", Port: 1 + i, Weight: 1, Admin: state.Ready, Health: state.Healthy})
	}
	p := New(Config{})
	p.SetView(viewOf(nil, poolOf(state.DefaultPool, backends...)))
	for reachable := false; b.Loop(); reachable = !reachable {
		for i := range backends {
			p.SetReachable(backends[i].ID, reachable)
			p.SetOpinion(backends[i].ID, reachable)
		}
	}
}
