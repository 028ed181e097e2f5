package state

import (
	"reflect"
	"testing"
)

func TestOutlierStaysUntilItIsTakenAway(t *testing.T) {
	r := newFixture(t)
	for _, step := range []struct{ give, want Pool }{
		{Pool{Panic: 40, SlowStart: seconds(30)}, Pool{Panic: 40, SlowStart: seconds(30)}},
		{Pool{Outlier: Outlier{Consecutive: 5, Time: seconds(2)}}, Pool{Panic: 40, SlowStart: seconds(30), Outlier: Outlier{Consecutive: 5, Time: seconds(2)}}},
		{Pool{Outlier: Outlier{Time: NoDuration, MaxShare: 10}}, Pool{Panic: 40, SlowStart: seconds(30), Outlier: Outlier{Consecutive: 5, MaxShare: 10}}},
		{Pool{Panic: NoLimit, SlowStart: NoDuration, Outlier: Outlier{Consecutive: NoLimit, MaxShare: NoLimit}}, Pool{}},
	} {
		step.give.Name = "web"
		r.do(t, &UpdatePool{Pool: step.give})
		p := r.View().Pool("web")
		if got := (Pool{Panic: p.Panic, SlowStart: p.SlowStart, Outlier: p.Outlier}); !reflect.DeepEqual(got, step.want) {
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
