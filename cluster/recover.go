package cluster

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/hashicorp/raft"

	"lbnode/state"
)

// Recovery makes a cluster of one of what a stopped node has on disk, for when the
// quorum is lost for good. It holds the directory's lock until Close, so that no
// node starts from it meanwhile.
type Recovery struct {
	dir     string
	library *libraryLog
	id      identityFile

	store     *logStore
	snapshots *snapshots
	found     *replayed
	lostID    error    // why the identity is not used, nil if it is
	unusable  error    // the same of the log
	from      string   // what is used in that case
	locked    *os.File // and the log

	newID string // of the cluster to come
	kept  string // where the directory is kept as it was, empty until it is
}

// OpenRecovery looks at the data directory of a stopped node and changes nothing in
// it. The error says why there is nothing to recover, or that the node runs.
func OpenRecovery(dir string, log *slog.Logger) (*Recovery, error) {
	dir, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return nil, fmt.Errorf("cannot find the data directory: %w", err)
	}
	r := &Recovery{dir: dir, library: newLibraryLog(log)}
	var d *damage
	if r.id, err = readIdentity(r.path("node.json")); errors.As(err, &d) {
		r.id, r.lostID = identityFile{ID: NewID()}, d // as good as any in the cluster to come
	} else if err != nil {
		return nil, err
	} else if r.id.ClusterID == "" || r.id.Founding {
		return nil, fmt.Errorf("the node of %s belongs to no cluster yet: there is nothing to recover", r.dir)
	}
	r.newID, r.kept = NewID(), r.id.Recovering
	if r.kept != "" { // cut short: the id is that of the cluster to come
		r.newID = r.id.ClusterID
	} else if _, err := os.Stat(storePath(r.dir)); err != nil {
		return nil, fmt.Errorf("cannot find the node's log: %w; without it there is nothing to recover", err)
	}
	if err := r.open(); err != nil {
		r.Close()
		return nil, err
	}
	r.id.ClusterID = cmp.Or(r.id.ClusterID, r.found.machine.View().ClusterID)
	return r, nil
}

func (r *Recovery) path(name string) string { return filepath.Join(r.dir, name) }

// open opens what Raft keeps, and reads it.
func (r *Recovery) open() (err error) {
	if r.snapshots, err = newSnapshots(r.dir, r.library); err != nil {
		return err
	}
	if r.store, err = openStore(r.dir, r.library.out); err == nil {
		r.found, err = replay(r.store, r.snapshots)
	}
	if err == nil {
		err = r.checkView()
	}
	var d *damage
	if errors.As(err, &d) || errors.Is(err, raft.ErrLogNotFound) || errors.Is(err, errNothing) {
		return r.salvage(err)
	}
	if err != nil {
		return fmt.Errorf("cannot read the log in %s: %w", r.dir, err)
	}
	return nil
}

// Close lets go of the directory.
func (r *Recovery) Close() (err error) {
	if r.store != nil {
		err = r.store.Close()
	}
	if r.locked != nil {
		err = errors.Join(err, r.locked.Close())
	}
	r.store, r.locked = nil, nil
	return err
}

// Recovered is the outcome of a recovery.
type Recovered struct {
	// ClusterID is the id of the new cluster.
	ClusterID string `json:"cluster_id"`
	// Kept is the directory as it was before.
	Kept string `json:"kept"`
}

// recoveryStep is one part of a recovery. Before its first change, the directory is as it
// was; until its last step is done, no node starts from it, and the recovery can be
// run again.
type recoveryStep struct {
	what string
	do   func() error
}

func (r *Recovery) steps() []recoveryStep {
	return []recoveryStep{
		{"copy the directory aside", r.keep},
		{"mark the directory", func() error { return r.writeIdentity(r.kept) }},
		{"rewrite the log", func() error {
			if r.unusable != nil {
				return r.rebuild()
			}
			return r.rewrite(r.store)
		}},
		{"remove the snapshots of the old cluster", r.dropOldSnapshots},
		{"write the view", r.writeView},
		{"give the files to their owner", func() error { return giveAll(r.dir) }},
		{"validate what was written", r.validate},
		{"unmark the directory", func() error { return r.writeIdentity("") }},
	}
}

// Run recovers: this node becomes the only voter of a cluster that has a new id and
// all that this node's log holds, agreed on or not. The new id keeps the nodes of the
// old cluster out of it. An error says which step failed; what was before is in the
// copy, and Run may be tried again by another Recovery.
func (r *Recovery) Run() (Recovered, error) {
	for _, step := range r.steps() {
		if err := step.do(); err != nil {
			return Recovered{}, fmt.Errorf("cannot %s: %w%s", step.what, err, r.advice())
		}
	}
	return Recovered{ClusterID: r.newID, Kept: r.kept}, nil
}

func (r *Recovery) advice() string {
	if r.kept == "" {
		return "; nothing was changed"
	}
	return fmt.Sprintf("; run it again, or put %s back in the place of %s", r.kept, r.dir)
}

