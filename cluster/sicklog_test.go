package cluster

import (
	"math"
	"math/rand/v2"
	"path/filepath"
	"testing"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
)

// Whatever a disk does that fails now and then, the log begins with what Raft was
// told is stored, and behind that no entry is of an older term than the one before.
func TestLogOnAFailingDisk(t *testing.T) {
	t.Parallel()
	store, err := raftboltdb.New(raftboltdb.Options{Path: filepath.Join(t.TempDir(), "raft.db"), NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	for seed := range uint64(500) {
		if err := store.DeleteRange(1, math.MaxInt64); err != nil {
			t.Fatal(err)
		}
		random, disk := rand.New(rand.NewPCG(seed, 0)), &sickDisk{}
		guarded := &guardedLog{LogStore: disk.wrap(store), disk: newDisk(), within: storeWithin}
		var stored []*raft.Log // that Raft was told
		for term := range uint64(12) {
			if random.IntN(2) == 0 {
				disk.ail(fails)
			} else {
				disk.cure()
			}
			first := uint64(1 + random.IntN(len(stored)+1))
			if kept := first - 1; kept < uint64(len(stored)) { // a new leader has other entries
				if guarded.DeleteRange(first, uint64(len(stored))) != nil {
					break // Raft is told nothing of what is left
				}
				stored = stored[:kept]
			}
			batch := entries(term+1, first, first+random.Uint64N(4))
			if guarded.StoreLogs(batch) == nil {
				stored = append(stored, batch...)
			}
			checkLog(t, seed, store, stored)
		}
	}
}

// checkLog compares what is on disk with what Raft thinks.
func checkLog(t *testing.T, seed uint64, store raft.LogStore, stored []*raft.Log) {
	t.Helper()
	last, err := store.LastIndex()
	if err != nil {
		t.Fatal(err)
	}
	term := uint64(0)
	for index := uint64(1); index <= max(last, uint64(len(stored))); index++ {
		var got raft.Log
		if err := store.GetLog(index, &got); err != nil {
			t.Fatalf("seed %d: entry %d is lost: %v", seed, index, err)
		}
		if index <= uint64(len(stored)) && got.Term != stored[index-1].Term {
			t.Fatalf("seed %d: got entry %d of term %d, want %d", seed, index, got.Term, stored[index-1].Term)
		}
		if got.Term < term {
			t.Fatalf("seed %d: got entry %d of term %d behind one of term %d", seed, index, got.Term, term)
		}
		term = got.Term
	}
}
