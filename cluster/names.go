package cluster

import (
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// What a name in a join list leads to is what DNS says at the moment, on each machine
// something else while records are on their way.

// hasOthers says whether a list leads to anybody but this node.
func hasOthers(peers []peer) bool {
	return slices.ContainsFunc(peers, func(p peer) bool { return !p.own })
}

// steady is since when a join list has stood for the same addresses.
type steady struct {
	addrs []netip.AddrPort
	since time.Time
}

// hold has a founder wait until names have led to the same nodes for a while, unless the list
// itself says how many there are: DNS may know but some of them yet.
func (s *steady) hold(next *step, targets []JoinTarget, peers []peer, now time.Time) {
	var addrs []netip.AddrPort
	for _, p := range peers {
		addrs = append(addrs, p.addr)
	}
	slices.SortFunc(addrs, netip.AddrPort.Compare)
	if !slices.Equal(addrs, s.addrs) {
		s.addrs, s.since = addrs, now
	}
	if next.found && countedByDNS(targets, peers) && now.Sub(s.since) < namesSteady {
		*next = step{waiting: fmt.Sprintf("DNS to name the same %d nodes for %s", len(addrs), namesSteady)}
	}
}

// countedByDNS says whether only DNS knows how many nodes a list stands for: it has a
// name, and is not one node for each entry.
func countedByDNS(targets []JoinTarget, peers []peer) bool {
	byName := slices.ContainsFunc(peers, func(p peer) bool { return p.byName })
	return byName && (len(targets) == 1 || len(peers) != len(targets))
}
