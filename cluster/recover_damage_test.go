package cluster

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"lbnode/state"
)

// When the log is damaged, a recovery takes the newest of what stands beside it, and says
// what it cannot use.
func TestRecoverFromDamage(t *testing.T) {
	t.Parallel()
	nodes := crashedCluster(t)
	cfg := nodes[0].cfg
	whole := nodes[0].View()
	remove := func(pattern string) func(dir string) error {
		return func(dir string) error {
			found, err := filepath.Glob(filepath.Join(dir, pattern))
			for _, path := range found {
				err = errors.Join(err, os.RemoveAll(path))
			}
			return err
		}
	}
	zeros := func(name string) func(dir string) error {
		return func(dir string) error { return os.WriteFile(filepath.Join(dir, name), make([]byte, 9000), 0o600) }
	}
	for name, test := range map[string]struct {
		spoil    []func(dir string) error
		from     string
		unusable string
		backends int // 0: nothing can be recovered
	}{
		"log":               {[]func(string) error{zeros("raft.db")}, "the view kept on disk", "raft.db is damaged: page 0", 2},
		"log and view":      {[]func(string) error{zeros("raft.db"), zeros("view.json")}, "the snapshot of index", "view.json", 1},
		"log and snapshots": {[]func(string) error{zeros("raft.db"), remove("snapshots/*")}, "the view kept on disk", "raft.db is damaged", 2},
		"all":               {[]func(string) error{zeros("raft.db"), zeros("view.json"), remove("snapshots/*")}, "", "", 0},
		"emptied log":       {[]func(string) error{remove("raft.db"), func(dir string) error { return os.WriteFile(storePath(dir), nil, 0o600) }}, "the view kept on disk", "or was emptied", 2},
		"snapshot":          {[]func(string) error{remove("snapshots/*/state.bin")}, "", "state.bin", 2},
		"identity":          {[]func(string) error{zeros("node.json")}, "", "node.json is damaged", 2},
		"identity and log":  {[]func(string) error{zeros("node.json"), zeros("raft.db")}, "the view kept on disk", "node.json is damaged", 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := copyOf(t, cfg.DataDir)
			for _, spoil := range test.spoil {
				if err := spoil(dir); err != nil {
					t.Fatal(err)
				}
			}
			r, err := OpenRecovery(dir, slog.New(slog.DiscardHandler))
			if test.backends == 0 {
				if err == nil || !strings.Contains(err.Error(), "nothing to recover from") {
					t.Errorf("got %v, want that there is nothing", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			found, err := r.Find(t.Context(), nil)
			if err != nil {
				t.Fatal(err)
			}
			if !strings.HasPrefix(found.From, test.from) || (found.From == "") != (test.from == "") || !strings.Contains(strings.Join(found.Unusable, "\n"), test.unusable) || len(found.Members) < 3 {
				t.Errorf("got %+v, want it from %q, without %q", found, test.from, test.unusable)
			}
			if _, err := openStore(dir, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), "in use by another lbnode") {
				t.Errorf("got %v, want the directory locked", err)
			}
			done, err := r.Run()
			if err != nil {
				t.Fatal(err)
			}
			if err := r.Close(); err != nil {
				t.Fatal(err)
			}
			if _, err := os.Stat(storePath(done.Kept)); err != nil {
				t.Errorf("the directory as it was is not kept: %v", err)
			}
			cfg := newConfig(t, "lb1")
			cfg.DataDir = dir
			n := start(t, cfg)
			eventually(t, waitLong, "it leads alone", func() bool { return n.Status(t.Context()).Healthy })
			if got := len(n.View().Pool(state.DefaultPool).Backends); got != test.backends || n.View().ClusterID == whole.ClusterID {
				t.Errorf("got %d backends in cluster %s, want %d in a new one", got, n.View().ClusterID, test.backends)
			}
			propose(t, n, addBackend("web-9", 3009))
		})
	}
}
