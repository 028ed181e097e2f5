package http1

import (
	"math"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

// restedUpstream gives a connection that has become idle at that time for the first time.
func restedUpstream(t *testing.T, b *Backend, now int64) *upstream {
	t.Helper()
	here, there := net.Pipe()
	t.Cleanup(func() { there.Close() })
	b.open.Add(1)
	u := newUpstream(here, b)
	u.place = b.place.Load()
	if !u.rest(now) {
		t.Fatal("got it closed, want it to rest")
	}
	return u
}

func TestConnectionsAreNotUsedForEver(t *testing.T) {
	const born, second = 5000, 1000
	for _, test := range []struct {
		name      string
		idle, age time.Duration
		reused    int64 // when it was used once more; 0: it was not
		now       int64
		want      bool // whether it is spent
	}{
		{"idle in time", time.Minute, 0, 0, born + 60*second, false},
		{"idle for too long", time.Minute, 0, 0, born + 60*second + 1, true},
		{"used meanwhile", time.Minute, 0, born + 59*second, born + 100*second, false},
		{"no bound", 0, 0, 0, math.MaxInt64 - 1, false},
		{"young", time.Minute, time.Minute, born + 40*second, born + 52*second, false},
		{"old, though used", time.Minute, time.Minute, born + 40*second, born + 60*second, true},
		{"old, but a user's", time.Minute, time.Minute, born + 40*second, born + 60*second, false},
	} {
		u := restedUpstream(t, NewBackend(BackendConfig{Idle: test.idle, Age: test.age}), born)
		u.tied = test.name == "old, but a user's"
		if test.reused > 0 && !u.rest(test.reused) {
			t.Errorf("%s: got it closed when it was used again", test.name)
		}
		if got := u.spent(test.now); got != test.want {
			t.Errorf("%s: got it spent %t, want %t", test.name, got, test.want)
		}
	}
	b := NewBackend(BackendConfig{Age: time.Minute})
	u := restedUpstream(t, b, born)
	if u.rest(born+60*second) || b.open.Load() != 0 {
		t.Errorf("got one kept, of %d, that became too old while it was used", b.open.Load())
	}
}

// Connections that were opened at once must not all be opened anew at once.
func TestConnectionsAgeApart(t *testing.T) {
	b, ends := NewBackend(BackendConfig{Age: time.Minute}), map[int64]int{}
	for range 1000 {
		end := b.end(0)
		ends[end*10/time.Minute.Milliseconds()]++
		if end < 52_500 || end > 60_000 {
			t.Fatalf("got an end after %d ms, want it in the last eighth of a minute", end)
		}
	}
	if len(ends) < 2 {
		t.Errorf("got all ends at once: %v", ends)
	}
}

// A burst leaves connections that are not used again; those that are lead to their end.
func TestSpentConnectionsAreClosed(t *testing.T) {
	for _, bound := range []int{0, 100} {
		b := NewBackend(BackendConfig{Idle: time.Minute, Conns: bound})
		var all []*upstream
		for range 50 {
			all = append(all, restedUpstream(t, b, 0))
		}
		for _, u := range all {
			b.put(u, 0, 0)
		}
		for now := int64(0); now < 120_000; now += 1000 {
			u := b.idle(0)
			b.put(u, 0, now)
		}
		if got := b.open.Load(); got != 1 {
			t.Errorf("bound %d: got %d connections open after a minute in which one was used, want 1", bound, got)
		}
	}
}

// Where a backend is found anew, what goes elsewhere is closed or not used again; not what
// is already there, nor what is opened because the place takes no connection.
func TestSettle(t *testing.T) {
	here, there := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	b := NewBackend(BackendConfig{})
	at := func(addr netip.Addr) *upstream {
		u := restedUpstream(t, b, 0)
		u.addr = addr
		return u
	}
	for shard := range max(2, runtime.GOMAXPROCS(0)) {
		b.put(at(here), shard, 0)
		b.put(at(there), shard, 0)
	}
	busy, right := at(here), at(there)
	b.Settle(there)
	for u := b.idle(0); u != nil; u = b.idle(0) {
		if u.addr != there {
			t.Errorf("got an idle connection to %s, want those to %s", u.addr, there)
		}
	}
	beside := at(here)
	for _, test := range []struct {
		name string
		u    *upstream
		want bool
	}{{"busy elsewhere", busy, true}, {"busy there", right, false}, {"opened beside it", beside, false}} {
		if got := test.u.spent(0); got != test.want {
			t.Errorf("%s: got it spent %t, want %t", test.name, got, test.want)
		}
	}
	b.Settle(netip.Addr{})
	if busy.spent(0) {
		t.Error("got a connection given up for no other place")
	}
}

// A place that takes no connection leaves half of the time for the name's other addresses.
func TestPlaceLeavesTime(t *testing.T) {
	t.Parallel()
	listener := listen(t)
	defer listener.Close()
	b := NewBackend(BackendConfig{Addr: listener.Addr().String(), Connect: 4 * time.Second})
	b.Settle(netip.MustParseAddr("127.0.0.2"))
	var tried []string
	b.dialer.Control = func(_, address string, _ syscall.RawConn) error {
		if tried = append(tried, address); len(tried) == 1 {
			<-time.After(b.config.Connect/2 + 50*time.Millisecond)
		}
		return nil
	}
	u, err := b.get(t.Context(), 0, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer u.close()
	if len(tried) != 2 || !strings.HasPrefix(tried[0], "127.0.0.2:") || tried[1] != b.config.Addr || u.misplaced() {
		t.Errorf("got %q tried, and a connection to %s; want the place, and then %s", tried, u.addr, b.config.Addr)
	}
}
