package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
)

const (
	// storeWithin is how long the disk may take to store log entries.
	storeWithin = 10 * time.Second
	// storeSlow is how long it takes for somebody to be told.
	storeSlow = 3 * time.Second
)

// currentTerm is the key of Raft's term in its stable store.
const currentTerm = "CurrentTerm"

var errDiskHangs = errors.New("the disk has not answered for 10 s")

// disk notes what the log's store is doing, so that somebody can be told of a disk
// that hangs or is full.
type disk struct {
	closing chan struct{} // closed when the node stops
	once    sync.Once

	mu       sync.Mutex
	underway map[int]time.Time // when each operation that is not done began
	next     int
	failed   error // what the last one that ended came to
}

func newDisk() *disk {
	return &disk{closing: make(chan struct{}), underway: map[int]time.Time{}}
}

// close ends the waiting for a disk that may never work again.
func (d *disk) close() { d.once.Do(func() { close(d.closing) }) }

// do carries out one operation on the store.
func (d *disk) do(operation func() error) error {
	d.mu.Lock()
	id := d.next
	d.next++
	d.underway[id] = time.Now()
	d.mu.Unlock()
	err := operation()
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.underway, id)
	d.failed = err
	return err
}

// problems says what is wrong with the disk, nothing if it works.
func (d *disk) problems() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	var longest time.Duration
	for _, began := range d.underway {
		longest = max(longest, time.Since(began))
	}
	switch {
	case longest > storeSlow:
		return []string{fmt.Sprintf("the disk has not answered for %s; this node takes no part in writes until it does", longest.Round(time.Second))}
	case d.failed != nil:
		return []string{"the disk takes no writes: " + reason(d.failed) + "; this node takes no part in writes until it does"}
	}
	return nil
}

// unfit is the error of a disk with which this node could not lead.
func (d *disk) unfit() error {
	if problems := d.problems(); len(problems) > 0 {
		return errors.New(problems[0])
	}
	return nil
}

// diskLoop tries the disk again after it has failed, because a node that does not
// lead may have nothing to store.
func (c *Cluster) diskLoop(ctx context.Context) {
	for pause(ctx, lookEvery) {
		c.disk.retry(func() error { return tryToWrite(c.cfg.DataDir) })
	}
}

// retry makes an attempt on a disk that has failed. It does not wait for it: the
// disk may hang now.
func (d *disk) retry(attempt func() error) {
	d.mu.Lock()
	failed := d.failed != nil && len(d.underway) == 0
	d.mu.Unlock()
	if failed {
		go d.do(attempt)
	}
}

// trialSize is far more than entries for some seconds take.
const trialSize = 1 << 20

// tryToWrite says whether a file in dir can be stored for good.
func tryToWrite(dir string) error {
	file, err := os.Create(filepath.Join(dir, "trial"))
	if err != nil {
		return err
	}
	_, err = file.Write(make([]byte, trialSize))
	return errors.Join(err, file.Sync(), file.Close(), os.Remove(file.Name()))
}

// guardedLog is a log store that fails when the disk hangs. Raft gives up
// leadership on a failure, but on a disk that hangs it would wait for ever and
// go on sending heartbeats, so that no other node could take over
// (hashicorp/raft#503).
//
// It also keeps the log whole whatever fails when. Raft holds that entries are gone
// once their storing has failed, or once it has dropped them for those of a new leader.
// They may still be there, or come to be once the disk goes on. These stale entries
// are put right by the next storing: what is behind the new entries is deleted first,
// the rest overwritten. So at no moment do entries of an older term stand behind newer
// ones, for which this node could vote for one that lacks what it has acknowledged,
// nor is there a gap, with which the log could not be opened. Until then Raft finds
// what it has dropped, because it asks for that again when storing fails after it.
type guardedLog struct {
	raft.LogStore
	disk   *disk
	within time.Duration

	busy atomic.Bool // storing is under way, perhaps what was given up

	mu    sync.Mutex // held while the store is changed
	stale span       // entries that may be there and should not
}

// span is a range of indexes, none if last is 0.
type span struct{ first, last uint64 }

// and is the range that covers both.
func (s span) and(other span) span {
	if s.last == 0 {
		return other
	}
	return span{min(s.first, other.first), max(s.last, other.last)}
}

