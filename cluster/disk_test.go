package cluster

import (
	"errors"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"

	"github.com/hashicorp/raft"

	"lbnode/state"
)

// moodyStore is a log in memory on a disk that hangs, or fails after it has
// written, as it is told.
type moodyStore struct {
	*raft.InmemStore
	hang chan struct{} // unless nil, writing waits for it to be closed

	mu   sync.Mutex
	fail error
}

// failWith makes writing fail, with nil work again.
func (s *moodyStore) failWith(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fail = err
}

func (s *moodyStore) failure() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.fail
}

func newMoodyStore() *moodyStore { return &moodyStore{InmemStore: raft.NewInmemStore()} }

func (s *moodyStore) StoreLogs(entries []*raft.Log) error {
	if s.hang != nil {
		<-s.hang
	}
	return errors.Join(s.InmemStore.StoreLogs(entries), s.failure())
}

func (s *moodyStore) SetUint64(key []byte, value uint64) error {
	if err := s.failure(); err != nil {
		return err
	}
	return s.InmemStore.SetUint64(key, value)
}

func entries(term, first, last uint64) []*raft.Log {
	var all []*raft.Log
	for i := first; i <= last; i++ {
		all = append(all, &raft.Log{Index: i, Term: term})
	}
	return all
}

func TestDiskThatHangsIsAnError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newMoodyStore()
		store.hang = make(chan struct{})
		guarded := &guardedLog{LogStore: store, disk: newDisk(), within: storeWithin}
		began := time.Now()
		if err := guarded.StoreLogs(entries(1, 1, 3)); !errors.Is(err, errDiskHangs) || time.Since(began) != storeWithin {
			t.Errorf("got %v after %s, want errDiskHangs after %s", err, time.Since(began), storeWithin)
		}
		if err := guarded.StoreLogs(entries(1, 1, 3)); !errors.Is(err, errDiskHangs) {
			t.Errorf("got %v from a disk that still hangs", err)
		}
		if got := strings.Join(guarded.disk.problems(), ""); !strings.Contains(got, "the disk has not answered for 10s") {
			t.Errorf("got the problems %q, want that the disk does not answer", got)
		}
		close(store.hang)
		synctest.Wait()
		if got := guarded.disk.problems(); got != nil {
			t.Errorf("got the problems %q of a disk that answers again", got)
		}
	})
}

// What Raft was told is not stored must not stand behind what it stores next.
func TestEntriesThatCameLateAreDeleted(t *testing.T) {
	for name, spoil := range map[string]func(*moodyStore) (mend func()){
		"hangs":            func(s *moodyStore) func() { s.hang = make(chan struct{}); return func() { close(s.hang) } },
		"writes and fails": func(s *moodyStore) func() { s.failWith(syscall.EIO); return func() { s.failWith(nil) } },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := newMoodyStore()
				guarded := &guardedLog{LogStore: store, disk: newDisk(), within: storeWithin}
				if err := guarded.StoreLogs(entries(1, 1, 2)); err != nil {
					t.Fatal(err)
				}
				mend := spoil(store)
				if err := guarded.StoreLogs(entries(1, 3, 6)); err == nil {
					t.Fatal("got no error, want one")
				}
				mend()
				synctest.Wait()
				if err := guarded.StoreLogs(entries(2, 3, 4)); err != nil {
					t.Fatal(err)
				}
				if last, _ := store.LastIndex(); last != 4 {
					t.Errorf("got last index %d, want 4: entries 5 and 6 are of term 1, which was given up", last)
				}
				var got raft.Log
				if err := store.GetLog(3, &got); err != nil || got.Term != 2 {
					t.Errorf("got entry 3 of term %d, %v, want term 2", got.Term, err)
				}
			})
		})
	}
}

// An installed snapshot makes the log go on far behind entries that should not be there.
func TestStaleEntriesBeforeAGapAreDeleted(t *testing.T) {
	store := newMoodyStore()
	guarded := &guardedLog{LogStore: store, disk: newDisk(), within: storeWithin}
	if err := guarded.StoreLogs(entries(1, 1, 5)); err != nil {
		t.Fatal(err)
	}
	store.failWith(syscall.EIO)
	if err := guarded.StoreLogs(entries(1, 6, 9)); err == nil {
		t.Fatal("got no error, want one")
	}
	store.failWith(nil)
	if err := guarded.StoreLogs(entries(3, 100, 101)); err != nil {
		t.Fatal(err)
	}
	for index, want := range map[uint64]error{5: nil, 6: raft.ErrLogNotFound, 9: raft.ErrLogNotFound, 100: nil} {
		if err := guarded.GetLog(index, &raft.Log{}); !errors.Is(err, want) {
			t.Errorf("entry %d: got %v, want %v", index, err, want)
		}
	}
}

// A vote in a term that is not on disk could be given twice.
func TestNoVoteInATermThatWasLost(t *testing.T) {
	store := newMoodyStore()
	store.failWith(syscall.ENOSPC)
	guarded := &guardedStable{StableStore: store, disk: newDisk()}
	guarded.disk.close()
	if err := guarded.SetUint64([]byte(currentTerm), 7); err != nil {
		t.Errorf("got %v, want none: raft would panic", err)
	}
	store.failWith(nil)
	if err := guarded.SetUint64([]byte("LastVoteTerm"), 7); err == nil {
		t.Error("a vote was kept in a term that was not")
	}
	if err := guarded.Set([]byte("LastVoteCand"), []byte("a")); err == nil {
		t.Error("a vote was kept in a term that was not")
	}
}

func TestTermWaitsForAFullDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newMoodyStore()
		store.failWith(syscall.ENOSPC)
		guarded := &guardedStable{StableStore: store, disk: newDisk()}
		if err := guarded.SetUint64([]byte("LastVoteTerm"), 7); err == nil {
			t.Error("a vote that is not on disk was given")
		}
		kept := make(chan error, 1)
		go func() { kept <- guarded.SetUint64([]byte(currentTerm), 7) }()
		synctest.Wait()
		if got := strings.Join(guarded.disk.problems(), ""); !strings.Contains(got, "no space left on device") {
			t.Errorf("got the problems %q, want that there is no space left", got)
		}
		store.failWith(nil)
		if err := <-kept; err != nil {
			t.Errorf("got %v once there is space", err)
		}
		if term, _ := store.GetUint64([]byte(currentTerm)); term != 7 {
			t.Errorf("got term %d on disk, want 7", term)
		}
	})
}

// The flag that an interrupted transfer leaves behind (hashicorp/raft#696) is set
// by force; what follows is all real.
func TestLeaderThatRefusesWritesRestartsRaft(t *testing.T) {
	t.Parallel()
	nodes := startCluster(t, 1, nil)
	lone := nodes[0]
	propose(t, lone, addBackend("web-1", 3001))
	stuck := lone.raft()
	flag := reflect.ValueOf(stuck).Elem().FieldByName("leaderState").FieldByName("leadershipTransferInProgress")
	atomic.StoreInt32((*int32)(unsafe.Pointer(flag.UnsafeAddr())), 1)
	if _, err := lone.Propose(t.Context(), Write{Op: addBackend("web-2", 3002)}); err == nil {
		t.Fatal("got no error from a leader that refuses writes")
	}
	propose(t, lone, addBackend("web-3", 3003))
	if lone.raft() == stuck {
		t.Error("raft was not restarted")
	}
	pool := lone.View().Pool(state.DefaultPool)
	if pool.Backend("web-1") == nil || pool.Backend("web-3") == nil {
		t.Errorf("got %+v, want web-1 and web-3", pool.Backends)
	}
}
