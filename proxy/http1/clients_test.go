package http1

import (
	"net/netip"
	"testing"
)

func TestClientsAreCountedByAddress(t *testing.T) {
	c := clients{2, map[netip.Addr]int{}}
	enter := func(addr string, want bool) {
		t.Helper()
		if got := c.enter(clientOf(netip.MustParseAddr(addr))); got != want {
			t.Errorf("%s: got %t, want %t", addr, got, want)
		}
	}
	enter("192.0.2.1", true)
	enter("192.0.2.1", true)
	enter("192.0.2.1", false)
	enter("192.0.2.2", true)
	enter("2001:db8::1", true)
	enter("2001:db8::ffff:0:0:2", true)
	enter("2001:db8::3", false)
	enter("2001:db8:0:1::1", true)
	enter("fe80::1%eth0", true)
	enter("fe80::2%eth1", true)
	enter("fe80::3", false)
	if len(c.open) != 5 {
		t.Errorf("got %d clients, want 5: %v", len(c.open), c.open)
	}
	for addr, n := range map[string]int{"192.0.2.1": 2, "192.0.2.2": 1, "2001:db8::9": 2, "2001:db8:0:1::9": 1, "fe80::9": 2} {
		for range n {
			c.leave(clientOf(netip.MustParseAddr(addr)))
		}
	}
	if len(c.open) != 0 {
		t.Errorf("got %v left over, want nothing", c.open)
	}
}

func TestNoticeIsHeldBack(t *testing.T) {
	var n Notice
	limit := noticeEvery.Milliseconds()
	for _, test := range []struct{ now, want int64 }{{0, 1}, {1, 0}, {limit - 1, 0}, {limit, 3}, {limit + 1, 0}, {3 * limit, 2}} {
		if got := n.Take(test.now); got != test.want {
			t.Errorf("at %d ms: got %d, want %d", test.now, got, test.want)
		}
	}
}
