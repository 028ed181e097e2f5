package state

import (
	"reflect"
	"testing"
)

func TestProxyProtocolStaysUntilItIsTakenAway(t *testing.T) {
	r := newFixture(t)
	for _, step := range []struct{ give, want string }{
		{"", ""}, {ProxyV2, ProxyV2}, {"", ProxyV2}, {ProxyV1, ProxyV1}, {ProxyNone, ""},
	} {
		r.do(t, &UpdatePool{Pool: Pool{Name: "web", Settings: Settings{ProxyProtocol: step.give}}})
		if got := r.View().Pool("web").ProxyProtocol; got != step.want {
			t.Errorf("after %q: got %q, want %q", step.give, got, step.want)
		}
	}
}

func TestHashOnStaysUntilItIsTakenAway(t *testing.T) {
	r := newFixture(t)
	for _, step := range []struct{ strategy, give, want string }{
		{Hash, "", ""}, {"", HashPath, HashPath}, {"", "", HashPath}, {Hash, "", HashPath}, {"", "cookie:a", "cookie:a"},
		{"", HashClient, ""}, {"", "query:q", "query:q"}, {Random, "", ""}, {Hash, "header:h", "header:h"}, {Random, HashClient, ""},
	} {
		r.do(t, &UpdatePool{Pool: Pool{Name: "web", Settings: Settings{Strategy: step.strategy, HashOn: step.give}}})
		if got := r.View().Pool("web").HashOn; got != step.want {
			t.Errorf("after %q with %q: got %q, want %q", step.give, step.strategy, got, step.want)
		}
	}
	result := r.commit(t, Command{Op: &UpdatePool{Pool: Pool{Name: "web", Settings: Settings{HashOn: HashPath}}}})
	if result.Err == nil || result.Err.Field != "hash_on" {
		t.Errorf("got %v for a key that the strategy does not look at, want hash_on at fault", result.Err)
	}
	r.do(t, &CreatePool{Pool: Pool{Name: "m", Settings: Settings{Strategy: Hash, HashOn: HashClient}}})
	if got := r.View().Pool("m").HashOn; got != "" {
		t.Errorf("got %q for the default, want it left out", got)
	}
}

func TestStickyStaysUntilItIsTakenAway(t *testing.T) {
	r := newFixture(t)
	for _, step := range []struct{ give, want Sticky }{
		{Sticky{}, Sticky{}}, {Sticky{Cookie: "a"}, Sticky{Cookie: "a"}}, {Sticky{Drain: StickyMove}, Sticky{"a", StickyMove}},
		{Sticky{Cookie: "b"}, Sticky{"b", StickyMove}}, {Sticky{Drain: StickyStay}, Sticky{Cookie: "b"}},
		{Sticky{Drain: StickyMove}, Sticky{"b", StickyMove}}, {Sticky{Cookie: StickyNone}, Sticky{}}, {Sticky{Cookie: "c", Drain: StickyStay}, Sticky{Cookie: "c"}},
	} {
		r.do(t, &UpdatePool{Pool: Pool{Name: "web", Settings: Settings{Sticky: step.give}}})
		if got := r.View().Pool("web").Sticky; got != step.want {
			t.Errorf("after %+v: got %+v, want %+v", step.give, got, step.want)
		}
	}
}

func TestLimitsStayUntilTheyAreTakenAway(t *testing.T) {
	r := newFixture(t)
	for _, step := range []struct{ give, want Limits }{
		{Limits{Connections: 10, Pending: 5}, Limits{Connections: 10, Pending: 5}},
		{Limits{Failures: 3, Open: seconds(2)}, Limits{Connections: 10, Pending: 5, Failures: 3, Open: seconds(2)}},
		{Limits{Pending: NoLimit, Connections: 20}, Limits{Connections: 20, Failures: 3, Open: seconds(2)}},
		{Limits{Connections: NoLimit, Failures: NoLimit}, Limits{Open: seconds(2)}},
	} {
		r.do(t, &UpdatePool{Pool: Pool{Name: "web", Settings: Settings{Limits: step.give}}})
		if got := r.View().Pool("web").Limits; got != step.want {
			t.Errorf("after %+v: got %+v, want %+v", step.give, got, step.want)
		}
	}
}

