package cluster

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/renameio/v2"

	"lbnode/state"
)

// Views of a busy moment are gathered into one write of the disk: for saveDelay,
// and for as long that writing takes no more than a part in saveShare of the time.
const (
	saveDelay = 200 * time.Millisecond
	saveShare = 20
	saveAgain = 5 * time.Second // after a failure
)

// views holds the view that this node serves and keeps a copy of it on disk.
// Raft replays its log only once a leader makes contact; until then a node that
// restarts alone serves the copy.
type views struct {
	path string
	log  *slog.Logger

	current atomic.Pointer[state.View]
	stale   atomic.Bool
	risen   *broadcast // there is a newer view

	publishing sync.Mutex // guards notify, and makes its calls one at a time
	notify     func(*state.View)

	save    chan struct{}
	saving  sync.WaitGroup
	stopped chan struct{}
	failed  atomic.Pointer[error] // why the view is not on disk, nil if it is
}

// openViews serves the view kept in dir, or an empty one. A copy that cannot be
// read is not worth a node: the log has it all. A copy from another cluster would
// hide this one's views for as long as its index is the higher.
func openViews(dir, clusterID string, log *slog.Logger) *views {
	v := &views{path: filepath.Join(dir, "view.json"), log: log, notify: func(*state.View) {}, risen: newBroadcast(), save: make(chan struct{}, 1), stopped: make(chan struct{})}
	kept, err := readView(v.path)
	aside := ""
	if err != nil && !errors.Is(err, state.ErrTooNew) && !errors.Is(err, fs.ErrPermission) {
		var failed error
		aside, failed = setAside(dir, v.path)
		err = errors.Join(err, failed)
	}
	if kept != nil && kept.ClusterID != clusterID {
		err = fmt.Errorf("%s is of cluster %s, this node of %s", v.path, kept.ClusterID, nameOr(clusterID, "none"))
		kept = nil
	}
	if err != nil {
		log.Warn("cannot use the view kept on disk; this node has none until it hears from the others", "error", err, "set_aside", aside)
	}
	v.stale.Store(kept != nil)
	if kept == nil {
		kept = state.EmptyView()
	}
	v.current.Store(kept)
	v.saving.Go(v.saveLoop)
	return v
}

// begin hands the current view, and from now on each new one, to notify.
func (v *views) begin(notify func(*state.View)) {
	v.publishing.Lock()
	defer v.publishing.Unlock()
	v.notify = notify
	notify(v.current.Load())
}

// readView reads a view kept on disk; it is nil if there is none.
func readView(path string) (*state.View, error) {
	machine, err := readKept(path)
	if machine == nil {
		return nil, err
	}
	return machine.View(), nil
}

func readKept(path string) (*state.Machine, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if _, err := checkJSON(data); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	machine, err := state.Restore(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return machine, nil
}

// publish replaces the view unless next is older: while the log is replayed, the
// node goes on with the view it had. Who is notified has the view before anybody can
// see that this node serves it: what is said of a view is so.
func (v *views) publish(next *state.View) {
	v.publishing.Lock()
	defer v.publishing.Unlock()
	if next.Index < v.current.Load().Index {
		return
	}
	same := next == v.current.Load()
	if !same {
		v.notify(next)
	}
	v.current.Store(next)
	v.stale.Store(false)
	if same {
		return
	}
	v.risen.send()
	select {
	case v.save <- struct{}{}:
	default:
	}
}

// newer waits for a view with a higher index, or for ctx, and returns the view
// there is then.
func (v *views) newer(ctx context.Context, index uint64) *state.View {
	for {
		risen := v.risen.wait()
		if view := v.current.Load(); view.Index > index {
			return view
		}
		select {
		case <-risen:
		case <-ctx.Done():
			return v.current.Load()
		}
	}
}

// stop writes what is not written yet.
func (v *views) stop() {
	close(v.stopped)
	v.saving.Wait()
}

func (v *views) saveLoop() {
	wait := saveDelay
	for v.saveDue() {
		select {
		case <-time.After(wait):
		case <-v.stopped:
		}
		began := time.Now()
		v.write()
		wait = max(saveDelay, saveShare*time.Since(began))
	}
}

// saveDue waits until there is a view to write, which one is that could not be
// written before. It returns false when all is written and the node stops.
func (v *views) saveDue() bool {
	var again <-chan time.Time
	if v.failed.Load() != nil {
		again = time.After(saveAgain)
	}
	select {
	case <-v.save:
		return true
	case <-again:
		return true
	case <-v.stopped:
	}
	select {
	case <-v.save:
		return true
	default:
		return false
	}
}

func (v *views) write() {
	data, err := v.current.Load().Snapshot().Encode()
	if err == nil {
		err = renameio.WriteFile(v.path, sealJSON(data), 0o600)
	}
	before := v.failed.Load()
	if err == nil {
		v.failed.Store(nil)
		return
	}
	v.failed.Store(&err)
	if before == nil {
		v.log.Error("cannot keep the view on disk: a restart without the other nodes would serve an older one", "error", err)
	}
}

// problems says if the view cannot be kept.
func (v *views) problems() []string {
	if err := v.failed.Load(); err != nil {
		return []string{"cannot keep the view on disk: " + reason(*err)}
	}
	return nil
}
