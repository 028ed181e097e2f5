package cluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
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
	name   string         // as the person wrote it, with the port
	addr   netip.AddrPort // invalid if the name does not resolve
	err    error          // why not
	byName bool           // DNS gave the address
}

// resolveWithin is how long a name is looked up. What does not answer in that time
// does not resolve for now.
const resolveWithin = 5 * time.Second

// lookup finds the addresses of a host.
type lookup func(ctx context.Context, host string) ([]netip.Addr, error)

func lookUpHost(ctx context.Context, host string) ([]netip.Addr, error) {
	return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
}

// resolve looks all targets up at the same time. A target that does not resolve is in
// the result too, because a cluster must not be founded without it.
func resolve(ctx context.Context, targets []JoinTarget, look lookup) []listed {
	ctx, cancel := context.WithTimeout(ctx, resolveWithin)
	defer cancel()
	found := make([][]listed, len(targets))
	var looking sync.WaitGroup
	for i, t := range targets {
		looking.Go(func() { found[i] = t.resolve(ctx, look) })
	}
	looking.Wait()
	return withoutDoubles(slices.Concat(found...))
}

// withoutDoubles keeps one entry for each address. It is by name if any was.
func withoutDoubles(found []listed) []listed {
	var all []listed
	at := map[netip.AddrPort]int{}
	for _, l := range found {
		if i, seen := at[l.addr]; l.err == nil && seen {
			all[i].byName = all[i].byName || l.byName
			continue
		}
		if l.err == nil {
			at[l.addr] = len(all)
		}
		all = append(all, l)
	}
	return all
}

func (t JoinTarget) resolve(ctx context.Context, look lookup) []listed {
	if t.Port == 0 {
		return resolveSRV(ctx, t, look)
	}
	if addr, ok := t.literal(); ok {
		return []listed{{name: t.String(), addr: addr}}
	}
	ips, err := look(ctx, t.Host)
	if err != nil {
		return []listed{{name: t.String(), err: err, byName: true}}
	}
	all := make([]listed, 0, len(ips))
	for _, ip := range preferIPv4(ips) {
		all = append(all, listed{name: t.String(), addr: netip.AddrPortFrom(ip.Unmap(), uint16(t.Port)), byName: true})
	}
	return all
}

// literal is the address of a target that is one and no name.
func (t JoinTarget) literal() (netip.AddrPort, bool) {
	ip, err := netip.ParseAddr(t.Host)
	return netip.AddrPortFrom(ip.Unmap(), uint16(t.Port)), err == nil
}

// literals are the targets that need no looking up.
func literals(targets []JoinTarget) []listed {
	var all []listed
	for _, t := range targets {
		if addr, ok := t.literal(); ok {
			all = append(all, listed{name: t.String(), addr: addr})
		}
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

func resolveSRV(ctx context.Context, t JoinTarget, look lookup) []listed {
	_, records, err := net.DefaultResolver.LookupSRV(ctx, "", "", t.Host)
	if err != nil {
		return []listed{{name: t.String(), err: err, byName: true}}
	}
	var all []listed
	for _, r := range records {
		host := strings.TrimSuffix(r.Target, ".")
		for _, l := range (JoinTarget{host, int(r.Port)}).resolve(ctx, look) {
			l.byName = true
			all = append(all, l)
		}
	}
	return all
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
	has, err := hasAddress(addr.Addr())
	return has && err == nil
}
