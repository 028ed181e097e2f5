package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"

	"lbnode/state"
)

// newerCommand is a command that only nodes of version 2 understand.
func newerCommand() []byte {
	return fmt.Appendf(nil, `{"v":2,"id":%q,"op":"put_route","body":{"route":{"host":"","path":"/","pool":"default"}}}`, NewID())
}

// proposeNewer proposes such a command on a node.
func proposeNewer(t *testing.T, n *node) error {
	t.Helper()
	command, err := newerCommand(), error(nil)
	eventually(t, waitLong, "a leader decides on a newer command", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), proposeWithin)
		defer cancel()
		_, err = n.commit(ctx, command)
		return !errors.Is(err, ErrNoLeader) && !errors.Is(err, ErrUnknownOutcome)
	})
	return err
}

// sayOld makes a node tell the others that it is of version 1, as binaries do that
// do not know of versions, and waits until all have heard it.
func sayOld(t *testing.T, old *node, nodes []*node) {
	t.Helper()
	if err := old.gossip.tell(func(m *meta) { m.Commands, m.Version = 0, "v0.1" }); err != nil {
		t.Fatal(err)
	}
	waitUnderstands(t, nodes, old, 1)
}

func waitUnderstands(t *testing.T, nodes []*node, of *node, version int) {
	t.Helper()
	eventually(t, waitLong, fmt.Sprintf("all nodes know that %s understands version %d", of.cfg.Name, version), func() bool {
		return !slices.ContainsFunc(nodes, func(n *node) bool {
			m, known := n.gossip.find(of.ID())
			return !known || m.understands() != version
		})
	})
}

// believe changes what a node thinks that another understands.
func believe(g *gossip, of *node, commands int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	m := g.members[of.ID()]
	m.Commands = commands
	g.members[of.ID()] = m
}

func checkHeldBack(t *testing.T, when string, err error, names string) {
	t.Helper()
	if !errors.Is(err, ErrHeldBack) || !strings.Contains(err.Error(), names+" understands commands up to version 1, this needs 2: upgrade it first") {
		t.Errorf("%s: got %v, want it held back because of %s", when, err, names)
	}
}

func TestNewerCommandsAreHeldBack(t *testing.T) {
	t.Parallel()
	nodes := startCluster(t, 3, nil)
	propose(t, nodes[0], addBackend("web-1", 3001))
	leader, _ := nodes[0].leader()
	at := slices.IndexFunc(nodes, func(n *node) bool { return n.ID() != leader })
	old, names := nodes[at], nodes[at].cfg.Name+" (v0.1)"
	rest := slices.Delete(slices.Clone(nodes), at, at+1)
	sayOld(t, old, nodes)
	for _, n := range nodes {
		checkHeldBack(t, "proposed on "+n.cfg.Name, proposeNewer(t, n), names)
	}
	eventually(t, waitLong, "the leader holds back what it is sent", func() bool {
		_, addr := old.leader()
		err := old.calls.call(t.Context(), addr, proposePath, proposeCall{Command: newerCommand()}, &state.Result{})
		if errors.Is(err, ErrHeldBack) {
			checkHeldBack(t, "sent to the leader", err, names)
		}
		return errors.Is(err, ErrHeldBack)
	})

	// A node holds back what it knows better than the leader.
	for i, n := range rest {
		other := rest[1-i].gossip
		believe(other, old, 2)
		checkHeldBack(t, "proposed on "+n.cfg.Name+" alone", proposeNewer(t, n), names)
		believe(other, old, 0)
	}

	// A node that is down counts, and a restart of the others does not make them
	// forget it.
	old.crash()
	checkHeldBack(t, "while the old node is down", proposeNewer(t, rest[0]), names)
	rest[1].Stop()
	rest[1] = start(t, rest[1].cfg)
	checkHeldBack(t, "after a restart", proposeNewer(t, rest[1]), names)

	old = start(t, old.cfg)
	nodes = append(rest, old)
	waitUnderstands(t, nodes, old, state.Version)
	for _, n := range nodes {
		if err := proposeNewer(t, n); err != nil {
			t.Errorf("got %v, want the command taken on %s now that all are upgraded", err, n.cfg.Name)
		}
	}
	eventually(t, waitLong, "all nodes have carried it out", func() bool {
		return !slices.ContainsFunc(nodes, func(n *node) bool { return len(n.View().Routes) != 1 || n.fsm.version() != 2 })
	})

	// An upgraded node that is down holds nothing back, nor does a restart of the
	// others make it count as old.
	old.crash()
	rest[1].Stop()
	rest[1] = start(t, rest[1].cfg)
	if err := proposeNewer(t, rest[1]); err != nil {
		t.Errorf("got %v, want the command taken while an upgraded node is down", err)
	}
	checkRefusesOld(t, rest)
}

