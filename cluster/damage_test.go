package cluster

import (
	"bytes"
	"errors"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/raft"

	"lbnode/state"
)

// harm is a kind of damage to a file.
type harm struct {
	name string
	do   func(text []byte) []byte
}

// flip turns one bit over, at a part of the file between 0 and 1.
func flip(at float64, bit int) func([]byte) []byte {
	return func(text []byte) []byte {
		if len(text) > 0 {
			text[int(at*float64(len(text)-1))] ^= 1 << bit
		}
		return text
	}
}

// zeroed makes zeros of the page in which a part of the file is.
func zeroed(at float64) func([]byte) []byte {
	return func(text []byte) []byte {
		from := int(at*float64(len(text))) / 4096 * 4096
		clear(text[from:min(from+4096, len(text))])
		return text
	}
}

// harms are the kinds of damage that every file is tried with.
var harms = []harm{
	{"emptied", func([]byte) []byte { return nil }},
	{"cut off in the head", func(text []byte) []byte { return text[:min(len(text), 40)] }},
	{"cut off in the second page", func(text []byte) []byte { return text[:min(len(text), 5000)] }},
	{"cut off in the middle", func(text []byte) []byte { return text[:len(text)/2] }},
	{"cut off by a byte", func(text []byte) []byte { return text[:max(0, len(text)-1)] }},
	{"cut off by a page", func(text []byte) []byte { return text[:max(0, len(text)-4096)] }},
	{"a bit of the first byte", flip(0, 3)},
	{"a bit of the first page", func(text []byte) []byte { text[min(60, len(text)-1)] ^= 1; return text }},
	{"a bit of the second page", func(text []byte) []byte { text[min(4096+70, len(text)-1)] ^= 1; return text }},
	{"a bit in the middle", flip(0.5, 0)},
	{"a bit of the last byte", flip(1, 1)},
	{"first page zeroed", zeroed(0)},
	{"middle page zeroed", zeroed(0.5)},
	{"last page zeroed", zeroed(0.999)},
	{"all zeroed", func(text []byte) []byte { clear(text); return text }},
	{"noise", func(text []byte) []byte { // from a seed, so that it is the same each time
		random := rand.New(rand.NewPCG(1, 2))
		for i := range text {
			text[i] = byte(random.Uint32())
		}
		return text
	}},
	{"two halves exchanged", func(text []byte) []byte { return slices.Concat(text[len(text)/2:], text[:len(text)/2]) }},
	{"a bit of each 7", func(text []byte) []byte { return bytes.ReplaceAll(text, []byte("7"), []byte("=")) }}, // in the id of a snapshot
	{"more behind it", func(text []byte) []byte { return append(text, "more"...) }},
}

