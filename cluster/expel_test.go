package cluster

import (
	"errors"
	"testing"

	"github.com/hashicorp/raft"
)

// Only a dead member is expelled, and only by the word of a leader that has asked it.
func TestDeadMemberIsExpelled(t *testing.T) {
	t.Parallel()
	nodes := startCluster(t, 3, nil)
	follower, dead := nodes[0], nodes[1]
	eventually(t, waitLong, "all know one another", func() bool { return len(nodes[0].gossip.alive()) == 3 && len(nodes[2].gossip.alive()) == 3 })
	for peer, want := range map[string]error{dead.cfg.Name: ErrAlive, dead.ID(): ErrAlive, "nobody": ErrNoMember, follower.cfg.Name: ErrAlive} {
		if err := follower.Expel(t.Context(), peer); !errors.Is(err, want) {
			t.Errorf("%s: got %v, want %v", peer, err, want)
		}
	}
	dead.crash()
	eventually(t, waitLong, "it is expelled", func() bool {
		err := follower.Expel(t.Context(), dead.cfg.Name)
		if err != nil && !errors.Is(err, ErrAlive) && !errors.Is(err, ErrNoLeader) { // not known to be dead yet, or it led
			t.Fatal(err)
		}
		return err == nil
	})
	for _, n := range []*node{nodes[0], nodes[2]} {
		eventually(t, waitLong, "it is no member any more", func() bool { return len(n.servers()) == 2 })
	}
	if err := follower.Expel(t.Context(), dead.ID()); !errors.Is(err, ErrNoMember) {
		t.Errorf("once more: got %v, want %v", err, ErrNoMember)
	}
	dead = start(t, dead.cfg)
	eventually(t, waitLong, "it is a member again once it is back", func() bool { _, ok := findServer(follower.servers(), dead.ID()); return ok })
}

// Gossip may have given up a node that lives. It is asked, and stays.
func TestMemberThatAnswersIsNotExpelled(t *testing.T) {
	t.Parallel()
	nodes := startCluster(t, 3, nil)
	var leader, lone *node
	for _, n := range nodes {
		if n.raft().State() == raft.Leader {
			leader = n
		} else {
			lone = n
		}
	}
	cutGossip(lone, func(string, bool) bool { return true })
	for _, n := range nodes {
		if n != lone {
			cutGossip(n, func(addr string, _ bool) bool { return addr == lone.cfg.Bind })
		}
	}
	eventually(t, waitLong, "gossip has given it up", func() bool { m, _ := leader.gossip.find(lone.ID()); return m.State == Failed })
	if err := leader.Expel(t.Context(), lone.cfg.Name); !errors.Is(err, ErrAlive) {
		t.Errorf("got %v, want %v", err, ErrAlive)
	}
	if _, ok := findServer(leader.servers(), lone.ID()); !ok {
		t.Error("it is no member any more")
	}
}

func TestExpelWithoutQuorum(t *testing.T) {
	t.Parallel()
	nodes := startCluster(t, 3, nil)
	nodes[1].crash()
	nodes[2].crash()
	eventually(t, waitLong, "there is no leader", func() bool { return nodes[0].degraded() != "" })
	if err := nodes[0].Expel(t.Context(), nodes[1].cfg.Name); !errors.Is(err, ErrNoLeader) {
		t.Errorf("got %v, want %v", err, ErrNoLeader)
	}
}
