package health

import (
	"context"
	"log/slog"
	"net/netip"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"lbnode/state"
)

// Many silent backends hold no more probes than there is room for. All are probed in turn, and
// one that answers is not taken for dead because of them.
func TestSilentBackendsHoldFewProbes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const most, backends = 3, 40
		var said strings.Builder
		l := newLab()
		defer l.Stop()
		l.room = newRoom(most, slog.New(slog.NewTextHandler(&said, nil)))
		var now, peak atomic.Int32
		l.Checker.probe = func(ctx context.Context, pool *state.Pool, b *state.Backend, last netip.Addr) result {
			peak.Store(max(peak.Load(), now.Add(1)))
			defer now.Add(-1)
			if b.ID != "1" {
				<-time.After(second)
			}
			return l.fakeProbe(ctx, pool, b, last)
		}
		l.answerWith(func(b *state.Backend) result {
			if b.ID == "1" {
				return passes
			}
			return result{reason: "timeout after 1s"}
		})
		l.Update(newFacts(t).add(backends, state.Starting), all)
		pass(100 * second)
		if got := peak.Load(); got != most {
			t.Errorf("got %d probes at once, want %d", got, most)
		}
		for i := range backends {
			if got := l.begun(strconv.Itoa(i + 1)); got < 5 {
				t.Errorf("got %d probes of backend %d in 100 s, want one for each round of %d s at least", got, i+1, backends/most)
			}
		}
		if o, probed := l.Observation("1"); !probed || !o.Healthy {
			t.Errorf("got %+v of the backend that answers, want it healthy", o)
		}
		if got := strings.Count(said.String(), "probes wait for one another"); got != 2 {
			t.Errorf("got %d lines of probes that wait, want one a minute:\n%s", got, said.String())
		}
	})
}
