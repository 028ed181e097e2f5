package cluster

import (
	"errors"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
)

// lossy is a transport whose messages arrive or do not.
type lossy struct {
	carrier
	works atomic.Bool
}

func (l *lossy) send() error {
	if !l.works.Load() {
		return errUnreached
	}
	return nil
}

func (l *lossy) AppendEntries(raft.ServerID, raft.ServerAddress, *raft.AppendEntriesRequest, *raft.AppendEntriesResponse) error {
	return l.send()
}

func (l *lossy) RequestPreVote(raft.ServerID, raft.ServerAddress, *raft.RequestPreVoteRequest, *raft.RequestPreVoteResponse) error {
	return l.send()
}

// However long a node was away, Raft hears of one failure, and at once when the node
// is back or nobody needs to know any more.
func TestRaftHearsOfAnAbsentNodeOnce(t *testing.T) {
	for name, end := range map[string]func(transport *raftTransport, below *lossy, follows *atomic.Bool){
		"back": func(transport *raftTransport, below *lossy, _ *atomic.Bool) {
			below.works.Store(true)
			if err := transport.AppendEntries("b", "", &raft.AppendEntriesRequest{Term: 3}, nil); err != nil {
				t.Error(err)
			}
		},
		"no follower any more": func(_ *raftTransport, _ *lossy, follows *atomic.Bool) { follows.Store(false) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				below, follows := &lossy{}, &atomic.Bool{}
				follows.Store(true)
				transport := &raftTransport{
					carrier:  below,
					follows:  func(term uint64, id raft.ServerID) bool { return follows.Load() && term == 3 && id == "b" },
					answered: map[raft.ServerID]time.Time{"b": time.Now()}, // before it went
				}
				heard := make(chan error, 1)
				go func() {
					heard <- transport.AppendEntries("b", "", &raft.AppendEntriesRequest{Term: 3, LeaderCommitIndex: 7}, nil)
				}()
				time.Sleep(time.Hour)
				if err := transport.AppendEntries("b", "", &raft.AppendEntriesRequest{Term: 3}, nil); err == nil {
					t.Error("a heartbeat to an absent node is answered")
				}
				select {
				case err := <-heard:
					t.Fatalf("raft heard %v while the node was away", err)
				default:
				}
				went := time.Now()
				end(transport, below, follows)
				if err := <-heard; !errors.Is(err, errUnreached) || time.Since(went) > askAgain {
					t.Errorf("raft heard %v after %s, want the failure within %s", err, time.Since(went), askAgain)
				}
			})
		})
	}
}

func TestNodeWithAFailedDiskIsNoCandidate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDisk()
		below := &lossy{}
		below.works.Store(true)
		transport := &raftTransport{carrier: below, unfit: d.unfit}
		stands := func() bool { return transport.RequestPreVote("b", "", nil, nil) == nil }
		if !stands() {
			t.Error("a node whose disk works is no candidate")
		}
		d.do(func() error { return syscall.ENOSPC })
		if stands() {
			t.Error("a node whose disk is full is a candidate")
		}
		d.retry(func() error { return syscall.ENOSPC })
		synctest.Wait()
		if stands() {
			t.Error("a node whose disk is still full is a candidate")
		}
		d.retry(func() error { return nil })
		synctest.Wait()
		if !stands() {
			t.Error("a node whose disk works again is no candidate")
		}
		d.retry(func() error { t.Error("a disk that works is tried"); return nil })
		synctest.Wait()
	})
}

func TestTryToWrite(t *testing.T) {
	dir := t.TempDir()
	if err := tryToWrite(dir); err != nil {
		t.Error(err)
	}
	if left, _ := os.ReadDir(dir); len(left) > 0 {
		t.Errorf("left %v behind", left)
	}
	if err := tryToWrite(filepath.Join(dir, "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v in a directory that does not exist", err)
	}
}
