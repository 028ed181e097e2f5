package cluster

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/hashicorp/raft"
)

// keptSnapshots is how many snapshots Raft keeps, in case the newest is damaged.
const keptSnapshots = 2

// snapshots are Raft's, in snapshots/. A damaged one is set aside, so that Raft takes the one before it
// and what the log has since; whether that is enough, checkLog says. Raft's checksum covers the
// state alone, not meta.json beside it, which has the index and the members: that is sealed.
type snapshots struct {
	*raft.FileSnapshotStore
	dir  string // the data directory
	log  *slog.Logger
	lost []string // that were set aside at the start
}

// openSnapshots opens the snapshots in dir and looks at each.
func openSnapshots(dir string, library *libraryLog) (*snapshots, error) {
	store, err := raft.NewFileSnapshotStoreWithLogger(dir, keptSnapshots, library.hclog("snapshots"))
	if err != nil {
		return nil, fmt.Errorf("cannot open the snapshots in %s: %w", dir, err)
	}
	s := &snapshots{FileSnapshotStore: store, dir: dir, log: library.out}
	entries, err := os.ReadDir(filepath.Join(dir, "snapshots"))
	if err != nil {
		return nil, fmt.Errorf("cannot open the snapshots in %s: %w", dir, err)
	}
	for _, entry := range entries {
		if name := entry.Name(); entry.IsDir() && !strings.HasSuffix(name, ".tmp") { // one that was not finished
			if err := s.look(name); err != nil {
				return nil, err
			}
		}
	}
	return s, nil
}

// look sets a snapshot aside that is damaged. One of a binary that knows of no seal is
// sealed.
func (s *snapshots) look(id string) error {
	sealed, err := s.check(id)
	switch {
	case err != nil:
		s.lost = append(s.lost, s.path(id))
		return s.setAside(id, err)
	case sealed:
		return nil
	}
	return sealFile(s.metaPath(id))
}

// setAside takes a snapshot out of Raft's sight, unless this node may not read it.
func (s *snapshots) setAside(id string, cause error) error {
	if errors.Is(cause, fs.ErrPermission) {
		return fmt.Errorf("cannot read the snapshot %s: %w", s.path(id), cause)
	}
	to, err := setAside(s.dir, s.path(id))
	if err == nil {
		s.log.Warn("a snapshot is damaged; this node goes on with the one before it and the log", "file", s.path(id), "error", cause, "set_aside", to)
	}
	return err
}

// check compares a snapshot with its checksums.
func (s *snapshots) check(id string) (sealed bool, err error) {
	if sealed, err = s.checkMeta(id); err != nil {
		return sealed, err
	}
	_, source, err := s.FileSnapshotStore.Open(id)
	if err != nil {
		return sealed, fmt.Errorf("state.bin: %w", err)
	}
	return sealed, source.Close()
}

func (s *snapshots) checkMeta(id string) (sealed bool, err error) {
	text, err := os.ReadFile(s.metaPath(id))
	if err != nil {
		return false, err
	}
	if sealed, err = checkJSON(text); err != nil {
		return sealed, fmt.Errorf("meta.json: %w", err)
	}
	var meta raft.SnapshotMeta
	if err := json.Unmarshal(text, &meta); err != nil {
		return sealed, fmt.Errorf("meta.json: %w", err)
	}
	if meta.ID != id || !strings.HasPrefix(id, fmt.Sprintf("%d-%d-", meta.Term, meta.Index)) {
		return sealed, errors.New("meta.json is of another snapshot")
	}
	return sealed, nil
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

// Open implements raft.SnapshotStore. One that was damaged while the node ran is set
// aside, so that the next try finds the one before it.
func (s *snapshots) Open(id string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	_, err := s.checkMeta(id)
	if err == nil {
		var meta *raft.SnapshotMeta
		var source io.ReadCloser
		if meta, source, err = s.FileSnapshotStore.Open(id); err == nil {
			return meta, source, nil
		}
	}
	return nil, nil, errors.Join(err, s.setAside(id, err))
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
