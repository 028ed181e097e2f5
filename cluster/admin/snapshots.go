package admin

import (
	"fmt"
	"net/http"
	"time"
)

const (
	snapshotPath = "/v1/snapshot"
	// maxSnapshot is the size of the largest snapshot file, in bytes.
	maxSnapshot = 64 << 20
	// restoreTimeout bounds reading a snapshot file and restoring it.
	restoreTimeout = 2 * time.Minute
)

// Restored is what a restored snapshot made of a cluster.
type Restored struct {
	// Index is that of a view that has it.
	Index     uint64 `json:"index"`
	ClusterID string `json:"cluster_id"`
	// SavedFrom is the id of the cluster that the snapshot is of.
	SavedFrom string `json:"saved_from"`
	Counts    Counts `json:"counts"`
}

// getSnapshot answers with a snapshot file of what is agreed now; with stale=1, of
// what this node has, which works without quorum.
func (s *Server) getSnapshot(w http.ResponseWriter, r *http.Request) error {
	if r.URL.Query().Get("stale") != "1" {
		if err := s.cluster.Barrier(r.Context()); err != nil {
			return fmt.Errorf("cannot take a snapshot of what is agreed now (?stale=1 gives what this node has): %w", err)
		}
	}
	view := s.cluster.View()
	if view.Index == 0 {
		return &Problem{Status: http.StatusServiceUnavailable, Detail: "this node has no view yet, so there is nothing to take a snapshot of"}
	}
	data, err := newSnapshot(view, s.version, time.Now()).encode()
	if err != nil {
		return err
	}
	w.Header().Set("ETag", fmt.Sprintf(`"%d"`, view.Index))
	w.Header().Set("Content-Type", "application/json")
	w.Write(data) // a client that has gone needs no answer
	return nil
}

// restoreSnapshot puts the configuration in a snapshot file in place of the present
// one.
func (s *Server) restoreSnapshot(w http.ResponseWriter, r *http.Request) error {
	control, deadline := http.NewResponseController(w), time.Now().Add(restoreTimeout)
	control.SetReadDeadline(deadline) // a server that cannot has its own, which are enough for most files
	control.SetWriteDeadline(deadline)
	if err := checkContentType(r); err != nil {
		return err
	}
	data, err := readAll(w, r)
	if err != nil {
		return err
	}
	snapshot, err := ReadSnapshot(data)
	if err != nil {
		return badRequest("", err.Error(), "nothing was changed")
	}
	if err := s.propose(r, &snapshot.Content); err != nil {
		return err
	}
	view := s.cluster.View()
	return writeView(w, r, http.StatusOK, view, Restored{view.Index, view.ClusterID, snapshot.ClusterID, snapshot.Counts})
}
