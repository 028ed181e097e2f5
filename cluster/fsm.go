package cluster

import (
	"fmt"
	"io"
	"sync"

	"github.com/hashicorp/raft"

	"lbnode/state"
)

// fsm lets Raft drive the state machine. It only delegates.
type fsm struct {
	publish func(*state.View)

	mu      sync.Mutex // Raft applies and snapshots from one goroutine, restores from another
	machine *state.Machine
	applied *watermark
}

func newFSM(publish func(*state.View)) *fsm {
	return &fsm{publish: publish, machine: state.NewMachine(), applied: newWatermark()}
}

// reset forgets all, for a Raft that reads its log from the beginning. What was
// published stays.
func (f *fsm) reset() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.machine = state.NewMachine()
}

// Apply implements raft.FSM. Its return value is a state.Result.
func (f *fsm) Apply(entry *raft.Log) any { return f.ApplyBatch([]*raft.Log{entry})[0] }

// ApplyBatch implements raft.BatchingFSM: entries that were committed together make
// one new view for those who follow it. Its return values are state.Results, nil
// for entries that are no commands.
func (f *fsm) ApplyBatch(entries []*raft.Log) []any {
	f.mu.Lock()
	defer f.mu.Unlock()
	results := make([]any, len(entries))
	for i, entry := range entries {
		if entry.Type != raft.LogCommand {
			continue
		}
		result, err := f.machine.Apply(entry.Index, entry.Data)
		if err != nil {
			// To go on would let this node's view part from the others'.
			panic("cluster: " + err.Error())
		}
		results[i] = result
	}
	f.publish(f.machine.View())
	f.applied.reach(entries[len(entries)-1].Index)
	return results
}

// Snapshot implements raft.FSM.
func (f *fsm) Snapshot() (raft.FSMSnapshot, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return fsmSnapshot{f.machine.Snapshot()}, nil
}

// Restore implements raft.FSM.
func (f *fsm) Restore(source io.ReadCloser) error {
	defer source.Close()
	data, err := io.ReadAll(source)
	if err != nil {
		return fmt.Errorf("cannot read snapshot: %w", err)
	}
	machine, err := state.Restore(data)
	if err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.machine = machine
	f.publish(machine.View())
	f.applied.reach(machine.View().Index)
	return nil
}

type fsmSnapshot struct{ snapshot state.Snapshot }

// Persist implements raft.FSMSnapshot.
func (s fsmSnapshot) Persist(sink raft.SnapshotSink) error {
	data, err := s.snapshot.Encode()
	if err == nil {
		_, err = sink.Write(data)
	}
	if err != nil {
		sink.Cancel()
		return fmt.Errorf("cannot write snapshot: %w", err)
	}
	return sink.Close()
}

// Release implements raft.FSMSnapshot.
func (fsmSnapshot) Release() {}

// view is what the log has made so far; unlike the served view it is never the
// one kept on disk.
func (f *fsm) view() *state.View {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.machine.View()
}