func damageFile(t *testing.T, path string, do func([]byte) []byte) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err == nil {
		err = os.WriteFile(path, do(text), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// A node whose file is damaged either ends with one line that names the file and
// the way out, or has all that it had: the file did not matter, or was not needed.
func TestDamagedFiles(t *testing.T) {
	t.Parallel()
	nodes := crashedCluster(t)
	cfg := nodes[0].cfg
	cfg.OnView, cfg.OnMembers, cfg.OnAutonomous, cfg.Local = func(*state.View) {}, func() {}, func(bool) {}, func() Local { return Local{} }
	store, err := openStore(copyOf(t, cfg.DataDir), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	want := content(t, store)
	store.Close()
	snapshots, err := openSnapshots(copyOf(t, cfg.DataDir), newLibraryLog(slog.New(slog.DiscardHandler)))
	if err != nil {
		t.Fatal(err)
	}
	snapshot, err := replaySnapshot(snapshots)
	if err != nil {
		t.Fatal(err)
	}
	older := snapshot.machine.View().Digest() // what is served without the view on disk
	for _, file := range []struct {
		pattern  string
		harmless bool // the node goes on, whatever becomes of the file
	}{
		{"raft.db", false}, {"node.json", false},
		{"view.json", true}, {"term.json", true}, {"peers.json", true}, {"snapshots/*/meta.json", true}, {"snapshots/*/state.bin", true},
	} {
		for _, harm := range harms {
			t.Run(file.pattern+" "+harm.name, func(t *testing.T) {
				dir := copyOf(t, cfg.DataDir)
				paths, err := filepath.Glob(filepath.Join(dir, file.pattern))
				if err != nil || len(paths) == 0 {
					t.Fatalf("got %v, %v, want a file", paths, err)
				}
				damageFile(t, paths[0], harm.do)
				cfg := cfg
				var said bytes.Buffer
				cfg.DataDir, cfg.Bind, cfg.Raft, cfg.Log = dir, freeAddr(t), freeAddr(t), slog.New(slog.NewTextHandler(&said, nil))
				c, err := Open(t.Context(), cfg)
				if err != nil {
					if file.harmless {
						t.Errorf("got %v, want the node to go on", err)
					}
					checkDamageLine(t, err, paths[0], dir)
					return
				}
				defer c.Stop()
				if got := content(t, c.store); got != want {
					t.Errorf("got %s\nwant %s", got, want)
				}
				if v := c.View(); v.Digest() != nodes[0].View().Digest() && (file.pattern != "view.json" || v.Digest() != older) {
					t.Errorf("serves a view of index %d with digest %s, want %s", v.Index, v.Digest(), nodes[0].View().Digest())
				}
				t.Logf("goes on; it said %s", &said)
			})
		}
	}
}

// checkDamageLine fails the test unless the error is one line that names the file and
// says what to do.
func checkDamageLine(t *testing.T, err error, path, dir string) {
	t.Helper()
	line := err.Error()
	for _, part := range []string{path + " is damaged: ", "mv " + dir + " " + dir + ".damaged-1, then start this node again", "lbnode recover -data-dir " + dir} {
		if !strings.Contains(line, part) || strings.Contains(line, "\n") {
			t.Errorf("got %q, want one line with %q", line, part)
		}
	}
	t.Log(line)
}

// A log that is sound, but older than what the node has told others, is refused.
func TestOlderLogIsRefused(t *testing.T) {
	t.Parallel()
	nodes := crashedCluster(t)
	cfg := nodes[0].cfg
	old, err := os.ReadFile(storePath(cfg.DataDir))
	if err != nil {
		t.Fatal(err)
	}
	again := start(t, cfg)
	others := []*node{again, start(t, nodes[1].cfg), start(t, nodes[2].cfg)}
	waitFormed(t, others)
	propose(t, again, addBackend("web-3", 3003))
	stopAll(others)
	for name, test := range map[string]struct {
		spoil func(dir string) error
		in    string
	}{
		"an older one": {func(dir string) error { return os.WriteFile(storePath(dir), old, 0o600) }, "it is an older one"},
		"an older one, by its term alone": {func(dir string) error {
			return errors.Join(os.Remove(filepath.Join(dir, "view.json")), os.WriteFile(storePath(dir), old, 0o600))
		}, "took part in term"},
		"an older one, by the view alone": {func(dir string) error {
			return errors.Join(os.Remove(filepath.Join(dir, "term.json")), os.WriteFile(storePath(dir), old, 0o600))
		}, "served the view of index"},
		"none": {func(dir string) error { return os.Remove(storePath(dir)) }, "it is an older one, or was emptied"},
		"none and no snapshots": {func(dir string) error {
			return errors.Join(os.Remove(storePath(dir)), os.RemoveAll(filepath.Join(dir, "snapshots")))
		}, "or was emptied"},
		"none, and no view": {func(dir string) error {
			return errors.Join(os.Remove(storePath(dir)), os.Remove(filepath.Join(dir, "view.json")))
		}, "or was emptied"},
		"none, as before a term": {func(dir string) error {
			return errors.Join(os.Remove(storePath(dir)), os.Remove(filepath.Join(dir, "term.json")))
		}, "or was emptied"},
	} {
		dir := copyOf(t, cfg.DataDir)
		if err := test.spoil(dir); err != nil {
			t.Fatal(err)
		}
		cfg := again.cfg
		cfg.DataDir, cfg.Bind, cfg.Raft = dir, freeAddr(t), freeAddr(t)
		cfg.OnView, cfg.OnMembers, cfg.OnAutonomous, cfg.Local = func(*state.View) {}, func() {}, func(bool) {}, func() Local { return Local{} }
		c, err := Open(t.Context(), cfg)
		if err == nil {
			c.Stop()
			t.Errorf("%s: it starts", name)
			continue
		}
		checkDamageLine(t, err, storePath(dir), dir)
		if !strings.Contains(err.Error(), test.in) {
			t.Errorf("%s: got %q, want %q in it", name, err, test.in)
		}
	}
}

// A snapshot that has more than the log is no less needed when nothing else tells of it.
func TestSnapshotThatTheLogLacks(t *testing.T) {
	t.Parallel()
	cfg := crashedCluster(t)[0].cfg
	cfg.OnView, cfg.OnMembers, cfg.OnAutonomous, cfg.Local = func(*state.View) {}, func() {}, func(bool) {}, func() Local { return Local{} }
	r := openRecovery(t, cfg.DataDir)
	_, err := r.Run() // what it leaves is a snapshot and an empty log
	if err := errors.Join(err, r.Close()); err != nil {
		t.Fatal(err)
	}
	for _, entry := range []string{"", "an entry from before"} {
		dir := copyOf(t, cfg.DataDir)
		found, err := filepath.Glob(filepath.Join(dir, "snapshots", "*"))
		if err != nil || len(found) != 1 {
			t.Fatalf("got %v, %v, want one snapshot", found, err)
		}
		damageFile(t, filepath.Join(found[0], "state.bin"), flip(0.5, 0))
		if err := os.Remove(filepath.Join(dir, "view.json")); err != nil {
			t.Fatal(err)
		}
		if entry != "" {
			store, err := openStore(dir, slog.New(slog.DiscardHandler))
			if err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(store.StoreLog(&raft.Log{Index: 1, Term: 1}), store.Close()); err != nil {
				t.Fatal(err)
			}
		}
		cfg := cfg
		cfg.DataDir, cfg.Bind, cfg.Raft = dir, freeAddr(t), freeAddr(t)
		c, err := Open(t.Context(), cfg)
		if err == nil {
			c.Stop()
			t.Errorf("%q: it starts without the snapshot", entry)
		} else if !strings.Contains(err.Error(), found[0]+" is damaged: ") {
			t.Errorf("%q: got %v, want the snapshot named", entry, err)
		}
		if c, err := Open(t.Context(), cfg); err == nil { // the next try, when it has been set aside
			c.Stop()
			t.Errorf("%q: it starts the second time", entry)
		}
	}
}

// A log that is damaged while the node runs ends it, with a line and no crash.
func TestLogIsDamagedWhileTheNodeRuns(t *testing.T) {
	t.Parallel()
	nodes := startCluster(t, 3, nil)
	propose(t, nodes[0], addBackend("web-1", 3001))
	for _, victim := range nodes[:1] {
		if err := os.Truncate(storePath(victim.cfg.DataDir), 8192); err != nil {
			t.Fatal(err)
		}
		eventually(t, waitLong, "it is found", func() bool {
			victim.store.GetLog(1, &raft.Log{})
			select {
			case err := <-victim.Failed():
				checkDamageLine(t, err, storePath(victim.cfg.DataDir), victim.cfg.DataDir)
				return true
			default:
				nodes[1].Propose(t.Context(), Write{Op: addBackend(NewID(), 3002)})
				return false
			}
		})
		victim.Stop()
	}
	propose(t, nodes[1], addBackend("web-2", 3002))
}

// A snapshot that is damaged while the node runs is not shown to Raft again, and another is made.
func TestSnapshotIsDamagedWhileTheNodeRuns(t *testing.T) {
	t.Parallel()
	n := startCluster(t, 1, nil)[0]
	propose(t, n, addBackend("web-1", 3001))
	eventually(t, waitLong, "a snapshot", func() bool { return n.raft().Snapshot().Error() == nil })
	all, err := n.stores.snapshots.List()
	if err != nil || len(all) != 1 {
		t.Fatalf("got %d snapshots, %v, want 1", len(all), err)
	}
	damageFile(t, filepath.Join(n.cfg.DataDir, "snapshots", all[0].ID, "state.bin"), flip(0.5, 1))
	if _, _, err := n.stores.snapshots.Open(all[0].ID); err == nil {
		t.Error("it was opened")
	}
	eventually(t, waitLong, "another snapshot", func() bool {
		left, err := n.stores.snapshots.List()
		return err == nil && len(left) == 1 && left[0].ID != all[0].ID && n.stores.snapshots.check(left[0].ID) == nil
	})
}