// StoreLog implements raft.LogStore.
func (g *guardedLog) StoreLog(entry *raft.Log) error { return g.StoreLogs([]*raft.Log{entry}) }

// StoreLogs implements raft.LogStore.
func (g *guardedLog) StoreLogs(entries []*raft.Log) error {
	if !g.busy.CompareAndSwap(false, true) { // Raft stores from one goroutine
		return errDiskHangs
	}
	var settled atomic.Bool // by the disk's answer, or by the deadline
	done := make(chan error, 1)
	go func() {
		g.mu.Lock()
		err := g.store(entries)
		inTime := settled.CompareAndSwap(false, true)
		if err != nil || !inTime {
			g.stale = g.stale.and(span{entries[0].Index, entries[len(entries)-1].Index})
		}
		g.mu.Unlock()
		g.busy.Store(false)
		done <- err
	}()
	deadline := time.NewTimer(g.within)
	defer deadline.Stop()
	select {
	case err := <-done:
		return err
	case <-deadline.C:
	case <-g.disk.closing:
	}
	if settled.CompareAndSwap(false, true) {
		return errDiskHangs
	}
	return <-done
}

func (g *guardedLog) store(entries []*raft.Log) error {
	first, last := entries[0].Index, entries[len(entries)-1].Index
	return g.disk.do(func() error {
		if g.stale.last > 0 && g.stale.last < first-1 { // a snapshot came between: they would stay for good
			if err := g.LogStore.DeleteRange(g.stale.first, g.stale.last); err != nil {
				return err
			}
		}
		if g.stale.last > last {
			if err := g.LogStore.DeleteRange(last+1, g.stale.last); err != nil {
				return err
			}
		}
		if err := g.LogStore.StoreLogs(entries); err != nil {
			return err
		}
		g.stale = span{}
		return nil
	})
}

// GetLog implements raft.LogStore. Raft ends the process where it cannot read an entry. Of a
// damaged log its goroutine ends instead, and with that its part in the cluster; the
// node, which has heard of the damage, follows with a line that says so.
func (g *guardedLog) GetLog(index uint64, entry *raft.Log) error {
	err := g.LogStore.GetLog(index, entry)
	var d *damage
	if errors.As(err, &d) {
		runtime.Goexit()
	}
	return err
}

// DeleteRange implements raft.LogStore. The end of the log becomes stale; its
// beginning, of which there is a snapshot, is deleted at once.
func (g *guardedLog) DeleteRange(first, last uint64) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	end, err := g.LogStore.LastIndex()
	if err != nil {
		return err
	}
	if last >= end || g.stale.last >= end && g.stale.first <= last+1 {
		g.stale = g.stale.and(span{first, max(last, end)})
		return nil
	}
	return g.disk.do(func() error { return g.LogStore.DeleteRange(first, last) })
}

// guardedStable keeps Raft's term and vote. Raft ends the process when it cannot
// keep its term, which a disk that is full for a while is no reason for: traffic
// goes on. So it waits until the disk takes the term, and meanwhile takes no part.
//
// A node that stops does not wait. Then nothing that comes after the term may be
// kept, a vote in it above all, and Raft is told that its term is kept when it is not.
type guardedStable struct {
	raft.StableStore
	disk *disk
	lost atomic.Bool // a term was given up
}

var errTermLost = errors.New("the node stops, and its term could not be stored")

// Set implements raft.StableStore. Without it, no vote is given.
func (g *guardedStable) Set(key, value []byte) error {
	if g.lost.Load() {
		return errTermLost
	}
	return g.disk.do(func() error { return g.StableStore.Set(key, value) })
}

// SetUint64 implements raft.StableStore.
func (g *guardedStable) SetUint64(key []byte, value uint64) error {
	for {
		if g.lost.Load() && string(key) != currentTerm {
			return errTermLost
		}
		err := g.disk.do(func() error { return g.StableStore.SetUint64(key, value) })
		if err == nil || string(key) != currentTerm {
			return err
		}
		select {
		case <-time.After(time.Second):
		case <-g.disk.closing:
			g.lost.Store(true)
			return nil // Raft would panic
		}
	}
}
