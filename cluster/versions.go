package cluster

import (
	"fmt"
	"log/slog"
	"strings"

	"lbnode/state"
)

// While a cluster is upgraded, nodes of several versions share its log. Whatever is
// new to some of them is held back until all understand it.

// understands is the newest version of commands that the node can carry out. One
// that does not say is of version 1.
func (m *meta) understands() int { return max(m.Commands, 1) }

// label names the node and its version for a person.
func (m *member) label() string {
	name := nameOr(m.Name, m.ID)
	if m.Version == "" {
		return name
	}
	return name + " (" + strings.Trim(m.Version, "()") + ")"
}

// labelAt names the node with that Raft address.
func (c *Cluster) labelAt(address string) string {
	_, addr := splitNamed(address)
	for _, m := range c.gossip.all() {
		if m.RaftAddr == addr {
			return m.label()
		}
	}
	return addr
}

// holdBack refuses a command that not all members understand. The dead count by
// what they last said: they come back and read the log. So do members that this
// node has never met, which are taken for the oldest.
func (c *Cluster) holdBack(data []byte) error {
	version, err := state.CommandVersion(data)
	if err != nil || version == 1 {
		return err
	}
	var behind []string
	for _, s := range c.servers() {
		m, known := c.gossip.find(string(s.ID))
		if !known {
			m.ID = string(s.ID)
		}
		if m.understands() < version {
			behind = append(behind, fmt.Sprintf("%s understands commands up to version %d", m.label(), m.understands()))
		}
	}
	if len(behind) == 0 {
		return nil
	}
	return fmt.Errorf("%w: %s, this needs %d: upgrade it first", ErrHeldBack, strings.Join(behind, ", "), version)
}

// outgrown says whether the log holds commands that the node does not understand,
// so that it cannot become a member.
func (c *Cluster) outgrown(m member) bool {
	needs := c.fsm.version()
	if m.understands() >= needs {
		return false
	}
	c.library.say(slog.LevelWarn, fmt.Sprintf("not adding %s to raft: the log holds commands of version %d and it understands up to version %d; upgrade it, or stop it", m.label(), needs, m.understands()))
	return true
}

// checkOutgrown is the same on the side of the node: an error if a peer's log needs
// a newer binary than this one.
func (c *Cluster) checkOutgrown(peers []peer) error {
	me, own := c.gossip.me(), c.id.clusterID()
	for _, p := range peers {
		if p.hello.Needs > me.understands() && (own == "" || own == p.hello.ClusterID) {
			return fmt.Errorf("cannot take part in the cluster of %s: its log holds commands of version %d and this binary, %s, understands up to version %d: upgrade it",
				nameOr(p.hello.Name, p.name), p.hello.Needs, nameOr(c.cfg.Version, "of an unknown version"), me.understands())
		}
	}
	return nil
}
