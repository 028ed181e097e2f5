package cluster

import (
	"fmt"
	"net"
	"net/netip"
)

// networks are those from which other nodes may come; without any, all.
type networks []netip.Prefix

// ParseNetworks parses addresses and networks in CIDR notation (RFC 4632), the value
// of that flag. The error names the flag and the entry. What is written as IPv4 within
// IPv6 becomes IPv4.
func ParseNetworks(flag string, entries []string) ([]netip.Prefix, error) {
	var all []netip.Prefix
	for _, entry := range entries {
		prefix, err := netip.ParsePrefix(entry)
		if ip, notPrefix := netip.ParseAddr(entry); notPrefix == nil {
			prefix, err = netip.PrefixFrom(ip, ip.BitLen()), nil
		}
		if err != nil {
			return nil, fmt.Errorf("-%s %q is not a network such as 10.0.0.0/24, nor an IP address", flag, entry)
		}
		if addr := prefix.Addr(); addr.Is4In6() && prefix.Bits() >= 96 {
			prefix = netip.PrefixFrom(addr.Unmap(), prefix.Bits()-96)
		}
		all = append(all, prefix)
	}
	return all, nil
}

// allow says whether a node may come from that address.
func (n networks) allow(from net.Addr) bool {
	if len(n) == 0 {
		return true
	}
	addr, err := netip.ParseAddrPort(from.String())
	if err != nil {
		return false
	}
	for _, prefix := range n {
		if prefix.Contains(addr.Addr().Unmap()) {
			return true
		}
	}
	return false
}
