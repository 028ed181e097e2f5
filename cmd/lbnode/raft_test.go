package main

import (
	"fmt"
	"strings"
	"testing"

	"lbnode/cluster"
)

func TestRaftCommands(t *testing.T) {
	c := soloAPI(t)
	c.mu.Lock()
	c.status.Nodes = []cluster.NodeStatus{
		{ID: "n1", Name: "lb1", State: cluster.Alive, Member: true, Voter: true, Leader: true},
		{ID: "n2", Name: "lb2", State: cluster.Failed, Member: true, Voter: true},
		{ID: "n3", Name: "lb3", State: cluster.Alive},
	}
	c.mu.Unlock()
	if got := mustRun(t, "raft peers"); !strings.Contains(got, "lb2") || !strings.Contains(got, "failed") || strings.Contains(got, "lb3") {
		t.Errorf("raft peers: got %s, want lb1 and the failed lb2, which are members", got)
	}
	mustRun(t, "raft remove lb2")
	if c.expelled != "lb2" {
		t.Errorf("got %q expelled, want lb2", c.expelled)
	}
	c.refuse(fmt.Errorf("%w: lb1; let it leave", cluster.ErrAlive))
	_, err := lbnode(t, "raft remove lb1")
	if want := `cannot remove the node "lb1" from raft: the node is alive: lb1; let it leave`; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}
