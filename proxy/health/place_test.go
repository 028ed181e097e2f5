package health

import (
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"

	"lbnode/state"
)

// placed returns what the sink was told of places since the last call.
func (l *lab) placed() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	list := l.places
	l.places = nil
	return list
}

func (l *lab) wantPlaced(t *testing.T, when string, want ...string) {
	t.Helper()
	if got := l.placed(); !slices.Equal(got, want) {
		t.Errorf("%s: got %q told, want %q", when, got, want)
	}
}

// at is a result that was found at an address of the backend's name.
func at(r result, addr string) result {
	r.at = netip.MustParseAddr(addr)
	return r
}

func TestPlaceIsToldWhenItChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, l := newFacts(t), newLab()
		defer l.Stop()
		f.add(1, state.Healthy)
		l.always(at(passes, "192.0.2.1"))
		l.Update(f.check(state.HealthCheck{Interval: state.Duration(second)}), all)
		pass(5 * second)
		l.wantPlaced(t, "probes pass", "1 at 192.0.2.1")
		l.always(at(fails, "192.0.2.2"))
		pass(5 * second)
		l.always(at(refused, "192.0.2.2"))
		pass(5 * second)
		l.wantPlaced(t, "probes fail elsewhere")
		l.always(at(passes, "192.0.2.2"))
		pass(5 * second)
		l.wantPlaced(t, "probes pass elsewhere", "1 at 192.0.2.2")
		l.always(passes)
		pass(5 * second)
		l.wantPlaced(t, "probes do not say where they passed")
		l.Update(f.check(state.HealthCheck{Interval: state.Duration(2 * second)}), nil)
		l.always(at(passes, "192.0.2.2"))
		pass(5 * second)
		l.wantPlaced(t, "the check is another one")
		l.Update(f.machine.View(), none)
		pass(5 * second)
		l.wantPlaced(t, "nobody probes it here", "1 at invalid IP")
		l.Update(f.machine.View(), all)
		pass(5 * second)
		l.wantPlaced(t, "it is probed again", "1 at 192.0.2.2")
		l.Suspect("1")
		l.Update(f.machine.View(), none)
		pass(second / 10)
		l.Update(f.machine.View(), all)
		pass(5 * second)
		l.wantPlaced(t, "it was probed all the time, for one reason or another")
		l.Update(f.patch("1", state.Backend{Port: 99}), nil)
		pass(5 * second)
		l.wantPlaced(t, "it has another URL", "1 at 192.0.2.2")
	})
}
