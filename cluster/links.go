package cluster

import (
	"fmt"
	"net/netip"
	"sync"
	"time"
)

// A member whose UDP packets are lost lives on, because gossip then asks it by
// TCP. That works, slowly, and nobody would know: so each node watches from whom
// it hears nothing by UDP.

const (
	silentAtLeast = 10 * time.Second // without UDP before a link counts as blocked
	lookEvery     = time.Second      // between two looks at who is silent
	// pausedAfter is how long after its last look a node takes it that it was
	// stopped itself, and has heard nobody for that reason.
	pausedAfter = 5 * time.Second
)

// udpWatch knows when each living member was last heard by UDP.
type udpWatch struct {
	mu     sync.Mutex
	heard  map[netip.AddrPort]time.Time // the living members alone, so that strangers cannot fill it
	looked time.Time
}

// note says that a packet came, or that a ping by UDP was answered.
func (w *udpWatch) note(from netip.AddrPort, at time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if _, member := w.heard[from]; member {
		w.heard[from] = at
	}
}

// silent returns those of the living members from whom nothing has come for too
// long. Who was not alive at the last look is given that time from now on.
func (w *udpWatch) silent(living []member, now time.Time) []member {
	w.mu.Lock()
	defer w.mu.Unlock()
	paused := now.Sub(w.looked) > pausedAfter
	w.looked = now
	heard := make(map[netip.AddrPort]time.Time, len(living))
	var silent []member
	for _, m := range living {
		at, known := w.heard[m.Addr]
		if !known || paused {
			at = now
		}
		heard[m.Addr] = at
		if now.Sub(at) > silentAfter(len(living)+1) {
			silent = append(silent, m)
		}
	}
	w.heard = heard
	return silent
}

// silentAfter is how long a member of so many must not be heard. Two members probe
// each other at least once in twice as many probes as there are members.
func silentAfter(members int) time.Duration {
	return max(silentAtLeast, time.Duration(4*members)*probeEvery)
}

// blockedLinks names the links on which UDP is lost.
func (c *Cluster) blockedLinks(now time.Time) []string {
	var blocked []string
	for _, m := range c.gossip.udp.silent(c.gossip.others(), now) {
		blocked = append(blocked, fmt.Sprintf("UDP %d blocked from %s to %s", c.gossip.address().Port(), m.Name, c.cfg.Name))
	}
	return blocked
}
