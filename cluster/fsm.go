package cluster

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/hashicorp/raft"

	"lbnode/state"
)

// fsm lets Raft drive the state machine. It only delegates.
type fsm struct {
	publish func(*state.View)
	fail    func(error) // ends the node; must not block

	mu      sync.Mutex // Raft applies and snapshots from one goroutine, restores from another
	machine *state.Machine
	broken  error // why the machine has stopped for good, nil if it has not
	count   int   // of states restored from snapshots
	applied *watermark
	recent  [recentViews]*state.View // by the order of entries, around and around
	next    int                      // of recent
}

// recentViews is how many views are kept, for nodes to be compared with one another
// although they are asked at different moments.
const recentViews = 32

func newFSM(publish func(*state.View), fail func(error)) *fsm {
	return &fsm{publish: publish, fail: fail, machine: state.NewMachine(), applied: newWatermark()}
}

// reset forgets all, for a Raft that reads its log from the beginning. What was
// published stays.
func (f *fsm) reset() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.machine = state.NewMachine()
}

// Apply implements raft.FSM. Its return value is a state.Result, or an error once
// the machine has stopped.
func (f *fsm) Apply(entry *raft.Log) any { return f.ApplyBatch([]*raft.Log{entry})[0] }

// ApplyBatch implements raft.BatchingFSM: entries that were committed together make
// one new view for those who follow it. Its return values are those of Apply, nil
// for entries that are no commands.
func (f *fsm) ApplyBatch(entries []*raft.Log) []any {
	f.mu.Lock()
	defer f.mu.Unlock()
	results := make([]any, len(entries))
	for i, entry := range entries {
		if entry.Type == raft.LogCommand {
			results[i] = f.apply(entry)
		}
	}
	if f.broken != nil {
		return results
	}
	f.publish(f.machine.View())
	f.applied.reach(entries[len(entries)-1].Index)
	return results
}

func (f *fsm) apply(entry *raft.Log) any {
	if f.broken != nil {
		return f.broken
	}
	result, err := f.machine.Apply(entry.Index, entry.Data)
	if err != nil {
		f.stop(err)
		return f.broken
	}
	f.recent[f.next%recentViews] = f.machine.View()
	f.next++
	return result
}

// viewAt is what the log made up to an index, nil if that is not there any more, or
// not yet.
func (f *fsm) viewAt(index uint64) *state.View {
	f.mu.Lock()
	defer f.mu.Unlock()
	var best *state.View
	for _, v := range f.recent {
		switch {
		case v == nil:
		case v.Index > index:
		case best == nil || v.Index > best.Index:
			best = v
		}
	}
	return best
}

// stop ends the node at what it cannot apply: to go on would let its view part from
// the others'. Raft itself goes on counting entries as applied until the node has
// ended, so nothing more may come of them.
func (f *fsm) stop(err error) {
	advice := ""
	if !errors.Is(err, state.ErrTooNew) {
		advice = "; if the other nodes go on, give this one an empty -data-dir to start as a new one"
	}
	f.broken = fmt.Errorf("cannot follow the cluster any further: %w%s", err, advice)
	f.fail(f.broken)
}

// Snapshot implements raft.FSM.
func (f *fsm) Snapshot() (raft.FSMSnapshot, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.broken != nil {
		return nil, f.broken
	}
	return fsmSnapshot{f.machine.Snapshot()}, nil
}

// Restore implements raft.FSM.
func (f *fsm) Restore(source io.ReadCloser) error {
	defer source.Close()
	machine, err := readSnapshot(source)
	f.mu.Lock()
	defer f.mu.Unlock()
	if errors.Is(err, state.ErrTooNew) { // of another that is damaged, Raft has an older one
		f.stop(err)
	}
	if err = cmp.Or(f.broken, err); err != nil {
		return err
	}
	f.machine = machine
	f.count++
	f.publish(machine.View())
	f.applied.reach(machine.View().Index)
	return nil
}

// restored is how often the whole state came from a snapshot.
func (f *fsm) restored() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.count
}

func readSnapshot(source io.Reader) (*state.Machine, error) {
	data, err := io.ReadAll(source)
	if err != nil {
		return nil, fmt.Errorf("cannot read snapshot: %w", err)
	}
	return state.Restore(data)
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

// version is that of the newest command in the log.
func (f *fsm) version() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.machine.Version()
}

// failure is why the machine has stopped for good, nil if it has not.
func (f *fsm) failure() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.broken
}
