package proxy

import (
	"maps"
	"net/http"
	"testing"

	"lbnode/state"
)

// What a backend's agent asks for counts beside what the operator wants, and the
// stricter of both.
func TestAgentsWishIsServed(t *testing.T) {
	a, b := startServer(t, "a", nil), startServer(t, "b", nil)
	p, url := startProxy(t, Config{}, a.backend(), b.backend())
	c := client(t)
	for _, test := range []struct {
		admin state.Admin
		agent state.Wish
		want  map[string]int // of 12 requests
	}{
		{state.Ready, state.Wish{}, map[string]int{"a": 9, "b": 3}},
		{state.Ready, state.Wish{Weight: "33%"}, map[string]int{"a": 6, "b": 6}}, // 3 becomes 1, as b has
		{state.Ready, state.Wish{Weight: "0%"}, map[string]int{"b": 12}},
		{state.Ready, state.Wish{Admin: state.Drain}, map[string]int{"b": 12}},
		{state.Drain, state.Wish{Weight: "100%"}, map[string]int{"b": 12}},
	} {
		one, other := a.backend(), b.backend()
		one.Weight, other.Weight, one.Admin, one.Agent = 3, 1, test.admin, test.agent
		p.SetView(viewOf(nil, poolOf(state.DefaultPool, one, other)))
		got := map[string]int{}
		for range 12 {
			got[mustGet(t, c, url, http.StatusOK)]++
		}
		if !maps.Equal(got, test.want) {
			t.Errorf("admin %s, agent %+v: got %v, want %v", test.admin, test.agent, got, test.want)
		}
	}
}
