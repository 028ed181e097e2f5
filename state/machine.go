package state

import (
	"encoding/json"
	"fmt"
	"slices"
)

// remembered is how many request ids the machine keeps to know a command that
// comes twice. They must outlast the retries of one request: 10 s of a leader
// that commits 800 commands a second.
const remembered = 8192

// Machine applies commands one after the other. It is used by one goroutine.
type Machine struct {
	view    *View
	index   *index            // of the view's backends
	version int               // of the newest command that went in
	recent  []applied         // oldest first, at most remembered
	known   map[string]Result // those of recent, by id
}

// applied is a command that the machine has seen and what came of it.
type applied struct {
	ID     string `json:"id"`
	Result Result `json:"result"`
}

// Result is what came of a command.
type Result struct {
	// Index is that of the view in which the command's effect can be read.
	Index uint64 `json:"index"`
	// Err is why the command changed nothing, nil if it was carried out.
	Err *Error `json:"error,omitempty"`
}

// NewMachine returns the machine of an empty cluster.
func NewMachine() *Machine { return newMachine(1, EmptyView(), nil) }

func newMachine(version int, view *View, recent []applied) *Machine {
	m := &Machine{version: version, view: view, index: newIndex(&view.content), known: make(map[string]Result)}
	for _, a := range recent {
		m.remember(a.ID, a.Result)
	}
	return m
}

// View returns the facts as they are now.
func (m *Machine) View() *View { return m.view }

// Apply carries out the command in data, which stands at index in the log. The
// error is for a command that cannot be read, after which the machine must not
// go on; a failure of the command itself is in the Result.
func (m *Machine) Apply(index uint64, data []byte) (Result, error) {
	cmd, version, err := decode(data)
	if err != nil {
		return Result{}, fmt.Errorf("log entry %d: %w", index, err)
	}
	m.version = max(m.version, version)
	if before, ok := m.known[cmd.ID]; ok {
		return before, nil
	}
	result := m.carryOut(index, cmd)
	m.remember(cmd.ID, result)
	return result, nil
}

func (m *Machine) carryOut(index uint64, cmd Command) Result {
	if cmd.IfIndex != 0 && cmd.IfIndex != m.view.Index {
		return Result{Index: m.view.Index, Err: &Error{
			Code:    Stale,
			Message: fmt.Sprintf("the view is at index %d, not %d: read it again and repeat the change", m.view.Index, cmd.IfIndex),
		}}
	}
	next := draft{m.view.content, m.index}
	if err := cmd.Op.apply(&next, cmd.At); err != nil {
		return Result{Index: m.view.Index, Err: err}
	}
	m.index.follow(&m.view.content, &next.content)
	m.view = newView(index, next.content)
	return Result{Index: index}
}

func (m *Machine) remember(id string, result Result) {
	if id == "" {
		return
	}
	if len(m.recent) == remembered {
		delete(m.known, m.recent[0].ID)
		m.recent = m.recent[1:]
	}
	m.recent = append(m.recent, applied{id, result})
	m.known[id] = result
}

// Snapshot is the machine's whole state at one index, fixed when it was taken.
type Snapshot struct {
	version int
	view    *View
	recent  []applied
}

// snapshotFile is the form of a Snapshot on disk.
type snapshotFile struct {
	Version int       `json:"version"`
	Index   uint64    `json:"index"`
	Content content   `json:"content"`
	Recent  []applied `json:"recent"`
}

// Snapshot takes a picture of the machine. It is cheap; encoding it is not, and
// may be done while the machine goes on.
func (m *Machine) Snapshot() Snapshot { return Snapshot{m.version, m.view, slices.Clone(m.recent)} }

// WithClusterID gives the snapshot of a cluster that has another id and is else the
// same.
func (s Snapshot) WithClusterID(id string) Snapshot {
	c := s.view.content
	c.ClusterID = id
	s.view = newView(s.view.Index, c)
	return s
}

// Encode gives the bytes that Restore reads; equal snapshots give equal bytes.
func (s Snapshot) Encode() ([]byte, error) {
	data, err := json.MarshalIndent(snapshotFile{s.version, s.view.Index, s.view.content, s.recent}, "", " ")
	if err != nil {
		return nil, fmt.Errorf("cannot encode snapshot: %w", err)
	}
	return append(data, '\n'), nil
}

// Restore returns the machine that the snapshot was taken of.
func Restore(data []byte) (*Machine, error) {
	var header struct{ Version int }
	if err := json.Unmarshal(data, &header); err != nil {
		return nil, fmt.Errorf("cannot read snapshot: %w", err)
	}
	if err := checkVersion("snapshot", header.Version); err != nil {
		return nil, err
	}
	var file snapshotFile
	if err := unmarshalStrictly(data, &file); err != nil {
		return nil, fmt.Errorf("cannot read snapshot: %w", err)
	}
	if err := file.Content.check(); err != nil {
		return nil, fmt.Errorf("cannot use snapshot: %w", err)
	}
	return newMachine(file.Version, newView(file.Index, file.Content), file.Recent), nil
}

// Snapshot gives the view in the form of a snapshot, without the memory of
// requests and of versions that a machine has besides.
func (v *View) Snapshot() Snapshot { return Snapshot{version: v.version(), view: v} }