// keep copies the directory aside, unless a recovery that was cut short has.
func (r *Recovery) keep() (err error) {
	if r.kept == "" {
		r.kept, err = keepCopy(r.dir, "before-recover")
	}
	return err
}

// writeIdentity writes the node's identity in the new cluster. While recovering says
// where the copy is, no node starts from the directory.
func (r *Recovery) writeIdentity(recovering string) error {
	text, err := json.MarshalIndent(identityFile{ID: r.id.ID, ClusterID: r.newID, Recovering: recovering}, "", " ")
	if err != nil {
		return err
	}
	return replaceFile(r.path("node.json"), sealJSON(append(text, '\n')))
}

// rewrite puts a snapshot of all that the log holds in the place of the log, with
// this node as the only member.
func (r *Recovery) rewrite(logs raft.LogStore) error {
	config := raft.DefaultConfig()
	config.LocalID = raft.ServerID(r.id.ID)
	config.Logger = r.library.hclog("raft")
	_, transport := raft.NewInmemTransport("")
	defer transport.Close()
	return raft.RecoverCluster(config, &recoveryFSM{machine: state.NewMachine(), clusterID: r.newID}, logs, r.store, r.snapshots, transport, r.alone())
}

// alone is the configuration of Raft with this node only.
func (r *Recovery) alone() raft.Configuration {
	address := raft.ServerAddress("127.0.0.1:1") // corrected by the leader, as any that changed
	if own, found := findServer(r.found.servers, r.id.ID); found {
		address = own.Address
	}
	return raft.Configuration{Servers: []raft.Server{{Suffrage: raft.Voter, ID: raft.ServerID(r.id.ID), Address: address}}}
}

// dropOldSnapshots keeps the newest snapshot only: Raft would fall back to an older
// one if it were damaged, and so to the old cluster.
func (r *Recovery) dropOldSnapshots() error {
	sound, err := r.snapshots.List()
	if err != nil || len(sound) == 0 {
		return err
	}
	all, err := r.snapshots.ids()
	for _, id := range all {
		if id != sound[0].ID {
			err = errors.Join(err, os.RemoveAll(r.snapshots.path(id)))
		}
	}
	return err
}

// writeView writes the copy of the view that the node serves from its start. The old
// peers are forgotten: they are not of this cluster.
func (r *Recovery) writeView() error {
	data, err := r.found.machine.View().Snapshot().WithClusterID(r.newID).Encode()
	if err != nil {
		return err
	}
	if err := replaceFile(r.path("view.json"), sealJSON(data)); err != nil {
		return err
	}
	return os.RemoveAll(r.path("peers.json"))
}

// validate opens all again, as a node does at its start, and compares it with what
// there was.
func (r *Recovery) validate() error {
	was := r.found
	r.unusable = nil
	if err := errors.Join(r.Close(), r.open()); err != nil {
		return err
	}
	if r.unusable != nil {
		return r.unusable
	}
	is := r.found
	want, err := was.machine.Snapshot().WithClusterID(r.newID).Encode()
	if err != nil {
		return err
	}
	got, err := is.machine.Snapshot().Encode()
	if err != nil {
		return err
	}
	view, err := readView(r.path("view.json"))
	if err != nil {
		return err
	}
	last, err := r.store.LastIndex()
	if err != nil {
		return err
	}
	switch {
	case !bytes.Equal(got, want):
		return errors.New("the new snapshot does not hold what the log held")
	case view == nil || view.Digest() != is.machine.View().Digest():
		return errors.New("view.json does not hold what the new snapshot holds")
	case is.index != was.index || is.term != was.term || last != 0:
		return fmt.Errorf("the log ends at index %d, term %d, not at %d, %d", is.index, is.term, was.index, was.term)
	case len(is.servers) != 1 || is.servers[0] != r.alone().Servers[0]:
		return fmt.Errorf("this node is not the only voter: %v", is.servers)
	}
	return nil
}

// recoveryFSM is the machine that raft.RecoverCluster drives. Its snapshot is of the
// new cluster.
type recoveryFSM struct {
	clusterID string
	machine   *state.Machine
	failed    error
}

// Restore implements raft.FSM.
func (f *recoveryFSM) Restore(source io.ReadCloser) (err error) {
	f.machine, err = readSnapshot(source)
	return err
}

// Apply implements raft.FSM.
func (f *recoveryFSM) Apply(entry *raft.Log) any {
	_, err := f.machine.Apply(entry.Index, entry.Data)
	f.failed = errors.Join(f.failed, err)
	return nil
}

// Snapshot implements raft.FSM.
func (f *recoveryFSM) Snapshot() (raft.FSMSnapshot, error) {
	if f.failed != nil {
		return nil, f.failed
	}
	return fsmSnapshot{f.machine.Snapshot().WithClusterID(f.clusterID)}, nil
}