func TestOutlierStaysUntilItIsTakenAway(t *testing.T) {
	r := newFixture(t)
	for _, step := range []struct{ give, want Pool }{
		{Pool{Settings: Settings{Panic: 40, SlowStart: seconds(30)}}, Pool{Settings: Settings{Panic: 40, SlowStart: seconds(30)}}},
		{Pool{Settings: Settings{Outlier: Outlier{Consecutive: 5, Time: seconds(2)}}}, Pool{Settings: Settings{Panic: 40, SlowStart: seconds(30), Outlier: Outlier{Consecutive: 5, Time: seconds(2)}}}},
		{Pool{Settings: Settings{Outlier: Outlier{Time: NoDuration, MaxShare: 10}}}, Pool{Settings: Settings{Panic: 40, SlowStart: seconds(30), Outlier: Outlier{Consecutive: 5, MaxShare: 10}}}},
		{Pool{Settings: Settings{Panic: NoLimit, SlowStart: NoDuration, Outlier: Outlier{Consecutive: NoLimit, MaxShare: NoLimit}}}, Pool{}},
	} {
		step.give.Name = "web"
		r.do(t, &UpdatePool{Pool: step.give})
		p := r.View().Pool("web")
		if got := (Pool{Settings: Settings{Panic: p.Panic, SlowStart: p.SlowStart, Outlier: p.Outlier}}); !reflect.DeepEqual(got, step.want) {
			t.Errorf("after %+v: got %+v, want %+v", step.give, got, step.want)
		}
	}
}

func TestBackupStaysUntilItIsTakenAway(t *testing.T) {
	r := newFixture(t)
	name := r.View().Pool("web").Backends[0].Name
	for _, step := range []struct {
		op   UpdateBackend
		want bool
	}{
		{UpdateBackend{Patch: Backend{Backup: true}}, true},
		{UpdateBackend{Patch: Backend{Weight: 3}}, true},
		{UpdateBackend{Primary: true}, false},
	} {
		step.op.Pool, step.op.Name = "web", name
		r.do(t, &step.op)
		if got := r.View().Pool("web").Backends[0].Backup; got != step.want {
			t.Errorf("after %+v: got backup %v, want %v", step.op, got, step.want)
		}
	}
}

func TestTimesAreTakenAway(t *testing.T) {
	r := newFixture(t)
	was := *r.View().Pool("web")
	full := fullPool4()
	r.do(t, &UpdatePool{Pool: Pool{
		Name: "web", Settings: Settings{Timeouts: Timeouts{Try: full.Timeouts.Try, Hedge: full.Timeouts.Hedge}, Limits: Limits{Open: full.Limits.Open},
			HealthCheck: HealthCheck{UnhealthyInterval: full.HealthCheck.UnhealthyInterval}, Outlier: Outlier{Time: full.Outlier.Time}, SlowStart: full.SlowStart,
		},
	}})
	if got := r.View().Pool("web"); got.Timeouts.Try == 0 || got.HealthCheck.UnhealthyInterval == 0 {
		t.Fatalf("got %+v, want times to take away", got)
	}
	const none = NoDuration
	r.do(t, &UpdatePool{Pool: Pool{
		Name: "web", Settings: Settings{Timeouts: Timeouts{Try: none, Hedge: none}, Limits: Limits{Open: none},
			HealthCheck: HealthCheck{UnhealthyInterval: none}, Outlier: Outlier{Time: none}, SlowStart: none,
		},
	}})
	if got := *r.View().Pool("web"); !reflect.DeepEqual(got, was) {
		t.Errorf("got  %+v\nwant %+v", got, was)
	}
}

func TestDurationOfNone(t *testing.T) {
	var d Duration
	if err := d.UnmarshalText([]byte("none")); err != nil || d != NoDuration {
		t.Errorf("got %v, %v, want what takes a time away", d, err)
	}
	text, err := d.MarshalText()
	if err != nil || string(text) != "-1ns" {
		t.Errorf("got %s, %v, want -1ns, which older binaries read as well", text, err)
	}
}
