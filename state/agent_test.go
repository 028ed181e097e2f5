package state

import "testing"

func TestWantedAndShare(t *testing.T) {
	for _, test := range []struct {
		admin  Admin
		agent  Wish
		weight int
		wanted Admin
		share  int
	}{
		{Ready, Wish{}, 7, Ready, 7},
		{Ready, Wish{Admin: Drain}, 7, Drain, 7},
		{Ready, Wish{Admin: Maint}, 7, Maint, 7},
		{Drain, Wish{}, 7, Drain, 7},
		{Drain, Wish{Admin: Maint}, 7, Maint, 7},
		{Maint, Wish{Admin: Drain}, 7, Maint, 7},
		{Ready, Wish{Weight: "50%"}, 10, Ready, 5},
		{Ready, Wish{Weight: "50%"}, 1, Ready, 1},
		{Ready, Wish{Weight: "1%"}, 10, Ready, 1},
		{Ready, Wish{Weight: "150%"}, 10, Ready, 15},
		{Ready, Wish{Weight: "300%"}, 200, Ready, 256},
		{Ready, Wish{Weight: "0%"}, 10, Drain, 1},
		{Maint, Wish{Weight: "0%"}, 10, Maint, 1},
	} {
		b := Backend{Admin: test.admin, Agent: test.agent, Weight: test.weight}
		if got := b.Wanted(); got != test.wanted {
			t.Errorf("%+v: got wanted %s, want %s", test, got, test.wanted)
		}
		if got := b.Share(); got != test.share {
			t.Errorf("%+v: got share %d, want %d", test, got, test.share)
		}
	}
}

// An agent's wish is kept beside the operator's, changes nothing else, and goes with
// the agent check.
func TestAgentsWish(t *testing.T) {
	r := newFixture(t)
	get := func() *Backend { return r.View().Pool("web").Backend("b1") }
	wish := &Wish{Admin: Drain, Weight: "50%"}
	judge(t, r, Verdict{Health: Healthy, Agent: wish})
	if got := get(); got.Agent != (Wish{}) || got.Health != Healthy {
		t.Errorf("got %+v, want no wish in a pool without agents", got)
	}
	r.do(t, &UpdatePool{Pool: Pool{Name: "web", Settings: Settings{HealthCheck: HealthCheck{Type: CheckAgent, Port: 81}}}})
	judge(t, r, Verdict{Agent: wish})
	if got := get(); got.Agent != *wish || got.Health != Healthy || got.Admin != Ready || got.Weight != 1 {
		t.Errorf("got %+v, want the wish and all else as it was", got)
	}
	pool := r.View().Pool("web")
	judge(t, r, Verdict{Health: Healthy, Agent: &Wish{Admin: Drain, Weight: "50%"}})
	if r.View().Pool("web") != pool {
		t.Error("a verdict that changes nothing changed the view")
	}
	judge(t, r, Verdict{Health: Unhealthy, Reason: "x"})
	if got := get(); got.Agent != *wish || got.Health != Unhealthy {
		t.Errorf("got %+v, want the wish to outlive a verdict that does not speak of it", got)
	}
	r.do(t, &Replace{Pools: []Pool{*r.View().Pool("web")}})
	if got := get(); got.Agent != *wish {
		t.Errorf("got %+v, want the wish to outlive a restore", got)
	}
	before := r.View().Pool("web")
	r.do(t, &UpdatePool{Pool: Pool{Name: "web", Settings: Settings{HealthCheck: HealthCheck{Type: CheckTCP}}}})
	if got := get(); got.Agent != (Wish{}) || got.Health != Unhealthy {
		t.Errorf("got %+v, want no wish without an agent check", got)
	}
	if before.Backends[0].Agent != *wish {
		t.Error("the view before was changed")
	}
	r.do(t, &UpdatePool{Pool: Pool{Name: "web", Settings: Settings{HealthCheck: HealthCheck{Type: CheckAgent}}}})
	judge(t, r, Verdict{Agent: wish})
	r.do(t, &UpdateBackend{Pool: "web", Name: "b1", Patch: Backend{Port: 99}})
	if got := get(); got.Agent != (Wish{}) {
		t.Errorf("got %+v, want no wish at another address", got)
	}
}
