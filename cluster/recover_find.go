package cluster

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"

	"github.com/hashicorp/raft"

	"lbnode/state"
)

// replayed is what Raft's files come to when all in them is taken as agreed.
type replayed struct {
	machine     *state.Machine
	index, term uint64 // of the last entry
	snapshot    uint64 // index of the snapshot that it begins with, 0 if none
	servers     []raft.Server
}

var errNothing = errors.New("it is empty, so there is nothing to recover")

// replay reads the newest snapshot that can be read, and the log from there.
func replay(logs raft.LogStore, snapshots raft.SnapshotStore) (*replayed, error) {
	r, noSnapshot := replaySnapshot(snapshots)
	if noSnapshot != nil { // the log may have it all
		r = &replayed{machine: state.NewMachine()}
	}
	last, err := logs.LastIndex()
	if err != nil {
		return nil, err
	}
	for index := r.index + 1; index <= last; index++ {
		var entry raft.Log
		if err := logs.GetLog(index, &entry); err != nil {
			return nil, errors.Join(fmt.Errorf("entry %d of %d: %w", index, last, err), noSnapshot)
		}
		switch entry.Type {
		case raft.LogCommand:
			if _, err := r.machine.Apply(index, entry.Data); err != nil {
				return nil, err
			}
		case raft.LogConfiguration:
			r.servers = raft.DecodeConfiguration(entry.Data).Servers
		}
		r.index, r.term = entry.Index, entry.Term
	}
	if r.index == 0 {
		return nil, errors.Join(errNothing, noSnapshot)
	}
	return r, nil
}

func replaySnapshot(snapshots raft.SnapshotStore) (*replayed, error) {
	all, err := snapshots.List()
	if err != nil {
		return nil, err
	}
	if len(all) == 0 {
		return &replayed{machine: state.NewMachine()}, nil
	}
	var failed error
	for _, meta := range all {
		machine, err := openSnapshot(snapshots, meta.ID)
		if err == nil {
			return &replayed{machine, meta.Index, meta.Term, meta.Index, meta.Configuration.Servers}, nil
		}
		failed = errors.Join(failed, fmt.Errorf("snapshot %s: %w", meta.ID, err))
	}
	return nil, failed
}

func openSnapshot(snapshots raft.SnapshotStore, id string) (*state.Machine, error) {
	_, source, err := snapshots.Open(id)
	if err != nil {
		return nil, err
	}
	defer source.Close()
	return readSnapshot(source)
}

// Found is what a stopped node has on disk.
type Found struct {
	NodeID    string `json:"node_id"`
	ClusterID string `json:"cluster_id"`
	// LastIndex and LastTerm are of the last entry in the log.
	LastIndex uint64 `json:"last_index"`
	LastTerm  uint64 `json:"last_term"`
	// SnapshotIndex is that of the snapshot before the log, 0 if there is none.
	SnapshotIndex uint64 `json:"snapshot_index"`
	// Unusable is what is damaged. If that is the log, From is what is taken instead of it,
	// else it is empty. What the log had beyond that is lost.
	Unusable []string `json:"unusable,omitempty"`
	From     string   `json:"from,omitempty"`
	// View is what all of that comes to.
	View *state.View `json:"-"`
	// Members are Raft's, sorted by id, this node among them.
	Members []FoundMember `json:"members"`
	// CutShort is where an earlier recovery, which was cut short, keeps the directory
	// as it was; empty if there was none.
	CutShort string `json:"cut_short,omitempty"`
}

// FoundMember is a member of the cluster as a stopped node knows it.
type FoundMember struct {
	ID   string `json:"id"`
	Name string `json:"name"` // empty if it is not known
	// Addr is the address of its Raft port.
	Addr  string `json:"addr"`
	Voter bool   `json:"voter"`
	Own   bool   `json:"own"` // it is this node
	// Gone is true when it surely does not take part now, and Answer says why, or
	// why not. This node counts as there: it can be started.
	Gone   bool   `json:"gone"`
	Answer string `json:"answer"`
}

// Find tells what is on disk and asks the other members whether they are there. The
// secrets are the nodes'; without the right one a member that is there is not gone,
// but nothing more is known of it.
func (r *Recovery) Find(ctx context.Context, secrets [][]byte) (*Found, error) {
	security, err := newKeys(secrets, r.id.ID, r.library)
	if err != nil {
		return nil, err
	}
	f := &Found{
		NodeID: r.id.ID, ClusterID: cmp.Or(r.found.machine.View().ClusterID, r.id.ClusterID),
		LastIndex: r.found.index, LastTerm: r.found.term, SnapshotIndex: r.found.snapshot,
		View: r.found.machine.View(), CutShort: r.id.Recovering,
		Members: r.members(),
	}
	if r.unusable != nil {
		f.From = r.from
	}
	if f.Unusable, err = r.cannotUse(); err != nil {
		return nil, err
	}
	calls := newCaller(&dialer{keys: security})
	defer calls.stop()
	var asking sync.WaitGroup
	for i := range f.Members {
		if m := &f.Members[i]; m.Own {
			m.Answer = "this node"
		} else {
			asking.Go(func() { m.ask(ctx, calls, f.ClusterID) })
		}
	}
	asking.Wait()
	return f, nil
}

// members are Raft's, at the addresses that gossip knew last.
func (r *Recovery) members() []FoundMember {
	kept := r.keptPeers() // only newer addresses and names are in it
	var members []FoundMember
	for _, s := range r.found.servers {
		m := FoundMember{ID: string(s.ID), Addr: string(s.Address), Voter: s.Suffrage == raft.Voter, Own: string(s.ID) == r.id.ID}
		for _, p := range kept {
			if p.ID == m.ID && p.RaftAddr != "" {
				m.Name, m.Addr = p.Name, p.RaftAddr
			}
		}
		members = append(members, m)
	}
	slices.SortFunc(members, func(a, b FoundMember) int { return cmp.Compare(a.ID, b.ID) })
	return members
}

// ask finds out whether a member is there. One that accepts a connection and gives no
// clear answer, such as one that has stopped or has another secret, may be.
func (m *FoundMember) ask(ctx context.Context, calls *caller, clusterID string) {
	ctx, cancel := context.WithTimeout(ctx, 3*callWithin)
	defer cancel()
	dialer := net.Dialer{Timeout: callWithin}
	conn, err := dialer.DialContext(ctx, "tcp", m.Addr)
	if err != nil {
		m.Answer = reason(err)
		m.Gone = slices.Contains([]string{"refused", "no answer", "no route", "does not resolve"}, m.Answer)
		return
	}
	conn.Close()
	var hello helloReply
	err = calls.call(ctx, m.Addr, helloPath, none{}, &hello)
	switch {
	case err != nil:
		m.Answer = "there, but: " + reason(err)
	case hello.ID == m.ID && hello.ClusterID == clusterID:
		m.Answer = "answers"
	default:
		m.Gone, m.Answer = true, "another node is there"
	}
}

// QuorumLost is nil if the quorum is surely lost; else the error says how many are
// there. Of a recovery that was cut short, it was asked before.
func (f *Found) QuorumLost() error {
	if f.CutShort != "" {
		return nil
	}
	votes, there := 0, 0
	for _, m := range f.Members {
		if !m.Voter {
			continue
		}
		votes++
		if !m.Gone {
			there++
		}
	}
	if need := votes/2 + 1; there >= need {
		return fmt.Errorf("quorum is not lost: with this node, %d of %d voters are there and %d are enough: start this node", there, votes, need)
	}
	return nil
}
