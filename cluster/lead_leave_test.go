package cluster

import (
	"context"
	"errors"
	"strings"
	"testing"
)

// leaderAndRest returns the leader and the others.
func leaderAndRest(t *testing.T, nodes []*node) (lead *node, rest []*node) {
	t.Helper()
	lead = leaderOf(t, nodes)
	for _, n := range nodes {
		if n != lead {
			rest = append(rest, n)
		}
	}
	return lead, rest
}

// With one of three dead, a second one that left would take the majority with it.
func TestNodeThatIsNeededCannotLeave(t *testing.T) {
	t.Parallel()
	nodes := startCluster(t, 3, nil)
	propose(t, nodes[0], addBackend("web-1", 3001))
	lead, rest := leaderAndRest(t, nodes)
	rest[0].crash()
	eventually(t, waitLong, "the leader misses the dead one", func() bool { return !lead.inTouch(lead.servers()[indexOfServer(lead, rest[0])].ID) })
	err := rest[1].Leave(t.Context())
	if !errors.Is(err, ErrNeeded) || errors.Is(err, ErrUnknownOutcome) || !strings.Contains(err.Error(), rest[0].cfg.Name) {
		t.Errorf("got %v, want ErrNeeded, with the name of %s", err, rest[0].cfg.Name)
	}
	propose(t, lead, addBackend("web-2", 3002))
	if got := len(lead.servers()); got != 3 {
		t.Errorf("got %d members, want 3", got)
	}
}

func indexOfServer(n, which *node) int {
	for i, s := range n.servers() {
		if string(s.ID) == which.ID() {
			return i
		}
	}
	return -1
}

// The first in line does not answer; Raft must neither wait for it nor refuse writes.
func TestLeaderLeavesBesideADeadNode(t *testing.T) {
	t.Parallel()
	nodes := startCluster(t, 5, nil)
	propose(t, nodes[0], addBackend("web-1", 3001))
	lead, rest := leaderAndRest(t, nodes)
	eventually(t, waitLong, "all others could lead", func() bool { return len(lead.heirs()) == len(rest) })
	first := lead.heirs()[0]
	var dead, other *node
	for _, n := range rest {
		if n.ID() == string(first.ID) {
			dead = n
		} else {
			other = n
		}
	}
	dead.crash()
	propose(t, other, addBackend("web-2", 3002)) // so that something is kept for the dead one
	if err := lead.Leave(t.Context()); err != nil {
		t.Fatal(err)
	}
	propose(t, other, addBackend("web-3", 3003))
}

// A leader that cannot reach one voter hands over again and again, and takes writes.
func TestTransferToANodeThatIsCutOff(t *testing.T) {
	t.Parallel()
	nodes := startCluster(t, 3, nil)
	propose(t, nodes[0], addBackend("web-1", 3001))
	lead, rest := leaderAndRest(t, nodes)
	cut, running := rest[0], lead.raft()
	lead.links.set(func(addr string) bool { return addr == cut.cfg.Raft })
	propose(t, rest[1], addBackend("web-2", 3002))
	server, _ := findServer(lead.servers(), cut.ID())
	for range 3 {
		ctx, cancel := context.WithTimeout(t.Context(), callWithin)
		if err := lead.transfer(ctx, server); err == nil && lead.raft().State().String() == "Leader" {
			t.Error("the transfer to a node that is cut off succeeded")
		}
		cancel()
	}
	eventually(t, waitLong, "writes are taken", func() bool {
		_, err := rest[1].Propose(t.Context(), Write{Op: addBackend("web-3", 3003), RequestID: "three"})
		return err == nil
	})
	if lead.raft() != running {
		t.Error("raft had to be restarted")
	}
}
