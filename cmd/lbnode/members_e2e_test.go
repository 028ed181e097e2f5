package main

import (
	"strings"
	"syscall"
	"testing"
	"time"

	"lbnode/cluster/admin"
)

// The leader leaves when it is told to stop, and the others are a cluster without
// it. One that cannot leave, because there is no quorum, stops all the same.
func TestLeaveOnStop(t *testing.T) {
	t.Parallel()
	nodes := newLBs(t, 3, "-leave-on-stop")
	startAll(nodes)
	(&fleet{}).waitHealthy(t, "three nodes form one cluster", nodes, 3)
	old, rest := leader(nodes)
	old.cmd.Process.Signal(syscall.SIGTERM)
	if code, out := old.exit(60 * time.Second); code != 0 || strings.Contains(out, "stops without leaving") {
		t.Errorf("got exit code %d, want the leader to leave:\n%s", code, out)
	}
	eventually(t, 30*time.Second, "the others are two voters", func() bool {
		return every(rest, func(n *lb) bool {
			v := n.view()
			return v != nil && v.Healthy && v.Quorum == 2 && v.FailureTolerance == 0
		})
	})
	rest[0].kill()
	rest[1].cmd.Process.Signal(syscall.SIGINT)
	if code, out := rest[1].exit(60 * time.Second); code != 0 || !strings.Contains(out, "stops without leaving: it stays a member") {
		t.Errorf("got exit code %d, want the last one to stop and say that it could not leave:\n%s", code, out)
	}
}

// A second node of one name ends with an error that says whose the name is.
func TestTakenNameEndsTheProcess(t *testing.T) {
	t.Parallel()
	holder := newLBs(t, 1)[0]
	holder.start()
	var known admin.Node
	eventually(t, 30*time.Second, "a cluster of one", func() bool {
		v := holder.view()
		known = own(v)
		return v != nil && v.Healthy
	})
	comer := newProcess(t, "comer", "-node", holder.name, "-data-dir", t.TempDir(), "-join", known.Addr,
		"-bind", freeAddr(t), "-raft", freeAddr(t), "-http", freeAddr(t), "-admin", freeAddr(t))
	comer.start()
	code, out := comer.exit(60 * time.Second)
	if code != 1 || !strings.Contains(out, "lbnode: the name "+holder.name+" belongs to node "+known.ID+" at "+known.Addr) {
		t.Errorf("got exit code %d, want the holder named:\n%s", code, out)
	}
}
