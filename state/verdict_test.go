package state

import (
	"strings"
	"testing"
	"time"
)

// judge commits a verdict on backend 1 of the pool web.
func judge(t *testing.T, r *replica, v Verdict) *Backend {
	t.Helper()
	v.BackendID, v.URL = "id-1", "http://10.0.0.1:8080"
	r.do(t, &SetHealth{Verdicts: []Verdict{v}})
	return r.View().Pool("web").Backend("b1")
}

func TestVerdictHasItsReason(t *testing.T) {
	r := newFixture(t)
	b := judge(t, r, Verdict{Health: Unhealthy, Reason: "lb2: connection refused", Falls: 3})
	if b.Reason != "lb2: connection refused" || b.Falls != 3 {
		t.Errorf("got %+v, want the reason and the falls of the verdict", b)
	}
	pool := r.View().Pool("web")
	judge(t, r, Verdict{Health: Unhealthy, Reason: "lb3: timeout after 1s", Falls: 4})
	if r.View().Pool("web") != pool {
		t.Error("a reason alone changed the view")
	}
	r.do(t, &Replace{Pools: []Pool{*pool}})
	if b := r.View().Pool("web").Backend("b1"); b.Reason != "lb2: connection refused" || b.Falls != 3 {
		t.Errorf("after a restore: got %+v, want what was known of the backend", b)
	}
	if b := judge(t, r, Verdict{Health: Healthy}); b.Reason != "" || b.Falls != 0 {
		t.Errorf("got %+v, want the reason to go with the health", b)
	}
	judge(t, r, Verdict{Health: Unhealthy, Reason: "x", Falls: 1})
	for _, admin := range []Admin{Maint, Ready} {
		r.do(t, &UpdateBackend{Pool: "web", Name: "b1", Patch: Backend{Admin: admin}})
	}
	if b := r.View().Pool("web").Backend("b1"); b.Reason != "" || b.Falls != 0 || b.Health != Starting {
		t.Errorf("got %+v, want a backend of which nothing is known", b)
	}
}

func TestVerdictFields(t *testing.T) {
	checkFields(t, Verdict{BackendID: "1", Health: Unhealthy}, (*Verdict).validate, []fieldCase[Verdict]{
		{"plain", "", func(*Verdict) {}},
		{"starting", "health", func(v *Verdict) { v.Health = Starting }},
		{"reason of 120 bytes", "", func(v *Verdict) { v.Reason = strings.Repeat("é", 60) }},
		{"reason of 121 bytes", "reason", func(v *Verdict) { v.Reason = strings.Repeat("e", 121) }},
		{"newline in reason", "reason", func(v *Verdict) { v.Reason = "a\nb" }},
		{"broken UTF-8 in reason", "reason", func(v *Verdict) { v.Reason = "\xff" }},
		{"8 falls", "", func(v *Verdict) { v.Falls = 8 }},
		{"agent alone", "", func(v *Verdict) { v.Health, v.Agent = "", &Wish{Admin: Maint, Weight: "0%"} }},
		{"nothing", "health", func(v *Verdict) { v.Health = "" }},
		{"agent that is ready", "agent.admin", func(v *Verdict) { v.Agent = &Wish{Admin: Ready} }},
		{"agent of 100%", "agent.weight", func(v *Verdict) { v.Agent = &Wish{Weight: "100%"} }},
		{"agent of 25600%", "", func(v *Verdict) { v.Agent = &Wish{Weight: "25600%"} }},
		{"agent of 25601%", "agent.weight", func(v *Verdict) { v.Agent = &Wish{Weight: "25601%"} }},
		{"agent of 050%", "agent.weight", func(v *Verdict) { v.Agent = &Wish{Weight: "050%"} }},
		{"agent of 50", "agent.weight", func(v *Verdict) { v.Agent = &Wish{Weight: "50"} }},
		{"9 falls", "falls", func(v *Verdict) { v.Falls = 9 }},
		{"negative falls", "falls", func(v *Verdict) { v.Falls = -1 }},
	})
}

func TestUnjudged(t *testing.T) {
	pool := Pool{Name: "web", Backends: pointers([]Backend{{ID: "1", Health: Unhealthy, Reason: "x", Falls: 2, Agent: Wish{Admin: Drain}}})}
	got := pool.Unjudged()
	if b := got.Backends[0]; b.Reason != "" || b.Falls != 0 || b.Agent != (Wish{}) || b.Health != Unhealthy || got.version() != 1 {
		t.Errorf("got %+v, want the health alone", b)
	}
	if pool.Backends[0].Reason != "x" {
		t.Error("the pool itself was changed")
	}
}

func TestNextFalls(t *testing.T) {
	const minute = int64(time.Minute / time.Millisecond)
	for _, test := range []struct {
		name    string
		was     Health
		falls   int
		verdict Health
		after   int64 // minutes
		want    int
	}{
		{"first fall", Healthy, 0, Unhealthy, 1, 1},
		{"second fall", Healthy, 1, Unhealthy, 1, 2},
		{"rising counts nothing", Unhealthy, 2, Healthy, 1, 2},
		{"a new backend that fails has not fallen", Starting, 0, Unhealthy, 1, 0},
		{"five minutes forget one", Healthy, 2, Unhealthy, 5, 2},
		{"whether healthy or not", Unhealthy, 2, Healthy, 14, 0},
		{"no less than none", Unhealthy, 1, Healthy, 1_000_000, 0},
		{"no more than the most", Healthy, 8, Unhealthy, 0, 8},
		{"a clock that went back", Healthy, 3, Unhealthy, -60, 4},
	} {
		b := Backend{Health: test.was, Falls: test.falls, Since: someTime}
		if got := b.NextFalls(test.verdict, someTime+test.after*minute); got != test.want {
			t.Errorf("%s: got %d, want %d", test.name, got, test.want)
		}
	}
}

func TestHold(t *testing.T) {
	const s = time.Second
	want := []time.Duration{0, 0, 0, 10 * s, 20 * s, 40 * s, 80 * s, 160 * s, 300 * s}
	for falls, want := range want {
		b := Backend{Health: Unhealthy, Falls: falls}
		if got := b.Hold(); got != want {
			t.Errorf("%d falls: got %s, want %s", falls, got, want)
		}
		b.Health = Healthy
		if got := b.Hold(); got != 0 {
			t.Errorf("%d falls and healthy: got %s, want 0", falls, got)
		}
	}
}