// checkRefusesOld sees that nodes of version 1 cannot join a cluster whose log has
// commands of version 2.
func checkRefusesOld(t *testing.T, nodes []*node) {
	t.Helper()
	for _, n := range nodes { // whoever leads
		if n.outgrown(member{ID: "new", meta: meta{Name: "new", Commands: 2}}) {
			t.Errorf("%s would not add a node that understands all commands", n.cfg.Name)
		}
		if !n.outgrown(member{ID: "old", meta: meta{Name: "old", Commands: 1}}) || !n.library.has("not adding old to raft") {
			t.Errorf("%s would add a node that does not understand all commands, or does not say why not", n.cfg.Name)
		}
	}
	late := newConfig(t, "late", nodes[0].cfg.Bind)
	c := openOnly(t, late)
	if err := c.gossip.tell(func(m *meta) { m.Commands = 1 }); err != nil {
		t.Fatal(err)
	}
	if err := c.form(t.Context()); err == nil || !strings.Contains(err.Error(), "its log holds commands of version 2 and this binary, test, understands up to version 1: upgrade it") {
		t.Errorf("got %v, want an old node told why it cannot join", err)
	}
}

// has says whether a warning that begins so was logged of late.
func (l *libraryLog) has(prefix string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for text := range l.said {
		if strings.HasPrefix(text, prefix) {
			return true
		}
	}
	return false
}

func TestCallThatThePeerDoesNotKnow(t *testing.T) {
	t.Parallel()
	nodes := startCluster(t, 2, nil)
	peer := nodes[1]
	waitUnderstands(t, nodes, peer, state.Version)
	ctx, cancel := context.WithTimeout(t.Context(), waitLong)
	defer cancel()
	err := nodes[0].calls.call(ctx, peer.raftAddr().String(), "/node/v1/later", none{}, &none{})
	if want := peer.cfg.Name + " (test) does not know the call /node/v1/later"; !errors.Is(err, ErrHeldBack) || !strings.Contains(err.Error(), want) {
		t.Errorf("got %v, want ErrHeldBack: %s", err, want)
	}
}

func TestMemberNeverMetCountsAsOldest(t *testing.T) {
	t.Parallel()
	n := startCluster(t, 1, nil)[0]
	eventually(t, waitLong, "a member is added that nobody has met", func() bool {
		return n.raft().AddNonvoter("stranger", "127.0.0.1:1", 0, waitLong).Error() == nil
	})
	checkHeldBack(t, "a member was never met", proposeNewer(t, n), "stranger")
}

// appendLog writes an entry to the log of a node that is not running.
func appendLog(t *testing.T, dir, data string) {
	t.Helper()
	store, err := raftboltdb.NewBoltStore(filepath.Join(dir, "raft.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	last, err := store.LastIndex()
	if err != nil {
		t.Fatal(err)
	}
	var entry raft.Log
	if err := store.GetLog(last, &entry); err != nil {
		t.Fatal(err)
	}
	if err := store.StoreLog(&raft.Log{Index: last + 1, Term: entry.Term, Type: raft.LogCommand, Data: []byte(data)}); err != nil {
		t.Fatal(err)
	}
}

func TestNodeEndsAtWhatItCannotApply(t *testing.T) {
	t.Parallel()
	n := startCluster(t, 1, nil)[0]
	propose(t, n, addBackend("web-1", 3001))
	want := n.View().Digest()
	n.Stop()
	appendLog(t, n.cfg.DataDir, `{"v":99,"id":"r1","op":"explode","body":{}}`)
	again := start(t, n.cfg)
	select {
	case err := <-again.Failed():
		if !errors.Is(err, state.ErrTooNew) || !strings.Contains(err.Error(), "command of version 99") {
			t.Errorf("got %v, want an error that names the version", err)
		}
	case <-time.After(waitLong):
		t.Fatal("the node goes on")
	}
	if got := again.View().Digest(); got != want {
		t.Errorf("got digest %s, want %s: the view goes no further", got, want)
	}
	if err := again.raft().Snapshot().Error(); err == nil {
		t.Error("a snapshot was taken of a machine that lacks an entry")
	}
	if _, err := again.barrier(t.Context()); !errors.Is(err, errNotLeader) {
		t.Errorf("got %v, want no consistent read from a machine that lacks an entry", err)
	}
	if result, err := again.Propose(t.Context(), Write{Op: addBackend("web-2", 3002)}); err == nil {
		t.Errorf("got %+v, want no write answered by a machine that lacks an entry", result)
	}
}

func TestSnapshotThatIsTooNewEndsTheNode(t *testing.T) {
	for _, test := range []struct {
		snapshot string
		fatal    bool
	}{
		{`{"version":99,"shards":[]}`, true},
		{`{"version":1,"ind`, false}, // Raft has an older one
		{`{"version":1,"index":3,"content":{"cluster_id":"c1"}}`, false},
	} {
		failed := make(chan error, 1)
		f := newFSM(func(*state.View) {}, func(err error) { failed <- err })
		f.Restore(io.NopCloser(strings.NewReader(test.snapshot)))
		if got := len(failed) > 0; got != test.fatal || (f.failure() != nil) != test.fatal {
			t.Errorf("%s: got fatal %v, want %v", test.snapshot, got, test.fatal)
		}
	}
}
