package cluster

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"github.com/hashicorp/raft"

	"lbnode/state"
)

// When the log is damaged, the newest of what stands beside it is taken instead: a snapshot, or
// the view kept on disk. What the log had beyond that is lost.

// checkView refuses a log that ends before the view that this node served.
func (r *Recovery) checkView() error {
	view, err := readView(r.path("view.json"))
	if err != nil || view == nil || view.ClusterID != r.id.ClusterID || view.Index <= r.found.index {
		return nil // one that is damaged says nothing against the log
	}
	return &damage{storePath(r.dir), fmt.Sprintf("it ends at index %d, but this node served the view of index %d", r.found.index, view.Index)}
}

// salvage finds what can be used without the log, and keeps the directory's lock.
func (r *Recovery) salvage(cause error) error {
	err := r.Close()
	if err == nil {
		r.locked, err = lockFile(storePath(r.dir))
	}
	if err != nil {
		return err
	}
	best, noSnapshot := replaySnapshot(r.snapshots)
	if noSnapshot != nil {
		best = &replayed{machine: state.NewMachine()}
	}
	r.from = fmt.Sprintf("the snapshot of index %d", best.index)
	kept, noView := readKept(r.path("view.json"))
	if kept != nil && kept.View().Index > best.index && (r.kept != "" || r.lostID != nil || kept.View().ClusterID == r.id.ClusterID) {
		best.machine, best.index, best.snapshot = kept, kept.View().Index, 0
		r.from = fmt.Sprintf("the view kept on disk, of index %d", best.index)
	}
	if best.index == 0 {
		return errors.Join(fmt.Errorf("there is nothing to recover from: %w", cause), noSnapshot, noView)
	}
	if best.servers == nil {
		best.servers = r.keptServers()
	}
	best.term = max(best.term, r.keptTerm(), 1)
	r.found, r.unusable = best, cause
	return nil
}

// cannotUse lists what of the directory is damaged.
func (r *Recovery) cannotUse() (all []string, err error) {
	for _, lost := range []error{r.lostID, r.unusable} {
		if lost != nil {
			all = append(all, lost.Error())
		}
	}
	damaged, err := r.snapshots.damaged()
	if err != nil {
		return nil, err
	}
	for id, lost := range damaged {
		all = append(all, fmt.Sprintf("%s is damaged: %v", r.snapshots.path(id), lost))
	}
	if _, lost := readView(r.path("view.json")); lost != nil {
		all = append(all, lost.Error())
	}
	return all, nil
}

// keptServers are the members that gossip knew last. Who of them voted is not known, so
// all count.
func (r *Recovery) keptServers() (servers []raft.Server) {
	for _, p := range r.keptPeers() {
		servers = append(servers, raft.Server{ID: raft.ServerID(p.ID), Address: raft.ServerAddress(cmp.Or(p.RaftAddr, p.Addr.String()))})
	}
	if _, found := findServer(servers, r.id.ID); !found {
		servers = append(servers, raft.Server{ID: raft.ServerID(r.id.ID), Address: "127.0.0.1:1"})
	}
	return servers
}

func (r *Recovery) keptTerm() uint64 {
	var kept termText
	if text, err := os.ReadFile(r.path("term.json")); err != nil || readSealed(text, &kept) != nil {
		return 0
	}
	return kept.Term
}

func (r *Recovery) keptPeers() (kept []keptPeer) {
	if text, err := os.ReadFile(r.path("peers.json")); err == nil {
		json.Unmarshal(text, &kept) // what cannot be read is not known
	}
	return kept
}

// rebuild makes a snapshot of what was found and a new log behind it. Cut short, it leaves
// the snapshot, from which it begins again.
func (r *Recovery) rebuild() error {
	_, transport := raft.NewInmemTransport("")
	defer transport.Close()
	sink, err := r.snapshots.Create(1, r.found.index, r.found.term, r.alone(), 1, transport)
	if err != nil {
		return err
	}
	if err := (fsmSnapshot{r.found.machine.Snapshot().WithClusterID(r.newID)}).Persist(sink); err != nil {
		return err
	}
	for _, path := range []string{r.path("term.json"), storePath(r.dir)} { // the copy has them
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	if err := r.Close(); err != nil {
		return err
	}
	if r.store, err = openStore(r.dir, r.library.out); err != nil {
		return err
	}
	return r.store.SetUint64([]byte(currentTerm), r.found.term)
}
