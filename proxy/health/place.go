package health

import (
	"cmp"
	"context"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"lbnode/state"
)

// A host that is a name is looked up for each probe, and may move. Where probes pass, the
// sink is told, so that traffic goes to what was judged and not to where the name once led.

// dial connects to a host. Of several addresses that is the one where the last probe passed,
// within half of the time, and else any. The dialer knows the timeout besides the context,
// which names no end, so that it shares it out among the addresses.
func (p prober) dial(ctx context.Context, timeout time.Duration, host string, port int) (net.Conn, error) {
	dialer := net.Dialer{KeepAlive: -1, Timeout: timeout, Resolver: p.resolver}
	if p.last.IsValid() && p.isOneOf(ctx, host, p.last) {
		near := dialer
		near.Timeout = timeout / 2
		if conn, err := near.DialContext(ctx, "tcp", netip.AddrPortFrom(p.last, uint16(port)).String()); err == nil {
			return conn, nil
		}
	}
	return dialer.DialContext(ctx, "tcp", net.JoinHostPort(host, strconv.Itoa(port)))
}

// isOneOf says whether a name stands for the address and for others.
func (p prober) isOneOf(ctx context.Context, host string, addr netip.Addr) bool {
	addrs, err := cmp.Or(p.resolver, net.DefaultResolver).LookupNetIP(ctx, "ip", host)
	return err == nil && len(addrs) > 1 && slices.ContainsFunc(addrs, func(a netip.Addr) bool { return a.Unmap() == addr })
}

// placeOf is where a connection to a backend goes; zero for a host that is an address, which
// does not move.
func placeOf(conn net.Conn, b *state.Backend) netip.Addr {
	if _, err := netip.ParseAddr(b.Host); err == nil {
		return netip.Addr{}
	}
	if tcp, ok := conn.RemoteAddr().(*net.TCPAddr); ok {
		return tcp.AddrPort().Addr().Unmap()
	}
	return netip.Addr{}
}

func (c *Checker) placeOf(t *target) netip.Addr {
	c.mu.Lock()
	defer c.mu.Unlock()
	return t.at
}

func (c *Checker) recordPlace(t *target, r result) []func() {
	if !r.passed || !r.at.IsValid() || r.at == t.at {
		return nil
	}
	t.at = r.at
	return []func(){func() { c.sink.Placed(t.backend.ID, t.backend.URL(), r.at) }}
}

// displace tells the sink that nobody looks any more where a backend is that was probed by t.
func (c *Checker) displace(t *target) {
	c.deliver.Lock()
	defer c.deliver.Unlock()
	c.mu.Lock()
	over := !c.stopped && c.targets[t.backend.ID] == nil
	c.mu.Unlock()
	if over {
		c.sink.Placed(t.backend.ID, t.backend.URL(), netip.Addr{})
	}
}
