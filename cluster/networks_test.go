package cluster

import (
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"
)

func TestNetworks(t *testing.T) {
	if _, err := ParseNetworks("allow-from", []string{"10.0.0.0/33"}); err == nil || !strings.Contains(err.Error(), `-allow-from "10.0.0.0/33"`) {
		t.Errorf("a network of 33 bits: got %v, want it refused by name", err)
	}
	parsed, err := ParseNetworks("allow-from", []string{"10.0.0.0/24", "192.168.1.7", "fd00::/8", "::ffff:172.16.0.0/108", "::ffff:192.0.2.1"})
	some := networks(parsed)
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		from string
		some bool
	}{
		{"10.0.0.255:1", true}, {"10.0.1.0:1", false}, {"[::ffff:10.0.0.9]:1", true},
		{"192.168.1.7:1", true}, {"192.168.1.8:1", false}, {"[fd00::1]:1", true}, {"[fe80::1]:1", false},
		{"172.31.255.255:1", true}, {"172.32.0.0:1", false}, {"192.0.2.1:1", true}, {"192.0.2.2:1", false},
	} {
		addr := net.TCPAddrFromAddrPort(netip.MustParseAddrPort(test.from))
		if got := some.allow(addr); got != test.some {
			t.Errorf("%s: got %v, want %v", test.from, got, test.some)
		}
		if !networks(nil).allow(addr) {
			t.Errorf("%s: not let in although all are", test.from)
		}
	}
}

// A node from elsewhere gets no answer on any port, and so no cluster.
func TestNodeFromElsewhereIsNotLetIn(t *testing.T) {
	t.Parallel()
	nodes := startCluster(t, 1, func(c *Config) { c.AllowFrom = []string{"10.0.0.0/8"} })
	stranger := newConfig(t, "stranger", nodes[0].cfg.Bind)
	c := openOnly(t, stranger)
	if err := c.gossip.join(nodes[0].gossip.address()); err == nil {
		t.Error("gossip let it in")
	}
	conn, err := net.Dial("tcp", nodes[0].cfg.Raft)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetReadDeadline(time.Now().Add(waitLong))
	if _, err := conn.Read(make([]byte, 1)); err == nil || isTimeout(err) {
		t.Errorf("got %v from raft's port, want the connection closed", err)
	}
	if got := len(nodes[0].gossip.all()); got != 1 {
		t.Errorf("got %d members, want 1", got)
	}
}

func isTimeout(err error) bool {
	e, ok := err.(net.Error)
	return ok && e.Timeout()
}
