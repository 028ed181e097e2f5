package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"time"

	"github.com/google/renameio/v2"
)

// The other members are kept on disk, so that a node that restarts finds them
// even where the join list has none of them, and can name those that are gone. The
// node itself is kept with them, so that a copy of its directory knows where to ask
// whether the original runs.

// keptPeer is a member in peers.json.
type keptPeer struct {
	ID       string         `json:"id"`
	Name     string         `json:"name"`
	Addr     netip.AddrPort `json:"addr"`
	RaftAddr string         `json:"raft_addr"`
	Version  string         `json:"version,omitempty"`
	Commands int            `json:"commands,omitempty"` // see understands
}

func (c *Cluster) peersPath() string { return filepath.Join(c.cfg.DataDir, "peers.json") }

// readPeers reads the members of an earlier run.
func (c *Cluster) readPeers() (kept []keptPeer) {
	text, err := os.ReadFile(c.peersPath())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = json.Unmarshal(text, &kept)
	}
	if err != nil {
		c.log.Warn("cannot use the list of peers kept on disk; the join list and the log have them too", "error", err)
		return nil
	}
	return kept
}

// keptAddrs is where the other members were in an earlier run.
func (c *Cluster) keptAddrs() (addrs []netip.AddrPort) {
	for _, p := range c.kept {
		if p.ID != c.id.nodeID() {
			addrs = append(addrs, p.Addr)
		}
	}
	return addrs
}

// recallPeers tells gossip of the members of an earlier run.
func (c *Cluster) recallPeers() {
	for _, p := range c.kept {
		c.gossip.remember(member{ID: p.ID, Addr: p.Addr, meta: meta{
			Name: p.Name, RaftAddr: p.RaftAddr, ClusterID: c.id.clusterID(), Version: p.Version, Commands: p.Commands,
		}})
	}
}

// keepPeers writes the members of this cluster to disk if they changed.
func (c *Cluster) keepPeers() {
	var peers []keptPeer
	own := c.id.clusterID()
	for _, m := range c.gossip.all() {
		if own != "" && m.ClusterID == own {
			peers = append(peers, keptPeer{m.ID, m.Name, m.Addr, m.RaftAddr, m.Version, m.Commands})
		}
	}
	if reflect.DeepEqual(peers, c.kept) {
		return
	}
	text, err := json.MarshalIndent(peers, "", " ")
	if err == nil {
		err = renameio.WriteFile(c.peersPath(), append(text, '\n'), 0o600)
	}
	if err != nil {
		c.log.Warn("cannot keep the list of peers on disk", "error", err)
		return
	}
	c.kept = peers
}

// seedLoop goes on for ever trying the listed addresses at which nobody is known to
// live, more often while there is no leader.
func (c *Cluster) seedLoop(ctx context.Context) {
	for wait := rejoinSoon; pause(ctx, wait); {
		if c.id.clusterID() == "" {
			continue // formation meets the peers
		}
		wait = seedEvery
		if id, _ := c.leader(); id == "" {
			wait = 2 * rejoinSoon
		}
		c.rejoin(append(c.unmet(c.lookUp(ctx)), c.doubting()...))
	}
}

// rejoinLoop goes on for ever trying members that are not alive, because gossip
// itself gives up on the dead after a while. It looks for those lost of late each
// time, for those long gone now and then.
func (c *Cluster) rejoinLoop(ctx context.Context) {
	for round := 0; pause(ctx, rejoinSoon); round++ {
		if c.id.clusterID() == "" {
			continue
		}
		c.rejoin(c.lost(time.Now(), round%int(rejoinEvery/rejoinSoon) == 0))
		c.forgetGone()
	}
}

// doubting returns the address of a living member if this node knows no leader: one
// that came back at another address is not believed while gossip still counts on
// its old one, and must say again where it is.
func (c *Cluster) doubting() []netip.AddrPort {
	if id, _ := c.leader(); id != "" {
		return nil
	}
	return c.someone()
}

// someone returns the address of a living member, if there is one.
func (c *Cluster) someone() []netip.AddrPort {
	alive := c.gossip.others()
	if len(alive) == 0 {
		return nil
	}
	return []netip.AddrPort{alive[rand.IntN(len(alive))].Addr}
}

// rejoin tries all addresses, unless nobody would reach this node where it says that it is.
func (c *Cluster) rejoin(addrs []netip.AddrPort) {
	if c.here().worth > nowhere {
		c.gossip.joinAll(addrs)
	}
}

// unmet returns the listed addresses at which nobody is known to live.
func (c *Cluster) unmet(all []listed) []netip.AddrPort {
	var addrs []netip.AddrPort
	for _, l := range all {
		if _, alive := c.gossip.at(l.addr); l.err == nil && !alive && !isOwn(l.addr, c.gossip.address(), c.bindHost) {
			addrs = append(addrs, l.addr)
		}
	}
	return addrs
}

// lost returns where the members were that are not alive: those lost of late, which
// may be behind a broken link that works again any moment, or all of them.
func (c *Cluster) lost(now time.Time, all bool) []netip.AddrPort {
	var addrs []netip.AddrPort
	for _, m := range c.gossip.all() {
		_, replaced := c.gossip.at(m.Addr)
		late := m.State == Failed && now.Sub(m.Since) < removeDeadAfter
		if m.State != Alive && (all || late) && !replaced && m.Addr != c.gossip.address() {
			addrs = append(addrs, m.Addr)
		}
	}
	return addrs
}

// forgetGone drops members that are gone and no longer among Raft's: those that
// left, those whose address another node has taken, and those that have not been seen
// for a while: this node may have been away when they left.
func (c *Cluster) forgetGone() {
	servers := c.servers()
	if len(servers) == 0 {
		return
	}
	leader, _ := c.leader() // with one, nobody else is needed to find the cluster
	for _, m := range c.gossip.all() {
		_, isServer := findServer(servers, m.ID)
		if m.State == Alive || isServer {
			continue
		}
		_, replaced := c.gossip.at(m.Addr)
		if replaced || m.State == Left && m.Going == leaves || leader != "" && time.Since(m.Since) > rejoinEvery {
			c.gossip.forget(m.ID)
		}
	}
}
