package cluster

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"go.etcd.io/bbolt"
	bbolterrors "go.etcd.io/bbolt/errors"
)

// storeWithin is how long the disk may take to store log entries.
const storeWithin = 10 * time.Second

var errDiskHangs = errors.New("the disk has not answered for 10 s")

// openStore opens the log in dir. The file's lock keeps a second process out.
func openStore(dir string) (*raftboltdb.BoltStore, error) {
	path := filepath.Join(dir, "raft.db")
	store, err := raftboltdb.New(raftboltdb.Options{
		Path: path,
		BoltOptions: &bbolt.Options{
			Timeout:        time.Second,
			NoFreelistSync: true,
			FreelistType:   bbolt.FreelistMapType,
		},
	})
	switch {
	case errors.Is(err, bbolterrors.ErrTimeout):
		return nil, fmt.Errorf("the data directory %s is in use by another lbnode: stop it or choose another with -data-dir", dir)
	case errors.Is(err, os.ErrPermission):
		return nil, fmt.Errorf("cannot write to the data directory: %w; choose another with -data-dir", err)
	case err != nil:
		return nil, fmt.Errorf("cannot open %s: %w; restore it, or give this node an empty -data-dir to start as a new one", path, err)
	}
	return store, nil
}

// guardedLog is a log store that fails when the disk hangs. Raft gives up
// leadership on a failure, but on a disk that hangs it would wait for ever and
// go on sending heartbeats, so that no other node could take over
// (hashicorp/raft#503).
type guardedLog struct {
	raft.LogStore
	within time.Duration
	busy   atomic.Bool // a write is under way, perhaps one that was given up
}

// StoreLog implements raft.LogStore.
func (g *guardedLog) StoreLog(entry *raft.Log) error { return g.StoreLogs([]*raft.Log{entry}) }

// StoreLogs implements raft.LogStore.
func (g *guardedLog) StoreLogs(entries []*raft.Log) error {
	if !g.busy.CompareAndSwap(false, true) { // Raft stores from one goroutine
		return errDiskHangs
	}
	done := make(chan error, 1)
	go func() {
		err := g.LogStore.StoreLogs(entries)
		g.busy.Store(false)
		done <- err
	}()
	deadline := time.NewTimer(g.within)
	defer deadline.Stop()
	select {
	case err := <-done:
		return err
	case <-deadline.C:
		return errDiskHangs
	}
}
