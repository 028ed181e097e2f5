package cluster

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
)

// unlikeFor is how long a peer counts as one with another secret after it was last seen to
// have one. Peers that are gone are tried more often.
const unlikeFor = 15 * time.Second

// unlike are the addresses at which this node has lately met peers that do not share its
// secret. It notes only what came of its own tries to reach listed nodes and members: whoever
// comes by with noise is not among them.
type unlike struct {
	mu  sync.Mutex
	met map[string]unlikePeer // by the address that was tried
}

// unlikePeer is how a peer's secret differs.
type unlikePeer struct {
	how string
	at  time.Time
}

// note takes what came of a try to reach a peer.
func (u *unlike) note(addr string, err error, now time.Time) {
	how := secretDiffers(err)
	u.mu.Lock()
	defer u.mu.Unlock()
	if how == "" {
		if err == nil {
			delete(u.met, addr)
		}
		return
	}
	if u.met == nil {
		u.met = map[string]unlikePeer{}
	}
	maps.DeleteFunc(u.met, func(_ string, p unlikePeer) bool { return now.Sub(p.at) > unlikeFor })
	u.met[addr] = unlikePeer{how, now}
}

// forget drops what was seen at the addresses of a peer that has just shown that it shares a
// secret with this node, whatever becomes of it: a new try says whether it uses another.
func (u *unlike) forget(addrs ...string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, addr := range addrs {
		delete(u.met, addr)
	}
}

// at says how the secret of the peer at one of the addresses was seen to differ after that
// time, empty if it was not.
func (u *unlike) at(after time.Time, addrs ...string) string {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, addr := range addrs {
		if p, met := u.met[addr]; met && p.at.After(after) {
			return p.how
		}
	}
	return ""
}

// secretDiffers says how the secrets of two nodes differ if that is why one could not reach
// the other, else nothing. Of memberlist's errors there is only the text.
func secretDiffers(err error) string {
	if err == nil {
		return ""
	}
	if errors.Is(err, errOtherSecret) {
		return usesOther
	}
	for _, known := range []struct{ text, how string }{
		{"remote error: no installed keys could decrypt", refusesOurs},
		{"no installed keys could decrypt", usesOther},
		{"encryption is configured but remote state is not encrypted", hasNone},
		{"remote state is encrypted and encryption is not configured", onlyItHas},
	} {
		if strings.Contains(err.Error(), known.text) {
			return known.how
		}
	}
	return ""
}

// How a peer's secret differs.
const (
	usesOther   = "uses a secret that this node does not accept"
	refusesOurs = "does not accept the secret that this node uses"
	hasNone     = "runs without -secret, unlike this node"
	onlyItHas   = "has a -secret, unlike this node"
)

// unlikePeers names the peers that do not share this node's secret, a sentence for each.
func (c *Cluster) unlikePeers(now time.Time) []string {
	how := map[string]string{} // by name and address
	for _, l := range c.lastListed() {
		if h := c.gossip.unlike.at(now.Add(-unlikeFor), l.addr.String()); h != "" {
			how[l.addr.String()] = "the node at " + l.addr.String() + " " + h
		}
	}
	for _, m := range c.gossip.all() {
		delete(how, m.Addr.String())
		if h := c.secretOf(m, now); h != "" {
			how[m.Addr.String()] = fmt.Sprintf("%s at %s %s", nameOr(m.Name, m.ID), m.Addr, h)
		}
	}
	var all []string
	for _, addr := range slices.Sorted(maps.Keys(how)) {
		all = append(all, how[addr]+": give both the same file")
	}
	return all
}

// secretOf says how a member's secret differs from this node's, empty if it is not known to.
func (c *Cluster) secretOf(m member, now time.Time) string {
	return c.gossip.unlike.at(now.Add(-unlikeFor), m.Addr.String(), m.RaftAddr)
}
