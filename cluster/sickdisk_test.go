package cluster

import (
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// sickDisk does with what is stored on it as it is told.
type sickDisk struct {
	mu    sync.Mutex
	ills  ailment // nil: it works
	cured chan struct{}
}

// ailment does or does not what store would do, and may wait until the disk is
// cured.
type ailment func(store func() error, cured <-chan struct{}) error

func (d *sickDisk) ail(how ailment) {
	d.cure()
	d.mu.Lock()
	defer d.mu.Unlock()
	d.ills, d.cured = how, make(chan struct{})
}

func (d *sickDisk) cure() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.ills != nil {
		close(d.cured)
	}
	d.ills = nil
}

func (d *sickDisk) do(store func() error) error {
	d.mu.Lock()
	ills, cured := d.ills, d.cured
	d.mu.Unlock()
	if ills == nil {
		return store()
	}
	return ills(store, cured)
}

// hangs is a disk that does not answer.
func hangs(store func() error, cured <-chan struct{}) error {
	<-cured
	return store()
}

// fails is a disk that does not store, and now and then does although it says that
// it did not.
func fails(store func() error, _ <-chan struct{}) error {
	if rand.IntN(2) == 0 {
		return errors.Join(store(), syscall.EIO)
	}
	return syscall.EIO
}

// wrap puts the disk below a log store.
func (d *sickDisk) wrap(logs raft.LogStore) raft.LogStore { return sickLog{logs, d} }

// sickLog is a log store on a sickDisk.
type sickLog struct {
	raft.LogStore
	disk *sickDisk
}

func (l sickLog) StoreLog(entry *raft.Log) error { return l.StoreLogs([]*raft.Log{entry}) }

func (l sickLog) StoreLogs(entries []*raft.Log) error {
	return l.disk.do(func() error { return l.LogStore.StoreLogs(entries) })
}

func (l sickLog) DeleteRange(first, last uint64) error {
	return l.disk.do(func() error { return l.LogStore.DeleteRange(first, last) })
}

// Raft's pipeline of entries to a follower can block for ever once the follower has
// refused some (hashicorp/raft#612).
func TestFollowerWhoseDiskFailedIsServedAgain(t *testing.T) {
	t.Parallel()
	s := newSuite(t, 3)
	for range 8 {
		err := s.round(100, func() string {
			disk := s.disks[s.follower().cfg.DataDir]
			disk.ail(fails)
			defer disk.cure()
			pause(t.Context(), 300*time.Millisecond)
			return "a failing disk of a follower"
		})
		if err != nil {
			t.Fatal(s.describe(err))
		}
	}
}

// A leader that was cut off has entries that nobody else has. When it is back, it
// drops them for those of the new leader, and its disk fails in between.
func TestDiskFailsBetweenDropAndStore(t *testing.T) {
	t.Parallel()
	s := newSuite(t, 3)
	old := s.leader()
	disk := s.disks[old.cfg.DataDir]
	lift := s.network.add(allLinks(old, passage{cut: true}))
	for range 5 {
		old.raft().Apply([]byte("{}"), callWithin) // never committed
	}
	s.await("another leader", func() bool { return s.leaderBut(old) != nil && old.raft().State() != raft.Leader })
	propose(t, s.leaderBut(old), setRegister(0, 2))
	var changes atomic.Int64
	disk.ail(func(store func() error, _ <-chan struct{}) error {
		if changes.Add(1) == 1 { // the drop
			return store()
		}
		return syscall.EIO
	})
	lift()
	s.await("its disk fails", func() bool { return changes.Load() > 1 })
	disk.cure()
	propose(t, s.leaderBut(old), setRegister(0, 3))
	s.await("it has caught up", s.agree)
}
