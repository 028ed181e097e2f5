package main

import (
	"errors"
	"strings"
	"testing"
)

// A node that is lost is removed by a command to any other; one that lives is not. Then all
// is well without it.
func TestDeadNodeIsRemovedByCommand(t *testing.T) {
	t.Parallel()
	nodes := newLBs(t, 3)
	startAll(nodes)
	whole(t, nodes)
	leader, followers := roles(t, nodes)
	lost, asked := followers[0], followers[1]
	if _, err := lbnode(t, "raft remove "+leader.name+" -admin "+asked.admin); err == nil || !strings.Contains(err.Error(), "the node is alive: "+leader.name) {
		t.Errorf("got %v, want a node that lives refused", err)
	}
	lost.kill()
	eventually(t, patience, "the lost node is removed", func() bool {
		_, err := lbnode(t, "raft remove "+lost.name+" -admin "+asked.admin)
		return err == nil
	})
	for _, n := range []*lb{leader, asked} {
		eventually(t, patience, "it is no peer any more", func() bool {
			return !strings.Contains(mustRun(t, "raft peers -admin "+n.admin), lost.name)
		})
		eventually(t, patience, "all is well", func() bool {
			_, err := lbnode(t, "status -admin "+n.admin)
			if err != nil && !errors.Is(err, errDegraded) {
				t.Fatal(err)
			}
			return err == nil
		})
	}
}
