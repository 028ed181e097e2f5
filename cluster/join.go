package cluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// JoinTarget is one entry of a join list.
type JoinTarget struct {
	// Host is an IP address or DNS name, or the SRV name if Port is 0.
	Host string
	Port int
}

// String gives the entry as a person would write it.
func (t JoinTarget) String() string {
	if t.Port == 0 {
		return "srv:" + t.Host
	}
	return net.JoinHostPort(t.Host, strconv.Itoa(t.Port))
}

// ParseJoin parses the entries of a join list; defaultPort stands in where an
// entry names no port. The error names the entry.
func ParseJoin(entries []string, defaultPort int) ([]JoinTarget, error) {
	var targets []JoinTarget
	for _, entry := range entries {
		target, err := parseTarget(entry, defaultPort)
		if err != nil {
			return nil, fmt.Errorf("-join %q is not host, host:port or srv:_name: %w", entry, err)
		}
		targets = append(targets, target)
	}
	return targets, nil
}

func parseTarget(entry string, defaultPort int) (JoinTarget, error) {
	if name, ok := strings.CutPrefix(entry, "srv:"); ok {
		return JoinTarget{Host: name}, checkHost(name)
	}
	if _, err := netip.ParseAddr(entry); err == nil || !strings.Contains(entry, ":") {
		return JoinTarget{entry, defaultPort}, checkHost(entry)
	}
	host, service, err := net.SplitHostPort(entry)
	if err != nil {
		return JoinTarget{}, err
	}
	port, err := strconv.Atoi(service)
	if err != nil || port < 1 || port > 65535 {
		return JoinTarget{}, fmt.Errorf("port %q is not a number from 1 to 65535", service)
	}
	return JoinTarget{host, port}, checkHost(host)
}

func checkHost(host string) error {
	if host == "" {
		return errors.New("the host is empty")
	}
	if _, err := netip.ParseAddr(host); err == nil {
		return nil
	}
	if last := host[strings.LastIndexByte(host, '.')+1:]; last != "" && strings.Trim(last, "0123456789") == "" {
		return fmt.Errorf("%q is no IP address", host) // nor a name: no top-level domain is a number
	}
	for _, r := range host {
		switch {
		case 'a' <= r && r <= 'z', 'A' <= r && r <= 'Z', '0' <= r && r <= '9', r == '.', r == '-', r == '_':
		default:
			return fmt.Errorf("a host cannot hold %q", r)
		}
	}
	return nil
}

// listed is one address that a join list stands for at the moment.
type listed struct {
	name string         // as the person wrote it, with the port
	addr netip.AddrPort // invalid if the name does not resolve
	err  error          // why not
}

// resolve looks all targets up. A target that does not resolve is in the result
// too, because a cluster must not be founded without it.
func resolve(ctx context.Context, targets []JoinTarget) []listed {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	var all []listed
	seen := map[netip.AddrPort]bool{}
	for _, t := range targets {
		for _, l := range t.resolve(ctx) {
			if l.err == nil && seen[l.addr] {
				continue
			}
			seen[l.addr] = true
			all = append(all, l)
		}
	}
	return all
}

func (t JoinTarget) resolve(ctx context.Context) []listed {
	if t.Port == 0 {
		return resolveSRV(ctx, t)
	}
	if ip, err := netip.ParseAddr(t.Host); err == nil {
		return []listed{{name: t.String(), addr: netip.AddrPortFrom(ip.Unmap(), uint16(t.Port))}}
	}
	ips, err := net.DefaultResolver.LookupNetIP(ctx, "ip", t.Host)
	if err != nil {
		return []listed{{name: t.String(), err: err}}
	}
	all := make([]listed, 0, len(ips))
	for _, ip := range preferIPv4(ips) {
		all = append(all, listed{name: t.String(), addr: netip.AddrPortFrom(ip.Unmap(), uint16(t.Port))})
	}
	return all
}

// preferIPv4 keeps one family of a name that has both, so that a node with two
// addresses is not counted as two nodes.
func preferIPv4(ips []netip.Addr) []netip.Addr {
	var v4 []netip.Addr
	for _, ip := range ips {
		if ip.Unmap().Is4() {
			v4 = append(v4, ip)
		}
	}
	if len(v4) > 0 {
		return v4
	}
	return ips
}

func resolveSRV(ctx context.Context, t JoinTarget) []listed {
	_, records, err := net.DefaultResolver.LookupSRV(ctx, "", "", t.Host)
	if err != nil {
		return []listed{{name: t.String(), err: err}}
	}
	var all []listed
	for _, r := range records {
		host := strings.TrimSuffix(r.Target, ".")
		all = append(all, JoinTarget{host, int(r.Port)}.resolve(ctx)...)
	}
	return all
}

// chooseAdvertise picks the IP address that others reach this node at, and says
// why: what was given, what gossip is bound to, or the address from which this
// machine reaches the first listed peer that is not itself.
func chooseAdvertise(ctx context.Context, c *Config, targets []JoinTarget) (netip.Addr, string, error) {
	if c.Advertise != "" {
		ip, err := netip.ParseAddr(c.Advertise)
		return ip, "given by -advertise", err
	}
	host, port, err := splitAddr(c.Bind)
	if err != nil {
		return netip.Addr{}, "", err
	}
	if !isWildcard(host) {
		ip, err := netip.ParseAddr(host)
		return ip, "gossip is bound to it", err
	}
	var own netip.Addr
	for _, l := range resolve(ctx, targets) {
		if l.err != nil || l.addr.Addr().IsLoopback() && int(l.addr.Port()) == port {
			continue // a name of this very machine often resolves to 127.0.1.1
		}
		ip, err := routesTo(l.addr)
		if err == nil && ip != l.addr.Addr() {
			return ip, "it routes to " + l.name, nil
		}
		if err == nil {
			own = ip // a machine reaches its own addresses from themselves
		}
	}
	if own.IsValid() {
		return own, "it is in the join list", nil
	}
	// An address of the documentation range: nothing is sent, the system only says
	// which of its own addresses it would send from.
	if ip, err := routesTo(netip.MustParseAddrPort("192.0.2.1:9")); err == nil {
		return ip, "it is the default route's", nil
	}
	return netip.MustParseAddr("127.0.0.1"), "this machine has no route to any other", nil
}

// routesTo returns the local address from which target would be reached.
func routesTo(target netip.AddrPort) (netip.Addr, error) {
	conn, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(target))
	if err != nil {
		return netip.Addr{}, err
	}
	defer conn.Close()
	return conn.LocalAddr().(*net.UDPAddr).AddrPort().Addr().Unmap(), nil
}

// isOwn says whether a listed address is this node's own: the advertised or the
// bound one, or, where gossip is bound to all addresses, any of this machine's
// with our port.
func isOwn(addr netip.AddrPort, advertised netip.AddrPort, bindHost string) bool {
	if addr == advertised {
		return true
	}
	if addr.Port() != advertised.Port() {
		return false
	}
	if !isWildcard(bindHost) {
		bound, err := netip.ParseAddr(bindHost)
		return err == nil && bound.Unmap() == addr.Addr()
	}
	if addr.Addr().IsLoopback() {
		return true
	}
	interfaces, err := net.InterfaceAddrs()
	if err != nil {
		return false
	}
	for _, i := range interfaces {
		if prefix, err := netip.ParsePrefix(i.String()); err == nil && prefix.Addr().Unmap() == addr.Addr() {
			return true
		}
	}
	return false
}
