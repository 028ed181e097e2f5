package cluster

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"lbnode/state"
)

// crashedCluster is three nodes that were killed, of which each has a snapshot and a
// log that goes on from it. The first is the survivor.
func crashedCluster(t *testing.T) []*node {
	t.Helper()
	nodes := startCluster(t, 3, nil)
	propose(t, nodes[0], addBackend("web-1", 3001))
	propose(t, nodes[0], &state.PutRoute{Route: state.Route{Pool: state.DefaultPool}})
	eventually(t, waitLong, "a snapshot on the survivor", func() bool { return nodes[0].raft().Snapshot().Error() == nil })
	propose(t, nodes[0], addBackend("web-2", 3002))
	for _, n := range nodes {
		eventually(t, waitLong, "all members are kept on disk", func() bool {
			others, known := otherPeers(n.cfg.DataDir)
			return known && len(others) == 2
		})
		n.crash()
	}
	return nodes
}

func openRecovery(t *testing.T, dir string) *Recovery {
	t.Helper()
	r, err := OpenRecovery(dir, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

// copyOf gives a directory under another name, in a directory of its own.
func copyOf(t *testing.T, dir string) string {
	t.Helper()
	copied := filepath.Join(t.TempDir(), "data")
	if err := copyTree(dir, copied); err != nil {
		t.Fatal(err)
	}
	return copied
}

// contentOf is the digest of a view but for the cluster's id.
func contentOf(t *testing.T, v *state.View) string {
	t.Helper()
	text, err := v.Snapshot().WithClusterID("").Encode()
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestRecover(t *testing.T) {
	t.Parallel()
	nodes := crashedCluster(t)
	survivor, old := nodes[0], nodes[1]
	want := contentOf(t, survivor.View())

	r := openRecovery(t, survivor.cfg.DataDir)
	found, err := r.Find(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := found.QuorumLost(); err != nil {
		t.Error(err)
	}
	if found.NodeID != survivor.ID() || found.ClusterID != survivor.id.clusterID() || found.SnapshotIndex == 0 || found.LastIndex <= found.SnapshotIndex || found.LastTerm == 0 {
		t.Errorf("found %+v", found)
	}
	if got := contentOf(t, found.View); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	for _, m := range found.Members {
		if m.Own == (m.ID != survivor.ID()) || m.Gone == m.Own || !m.Own && (m.Name == "" || m.Answer != "refused") {
			t.Errorf("got member %+v", m)
		}
	}
	recovered, err := r.Run()
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	before, err := readIdentity(filepath.Join(recovered.Kept, "node.json"))
	if err != nil || before.ClusterID != found.ClusterID {
		t.Errorf("kept %+v, %v, want the old identity", before, err)
	}

	survivor = start(t, survivor.cfg)
	eventually(t, waitLong, "the survivor leads alone and has it all", func() bool {
		s := survivor.Status(t.Context())
		return s.Healthy && s.Quorum == 1 && len(s.Nodes) == 1 && s.ClusterID == recovered.ClusterID && contentOf(t, survivor.View()) == want
	})
	propose(t, survivor, addBackend("web-3", 3003))

	returned := start(t, old.cfg)
	select {
	case err := <-returned.Failed():
		for _, word := range []string{found.ClusterID, recovered.ClusterID, "empty -data-dir"} {
			if !strings.Contains(err.Error(), word) {
				t.Errorf("got %q, want %q in it", err, word)
			}
		}
	case <-time.After(waitLong):
		t.Error("a node of the old cluster was not refused")
	}
	returned.Stop()

	all := []*node{survivor}
	for _, n := range nodes[1:] {
		n.cfg.DataDir = t.TempDir()
		all = append(all, start(t, n.cfg))
	}
	eventually(t, waitLong, "wiped nodes join the new cluster", func() bool {
		for _, n := range all {
			s := n.Status(t.Context())
			if !s.Healthy || !s.Agreement || s.Quorum != 2 || len(s.Nodes) != 3 || len(n.View().Pools[0].Backends) != 3 {
				return false
			}
		}
		return true
	})
}

// Wherever a recovery is cut short, the directory is as it was, or is recovered, or
// is refused with what to do; and the recovery can be run again.
func TestRecoverCutShort(t *testing.T) {
	t.Parallel()
	nodes := crashedCluster(t)
	cfg := nodes[0].cfg
	want := contentOf(t, nodes[0].View())
	cfg.OnView, cfg.OnMembers, cfg.OnAutonomous, cfg.Local = func(*state.View) {}, func() {}, func(bool) {}, func() Local { return Local{} }
	steps := len(openRecovery(t, copyOf(t, cfg.DataDir)).steps())
	for cut := range steps + 2 {
		dir := copyOf(t, cfg.DataDir)
		r := openRecovery(t, dir)
		for i, step := range r.steps() {
			if i == min(cut, steps) {
				break
			}
			if step.what == "rewrite the log" && cut == steps+1 { // in the middle of this step
				if err := r.rewrite(keepingLog{r.store}); err == nil {
					t.Fatal("the log was to stay, and nobody complained")
				}
				break
			}
			if err := step.do(); err != nil {
				t.Fatalf("cannot %s: %v", step.what, err)
			}
		}
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
		cfg := cfg
		cfg.DataDir, cfg.Bind, cfg.Raft = dir, freeAddr(t), freeAddr(t)
		c, err := Open(t.Context(), cfg)
		switch starts := cut < 2 || cut == steps; {
		case starts && err != nil:
			t.Errorf("after %d steps: got %v, want the node to start", cut, err)
		case !starts && (err == nil || !strings.Contains(err.Error(), "lbnode recover -data-dir "+dir)):
			t.Errorf("after %d steps: got %v, want to be told to run recover again", cut, err)
		case starts:
			if got := contentOf(t, c.View()); got != want {
				t.Errorf("after %d steps: got %s, want %s", cut, got, want)
			}
			c.Stop()
		}
		r = openRecovery(t, dir)
		found, err := r.Find(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := found.QuorumLost(); err != nil && cut != steps {
			t.Errorf("after %d steps: %v", cut, err)
		}
		if _, err := r.Run(); err != nil {
			t.Errorf("again after %d steps: %v", cut, err)
		}
		if got := contentOf(t, r.found.machine.View()); got != want {
			t.Errorf("again after %d steps: got %s, want %s", cut, got, want)
		}
		r.Close()
	}
}

// keepingLog is a log of which nothing can be deleted.
type keepingLog struct{ raft.LogStore }

func (keepingLog) DeleteRange(uint64, uint64) error { return errors.New("test failure") }

// A validation that cannot fail would be worth nothing.
func TestRecoverValidates(t *testing.T) {
	t.Parallel()
	nodes := crashedCluster(t)
	for name, spoil := range map[string]func(r *Recovery) error{
		"another content": func(r *Recovery) error { r.newID = "other"; return nil },
		"the log is there": func(r *Recovery) error {
			return r.store.StoreLog(&raft.Log{Index: r.found.index + 1, Term: r.found.term, Data: []byte("{}")})
		},
		"no view":      func(r *Recovery) error { return os.Remove(r.path("view.json")) },
		"another view": func(r *Recovery) error { return os.WriteFile(r.path("view.json"), []byte(`{"version":1}`), 0o600) },
		"damaged snapshot": func(r *Recovery) error {
			files, err := filepath.Glob(r.path("snapshots/*/state.bin"))
			return errors.Join(err, os.WriteFile(files[0], []byte("{}"), 0o600))
		},
		"other members": func(r *Recovery) error { r.id.ID = "other"; return nil },
	} {
		r := openRecovery(t, copyOf(t, nodes[0].cfg.DataDir))
		for _, step := range r.steps() {
			if strings.HasPrefix(step.what, "validate") {
				if err := spoil(r); err != nil {
					t.Fatalf("%s: %v", name, err)
				}
				if err := step.do(); err == nil {
					t.Errorf("%s: it passed", name)
				}
				break
			}
			if err := step.do(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestRecoverRefuses(t *testing.T) {
	t.Parallel()
	running := startCluster(t, 1, nil)[0]
	propose(t, running, addBackend("web-1", 3001))
	crashed := startCluster(t, 1, nil)[0]
	propose(t, crashed, addBackend("web-1", 3001))
	crashed.crash()
	empty := openOnly(t, newConfig(t, "lb1", freeAddr(t), freeAddr(t)))
	empty.Stop()
	spoilt := func(spoil func(dir string) error) string {
		dir := copyOf(t, crashed.cfg.DataDir)
		if err := spoil(dir); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	for name, test := range map[string]struct{ dir, in string }{
		"running":      {running.cfg.DataDir, "in use by another lbnode"},
		"no directory": {filepath.Join(t.TempDir(), "none"), "no such file"},
		"no node":      {t.TempDir(), "node.json"},
		"empty node":   {empty.cfg.DataDir, "belongs to no cluster yet"},
		"no log":       {spoilt(func(dir string) error { return os.Remove(filepath.Join(dir, "raft.db")) }), "raft.db"},
		"empty log":    {spoilt(func(dir string) error { return emptyLog(dir) }), "nothing to recover"},
		"damaged log": {spoilt(func(dir string) error {
			return errors.Join(os.Remove(filepath.Join(dir, "view.json")), os.Truncate(filepath.Join(dir, "raft.db"), 5000))
		}), "raft.db is damaged"},
		"newer command": {spoilt(func(dir string) error { return appendToLog(dir, `{"v":1,"op":"explode","body":{}}`) }), "upgrade this binary"},
	} {
		r, err := OpenRecovery(test.dir, slog.New(slog.DiscardHandler))
		if err == nil || !strings.Contains(err.Error(), test.in) {
			t.Errorf("%s: got %v, want an error with %q", name, err, test.in)
		}
		if err == nil {
			r.Close()
		}
	}
}

func appendToLog(dir, command string) error {
	store, err := openStore(dir, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	last, err := store.LastIndex()
	return errors.Join(err, store.StoreLog(&raft.Log{Index: last + 1, Term: 1, Data: []byte(command)}), store.Close())
}

func emptyLog(dir string) error {
	store, err := openStore(dir, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	return errors.Join(store.DeleteRange(1, 1000), store.Close(), os.Remove(filepath.Join(dir, "view.json")))
}

// A quorum that may be there is not lost: a member that answers counts, and so does
// one that takes the connection and says nothing, or has another secret.
func TestQuorumNotLost(t *testing.T) {
	t.Parallel()
	secret := make([]byte, secretBytes)
	nodes := startCluster(t, 3, func(c *Config) { c.Secrets = [][]byte{secret} })
	propose(t, nodes[0], addBackend("web-1", 3001))
	nodes[0].crash()
	nodes[1].crash()
	ask := func(secrets ...[]byte) *Found {
		t.Helper()
		found, err := openRecovery(t, copyOf(t, nodes[0].cfg.DataDir)).Find(t.Context(), secrets)
		if err != nil {
			t.Fatal(err)
		}
		return found
	}
	other := append(make([]byte, secretBytes-1), 1)
	for name, secrets := range map[string][][]byte{"right": {secret}, "other": {other}, "no": nil, "new and old": {other, secret}} {
		if err := ask(secrets...).QuorumLost(); err == nil || !strings.Contains(err.Error(), "2 of 3 voters are there and 2 are enough") {
			t.Errorf("%s secret: got %v, want the quorum not lost", name, err)
		}
	}
	nodes[2].crash()
	if err := ask(secret).QuorumLost(); err != nil {
		t.Errorf("all others are gone: got %v", err)
	}
}

// Who is there is decided by what answers at a member's address.
func TestAskMember(t *testing.T) {
	t.Parallel()
	n := startCluster(t, 1, nil)[0]
	calls := newCaller(&dialer{})
	defer calls.stop()
	silent := listenSilently(t).String()
	for _, test := range []struct {
		member  FoundMember
		cluster string
		gone    bool
		answer  string
	}{
		{FoundMember{ID: n.ID(), Addr: n.raftAddr().String()}, n.id.clusterID(), false, "answers"},
		{FoundMember{ID: n.ID(), Addr: n.raftAddr().String()}, "another", true, "another node is there"},
		{FoundMember{ID: "another", Addr: n.raftAddr().String()}, n.id.clusterID(), true, "another node is there"},
		{FoundMember{ID: "a", Addr: freeAddr(t)}, "c", true, "refused"},
		{FoundMember{ID: "a", Addr: "nowhere.invalid:7947"}, "c", true, "does not resolve"},
		{FoundMember{ID: "a", Addr: silent}, "c", false, ""},
	} {
		m := test.member
		m.ask(t.Context(), calls, test.cluster)
		if m.Gone != test.gone || test.answer != "" && m.Answer != test.answer || m.Answer == "" {
			t.Errorf("%+v: got gone %v, %q, want %v, %q", test.member, m.Gone, m.Answer, test.gone, test.answer)
		}
	}
}

func TestQuorumLost(t *testing.T) {
	t.Parallel()
	for members, lost := range map[string]bool{ // o: this node, a: there, x: gone, N: a non-voter that is there
		"o": false, "ox": true, "oa": false, "oxx": true, "oax": false, "oxxNN": true, "oaxxx": true, "oaaxx": false, "xx": true, "Nx": true,
	} {
		f := &Found{}
		for i, m := range members {
			f.Members = append(f.Members, FoundMember{ID: fmt.Sprint(i), Voter: m != 'N', Own: m == 'o', Gone: m == 'x'})
		}
		if got := f.QuorumLost() == nil; got != lost {
			t.Errorf("%s: got lost %v, want %v", members, got, lost)
		}
	}
}

// The address that gossip knew last is asked, not the one that Raft may still have.
func TestRecoveryAsksWhereMembersWereLast(t *testing.T) {
	t.Parallel()
	nodes := crashedCluster(t)
	dir := copyOf(t, nodes[0].cfg.DataDir)
	moved := netip.MustParseAddrPort("127.0.0.9:9")
	text := fmt.Sprintf(`[{"id":%q,"name":"lb9","addr":%q,"raft_addr":%q}]`, nodes[1].ID(), moved, moved)
	if err := os.WriteFile(filepath.Join(dir, "peers.json"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, m := range openRecovery(t, dir).members() {
		if m.ID == nodes[1].ID() && (m.Addr != moved.String() || m.Name != "lb9") {
			t.Errorf("got %+v, want it at %s", m, moved)
		}
		if m.ID == nodes[2].ID() && m.Addr != nodes[2].cfg.Raft {
			t.Errorf("got %+v, want it at %s", m, nodes[2].cfg.Raft)
		}
	}
}

// The peers of a founder died before they had elected anybody: its log names the
// members and nothing else.
func TestRecoverWithoutACommand(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	id, clusterID := NewID(), NewID()
	text, err := json.Marshal(identityFile{ID: id, ClusterID: clusterID})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "node.json"), text, 0o600); err != nil {
		t.Fatal(err)
	}
	store, err := openStore(dir, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	_, transport := raft.NewInmemTransport("")
	config := raft.DefaultConfig()
	config.LocalID = raft.ServerID(id)
	members := raft.Configuration{Servers: []raft.Server{
		{ID: raft.ServerID(id), Address: "127.0.0.1:1"}, {ID: "b", Address: "127.0.0.1:2"}, {ID: "c", Address: "127.0.0.1:3"},
	}}
	if err := raft.BootstrapCluster(config, store, store, raft.NewInmemSnapshotStore(), transport, members); err != nil {
		t.Fatal(err)
	}
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	r, err := OpenRecovery(dir, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	found, err := r.Find(t.Context(), nil)
	if err != nil || found.ClusterID != clusterID {
		t.Errorf("got cluster %q, %v, want %s", found.ClusterID, err, clusterID)
	}
	if _, err := r.Run(); err != nil {
		t.Error(err)
	}
}
