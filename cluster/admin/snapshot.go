package admin

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"lbnode/state"
)

const (
	snapshotFormat  = "lbnode snapshot"
	snapshotVersion = 1
)

// Snapshot is the configuration of a cluster at one moment, as a file keeps it.
type Snapshot struct {
	// ClusterID is that of the cluster it was saved from.
	ClusterID string `json:"cluster_id"`
	// Index is that of the view it was saved from.
	Index uint64 `json:"index"`
	// SavedAt is when, RFC 3339, by the clock of the node that was asked.
	SavedAt string `json:"saved_at"`
	// SavedBy is the version of lbnode of that node.
	SavedBy string `json:"saved_by"`
	Counts  Counts `json:"counts"`
	// Content is the configuration. The health in it is only for people to read.
	Content state.Replace `json:"content"`
}

// Counts says how much there is in a configuration.
type Counts struct {
	Pools    int `json:"pools"`
	Backends int `json:"backends"`
	Routes   int `json:"routes"`
}

// snapshotFrame is a snapshot file: the snapshot, and what is needed to tell
// whether it can be read.
type snapshotFrame struct {
	Format  string `json:"format"`
	Version int    `json:"version"`
	// SHA256 is of the snapshot without white space, so that a file may be indented
	// otherwise.
	SHA256   string          `json:"sha256"`
	Snapshot json.RawMessage `json:"snapshot"`
}

// newSnapshot makes the snapshot of a view.
func newSnapshot(view *state.View, version string, now time.Time) *Snapshot {
	s := &Snapshot{ClusterID: view.ClusterID, Index: view.Index, SavedAt: formatTime(now), SavedBy: version}
	s.Content.Routes = view.Routes
	for _, p := range view.Pools {
		s.Content.Pools = append(s.Content.Pools, p.Unjudged())
	}
	s.Counts = countsOf(&s.Content)
	return s
}

func countsOf(c *state.Replace) Counts {
	n := Counts{Pools: len(c.Pools), Routes: len(c.Routes)}
	for i := range c.Pools {
		n.Backends += len(c.Pools[i].Backends)
	}
	return n
}

// encode gives the bytes of the file.
func (s *Snapshot) encode() ([]byte, error) {
	content, err := json.Marshal(s)
	if err != nil {
		return nil, fmt.Errorf("cannot encode the snapshot: %w", err)
	}
	sum := sha256.Sum256(content)
	data, err := json.MarshalIndent(snapshotFrame{snapshotFormat, snapshotVersion, hex.EncodeToString(sum[:]), content}, "", " ")
	if err != nil {
		return nil, fmt.Errorf("cannot encode the snapshot: %w", err)
	}
	return append(data, '\n'), nil
}

// ReadSnapshot reads a snapshot file. It refuses one that is damaged, cut short or
// newer than this program, and says which.
func ReadSnapshot(data []byte) (*Snapshot, error) {
	frame, err := readFrame(data)
	if err != nil {
		return nil, err
	}
	var content bytes.Buffer
	if err := json.Compact(&content, frame.Snapshot); err != nil {
		return nil, fmt.Errorf("the snapshot is damaged: %w", err)
	}
	sum := sha256.Sum256(content.Bytes())
	if got := hex.EncodeToString(sum[:]); got != frame.SHA256 {
		return nil, fmt.Errorf("the snapshot is damaged, or was changed by hand: its SHA-256 is %s, but %.64q is written in it", got, frame.SHA256)
	}
	s := &Snapshot{}
	if err := decodeStrictly(content.Bytes(), s); err != nil {
		return nil, fmt.Errorf("cannot read what this snapshot holds: %w; was it saved by a newer lbnode?", err)
	}
	if got := countsOf(&s.Content); got != s.Counts {
		return nil, fmt.Errorf("the snapshot holds %+v, but says %+v", got, s.Counts)
	}
	return s, nil
}

func readFrame(data []byte) (*snapshotFrame, error) {
	if len(bytes.TrimSpace(data)) == 0 {
		return nil, errors.New("the snapshot is empty")
	}
	frame := &snapshotFrame{}
	if err := json.Unmarshal(data, frame); err != nil {
		if err := (*json.SyntaxError)(nil); errors.As(json.Unmarshal(data, new(any)), &err) {
			return nil, fmt.Errorf("the snapshot is damaged or cut short at byte %d: %w", err.Offset, err)
		}
		return nil, fmt.Errorf("this is no snapshot of lbnode: %w", err)
	}
	switch {
	case frame.Format != snapshotFormat:
		return nil, fmt.Errorf("this is no snapshot of lbnode: its format is %.64q, not %q", frame.Format, snapshotFormat)
	case frame.Version != snapshotVersion:
		return nil, fmt.Errorf("the snapshot is of version %d, and this lbnode reads version %d: upgrade it", frame.Version, snapshotVersion)
	}
	if err := decodeStrictly(data, frame); err != nil {
		return nil, fmt.Errorf("cannot read the snapshot: %w", err)
	}
	return frame, nil
}

// decodeStrictly refuses a field that it does not know: restoring without it would
// lose something.
func decodeStrictly(data []byte, into any) error {
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(into); err != nil {
		return err
	}
	if _, err := decoder.Token(); err != io.EOF {
		return errors.New("something follows the end")
	}
	return nil
}
