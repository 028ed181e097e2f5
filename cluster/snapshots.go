package cluster

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/hashicorp/raft"
)

// keptSnapshots is how many snapshots Raft keeps, in case the newest is damaged.
const keptSnapshots = 2

// snapshots are Raft's, in snapshots/. Raft is not shown one that is damaged, so that it takes the one
// before it and what the log has since; whether that is enough, checkLog says. Raft's checksum
// covers the state alone, not meta.json beside it, which has the index and the members: that
// is sealed.
type snapshots struct {
	*raft.FileSnapshotStore
	dir   string // the data directory
	log   *slog.Logger
	renew func() // asks for a snapshot in the place of one that turned out to be damaged

	mu   sync.Mutex
	lost map[string]error // damaged ones, by id
}

// newSnapshots opens the snapshots in dir and does not look at them yet.
func newSnapshots(dir string, library *libraryLog) (*snapshots, error) {
	store, err := raft.NewFileSnapshotStoreWithLogger(dir, keptSnapshots, library.hclog("snapshots"))
	if err != nil {
		return nil, fmt.Errorf("cannot open the snapshots in %s: %w", dir, err)
	}
	return &snapshots{FileSnapshotStore: store, dir: dir, log: library.out, renew: func() {}, lost: map[string]error{}}, nil
}

// openSnapshots opens the snapshots in dir and looks at each.
func openSnapshots(dir string, library *libraryLog) (*snapshots, error) {
	s, err := newSnapshots(dir, library)
	if err != nil {
		return nil, err
	}
	if s.lost, err = s.damaged(); err != nil {
		return nil, err
	}
	all, err := s.List()
	for _, sound := range all {
		err = errors.Join(err, sealFile(s.metaPath(sound.ID))) // of a binary that knows of no seal
	}
	return s, err
}

// newestLost is the newest of those that are damaged, with its index, which is in its name, too;
// its path is empty if there is none.
func (s *snapshots) newestLost() (path string, index uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id := range s.lost {
		var term, at uint64
		if _, err := fmt.Sscanf(id, "%d-%d-", &term, &at); err == nil && at >= index {
			path, index = s.path(id), at
		}
	}
	return path, index
}

// setLostAside takes away those that are damaged, once it is known that this node can do
// without them.
func (s *snapshots) setLostAside() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, cause := range s.lost {
		to, err := setAside(s.dir, s.path(id))
		if err != nil {
			return err
		}
		s.log.Warn("a snapshot is damaged; this node goes on with the one before it and the log", "file", s.path(id), "error", cause, "set_aside", to)
		delete(s.lost, id)
	}
	return nil
}

// List implements raft.SnapshotStore.
func (s *snapshots) List() ([]*raft.SnapshotMeta, error) {
	all, err := s.FileSnapshotStore.List()
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.DeleteFunc(all, func(m *raft.SnapshotMeta) bool {
		return s.lost[m.ID] != nil || s.checkMeta(m.ID) != nil // a damaged one may name itself otherwise
	}), err
}

// ids are those of all snapshots that were finished.
func (s *snapshots) ids() (ids []string, err error) {
	entries, err := os.ReadDir(filepath.Join(s.dir, "snapshots"))
	if err != nil {
		return nil, fmt.Errorf("cannot open the snapshots in %s: %w", s.dir, err)
	}
	for _, entry := range entries {
		if entry.IsDir() && !strings.HasSuffix(entry.Name(), ".tmp") {
			ids = append(ids, entry.Name())
		}
	}
	return ids, nil
}

// damaged are the snapshots that are, with what is wrong with them.
func (s *snapshots) damaged() (map[string]error, error) {
	ids, err := s.ids()
	all := map[string]error{}
	for _, id := range ids {
		switch err := s.check(id); {
		case errors.Is(err, fs.ErrPermission):
			return nil, fmt.Errorf("cannot read the snapshot %s: %w", s.path(id), err)
		case err != nil:
			all[id] = err
		}
	}
	return all, err
}

// check compares a snapshot with its checksums.
func (s *snapshots) check(id string) error {
	if err := s.checkMeta(id); err != nil {
		return err
	}
	_, source, err := s.FileSnapshotStore.Open(id)
	if err != nil {
		return fmt.Errorf("state.bin: %w", err)
	}
	return source.Close()
}

func (s *snapshots) checkMeta(id string) error {
	text, err := os.ReadFile(s.metaPath(id))
	if err != nil {
		return err
	}
	var meta raft.SnapshotMeta
	if err := readSealed(text, &meta); err != nil {
		return fmt.Errorf("meta.json: %w", err)
	}
	if meta.ID != id || !strings.HasPrefix(id, fmt.Sprintf("%d-%d-", meta.Term, meta.Index)) {
		return errors.New("meta.json is of another snapshot")
	}
	return nil
}

func (s *snapshots) path(id string) string     { return filepath.Join(s.dir, "snapshots", id) }
func (s *snapshots) metaPath(id string) string { return filepath.Join(s.path(id), "meta.json") }

// newest is the index of the newest snapshot, 0 if there is none.
func (s *snapshots) newest() (uint64, error) {
	all, err := s.List()
	if err != nil || len(all) == 0 {
		return 0, err
	}
	return all[0].Index, nil
}

// Open implements raft.SnapshotStore. One that was damaged while the node ran is not shown
// again; it is set aside at the next start, if it is not needed then.
func (s *snapshots) Open(id string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	err := s.checkMeta(id)
	if err == nil {
		var meta *raft.SnapshotMeta
		var source io.ReadCloser
		if meta, source, err = s.FileSnapshotStore.Open(id); err == nil {
			return meta, source, nil
		}
	}
	s.mu.Lock()
	s.lost[id] = err
	s.mu.Unlock()
	s.log.Warn("a snapshot is damaged; this node makes another", "file", s.path(id), "error", err)
	s.renew()
	return nil, nil, err
}

// Create implements raft.SnapshotStore.
func (s *snapshots) Create(version raft.SnapshotVersion, index, term uint64, members raft.Configuration, membersIndex uint64, transport raft.Transport) (raft.SnapshotSink, error) {
	sink, err := s.FileSnapshotStore.Create(version, index, term, members, membersIndex, transport)
	if err != nil {
		return nil, err
	}
	return sealingSink{sink, s}, nil
}

// sealingSink seals the snapshot that was written.
type sealingSink struct {
	raft.SnapshotSink
	store *snapshots
}

// Close implements raft.SnapshotSink.
func (s sealingSink) Close() error {
	if err := s.SnapshotSink.Close(); err != nil {
		return err
	}
	return sealFile(s.store.metaPath(s.ID()))
}
