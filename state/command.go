package state

import (
	"bytes"
	"encoding/json"
	"fmt"
)

// Command is one change of the replicated facts, as the log keeps it.
type Command struct {
	// ID is unique to the request. A command that was applied is not applied
	// again, so that a request whose fate is unknown can be sent once more.
	ID string
	// At is the proposer's clock, in milliseconds since 1970.
	At int64
	// IfIndex, unless 0, makes the command conditional: it fails with Stale if
	// the view has another index when the command is applied.
	IfIndex uint64
	// Op is what to do.
	Op Op
}

// Op is an operation on the replicated facts: one of the types in ops.go.
type Op interface {
	kind() string
	version() int
	apply(c *draft, at int64) *Error
}

// envelope is the form of a Command in the log.
type envelope struct {
	Version int             `json:"v"`
	ID      string          `json:"id"`
	At      int64           `json:"at"`
	IfIndex uint64          `json:"if_index,omitempty"`
	Kind    string          `json:"op"`
	Body    json.RawMessage `json:"body"`
}

// Encode gives the bytes of the command for the log.
func (c Command) Encode() ([]byte, error) {
	body, err := json.Marshal(c.Op)
	if err != nil {
		return nil, fmt.Errorf("cannot encode command %s: %w", c.Op.kind(), err)
	}
	return json.Marshal(envelope{c.Op.version(), c.ID, c.At, c.IfIndex, c.Op.kind(), body})
}

// decode reads a command of any version that this binary knows, and its version.
func decode(data []byte) (Command, int, error) {
	var e envelope
	if err := json.Unmarshal(data, &e); err != nil {
		return Command{}, 0, fmt.Errorf("cannot read command: %w", err)
	}
	if err := checkVersion("command", e.Version); err != nil {
		return Command{}, e.Version, err
	}
	op, err := decodeOp(e.Kind, e.Body)
	if err != nil {
		return Command{}, e.Version, err
	}
	return Command{ID: e.ID, At: e.At, IfIndex: e.IfIndex, Op: op}, e.Version, nil
}

func decodeOp(kind string, body []byte) (Op, error) {
	op := newOp(kind)
	if op == nil {
		return nil, fmt.Errorf("cannot read command: unknown operation %q; upgrade this binary", kind)
	}
	if err := unmarshalStrictly(body, op); err != nil {
		return nil, fmt.Errorf("cannot read command %s: %w", kind, err)
	}
	return op, nil
}

// unmarshalStrictly refuses a field that it does not know. It was written by a
// newer binary; to pass over it would let two nodes make different views of one
// log.
func unmarshalStrictly(data []byte, value any) error {
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.DisallowUnknownFields()
	return decoder.Decode(value)
}
