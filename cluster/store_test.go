package cluster

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
)

// content is all that a log, the term and the vote say, as text.
func content(t *testing.T, s *logStore) string {
	t.Helper()
	first, err := s.FirstIndex()
	if err != nil {
		t.Fatal(err)
	}
	last, err := s.LastIndex()
	if err != nil {
		t.Fatal(err)
	}
	var all strings.Builder
	for index := first; index <= last && last > 0; index++ {
		var entry raft.Log
		if err := s.GetLog(index, &entry); err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&all, "%d %d %s %q %q\n", entry.Index, entry.Term, entry.Type, entry.Data, entry.Extensions)
	}
	for _, key := range []string{currentTerm, "LastVoteTerm", "LastVoteCand"} {
		value, err := s.Get([]byte(key))
		if err != nil && !errors.Is(err, errNoKey) {
			t.Fatal(err)
		}
		fmt.Fprintf(&all, "%s %q\n", key, value)
	}
	return all.String()
}

// Whatever bits are turned over and whatever is zeroed or cut off: a log is refused, or it
// holds what it held. All of that before bbolt has seen it.
func TestDamagedLogIsNeverTakenForGood(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	store, err := openStore(dir, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	for i := range uint64(400) { // with entries of several pages, pages freed again, and two levels of pages
		entry := raft.Log{Index: i + 1, Term: 1 + i/100, Data: bytes.Repeat([]byte{byte(i)}, int(i*7%900))}
		if i%97 == 0 {
			entry.Data = bytes.Repeat([]byte("x"), 9000)
		}
		if err := errors.Join(store.StoreLog(&entry), store.SetUint64([]byte(currentTerm), entry.Term)); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(store.DeleteRange(1, 90), store.DeleteRange(380, 400), store.Set([]byte("LastVoteCand"), []byte("me")), store.SetUint64([]byte("LastVoteTerm"), 4)); err != nil {
		t.Fatal(err)
	}
	want := content(t, store)
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	sound, err := os.ReadFile(storePath(dir))
	if err != nil {
		t.Fatal(err)
	}
	tries, opened := 3000, uint64(10) // one of so many is opened, which takes longer
	if *long {
		tries, opened = 30_000, 1
	}
	refused := 0
	for seed := range uint64(tries) {
		random := rand.New(rand.NewPCG(seed, 7))
		text := mangle(random, slices.Clone(sound))
		if bytes.Equal(text, sound) || logIsRefused(t, text) {
			refused++
			continue
		}
		if seed%opened != 0 {
			continue
		}
		dir := t.TempDir()
		if err := os.WriteFile(storePath(dir), text, 0o600); err != nil {
			t.Fatal(err)
		}
		store, err := openStore(dir, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatalf("seed %d: it was found sound, and then: %v", seed, err)
		}
		if got := content(t, store); got != want {
			t.Errorf("seed %d: got %s\nwant %s", seed, got, want)
		}
		store.Close()
	}
	t.Logf("%d of %d refused, the others hold what they held", refused, tries)
}

// mangle does a few things to a file that disks and people do.
func mangle(random *rand.Rand, text []byte) []byte {
	for range 1 + random.IntN(3) {
		if len(text) == 0 {
			return text
		}
		page := random.IntN(len(text)/4096+1) * 4096
		switch random.IntN(8) {
		case 0:
			clear(text[min(page, len(text)):min(page+4096, len(text))])
		case 1: // a sector
			at := random.IntN(len(text)) / 512 * 512
			clear(text[at:min(at+512, len(text))])
		case 2:
			text = text[:random.IntN(len(text)+1)]
		case 3: // a page where another should be
			other := random.IntN(len(text)/4096+1) * 4096
			copy(text[min(page, len(text)):min(page+4096, len(text))], text[min(other, len(text)):])
		case 4: // where the headers of pages are, and of what is in them
			if at := page + random.IntN(256); at < len(text) {
				text[at] ^= 1 << random.IntN(8)
			}
		default:
			text[random.IntN(len(text))] ^= 1 << random.IntN(8)
		}
	}
	return text
}

func logIsRefused(t *testing.T, text []byte) bool {
	t.Helper()
	found := &logContent{}
	var err error
	if len(text) > 0 {
		if found.file, err = readBolt(bytes.NewReader(text), int64(len(text)), found.visit); err == nil {
			err = found.checkSeal()
		}
	}
	return err != nil || len(text) == 0 // term.json refuses an empty one
}

// A log of raft-boltdb is taken over, and raft-boltdb reads it afterwards and may write: a node
// may go back to a binary from before, and come again.
func TestLogOfOtherBinaries(t *testing.T) {
	t.Parallel()
	dir, quiet := t.TempDir(), slog.New(slog.DiscardHandler)
	want := ""
	before := func(first, last uint64) {
		t.Helper()
		store, err := raftboltdb.New(raftboltdb.Options{Path: storePath(dir)})
		if err != nil {
			t.Fatal(err)
		}
		var got strings.Builder
		for index := uint64(1); index < first; index++ {
			var entry raft.Log
			if err := store.GetLog(index, &entry); err != nil {
				t.Fatal(err)
			}
			fmt.Fprintf(&got, "%d %d %s %q %q\n", entry.Index, entry.Term, entry.Type, entry.Data, entry.Extensions)
		}
		if entries, _, _ := strings.Cut(want, currentTerm); got.String() != entries {
			t.Errorf("raft-boltdb reads %s\nwant %s", &got, entries)
		}
		for index := first; index <= last; index++ {
			if err := store.StoreLog(&raft.Log{Index: index, Term: first, Data: []byte("old"), Extensions: []byte("x")}); err != nil {
				t.Fatal(err)
			}
		}
		if err := errors.Join(store.SetUint64([]byte(currentTerm), last), store.Set([]byte("LastVoteCand"), []byte("b")), store.Close()); err != nil {
			t.Fatal(err)
		}
	}
	now := func(first, last uint64) {
		t.Helper()
		store, err := openStore(dir, quiet)
		if err != nil {
			t.Fatal(err)
		}
		if was := content(t, store); !strings.HasPrefix(was, strings.Split(want, currentTerm)[0]) || !strings.Contains(was, fmt.Sprintf("%d %d", first-1, max(1, first-20))) {
			t.Errorf("got %s\nwant first %s", was, want)
		}
		for index := first; index <= last; index++ {
			if err := store.StoreLog(&raft.Log{Index: index, Term: first, Data: []byte("new")}); err != nil {
				t.Fatal(err)
			}
		}
		want = content(t, store)
		if err := store.Close(); err != nil {
			t.Fatal(err)
		}
		file, err := os.Open(storePath(dir))
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		if found, err := readLogFile(file); err != nil || !found.sealed || found.last != last {
			t.Errorf("got %+v, %v, want it sealed", found, err)
		}
	}
	before(1, 20)
	now(21, 40)
	before(41, 60)
	now(61, 80)
}

// What is deleted at once may fill many pages, at either end of the log, or be all of it.
func TestEntriesOfManyPagesAreDeleted(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ first, last, wantFirst, wantLast uint64 }{
		{1, 400, 0, 0}, {0, 1000, 0, 0}, {1, 390, 391, 400}, {11, 400, 1, 10}, {11, 1000, 1, 10}, {401, 500, 1, 400},
	} {
		dir, quiet := t.TempDir(), slog.New(slog.DiscardHandler)
		store, err := openStore(dir, quiet)
		if err != nil {
			t.Fatal(err)
		}
		for i := range uint64(400) {
			err = errors.Join(err, store.StoreLog(&raft.Log{Index: i + 1, Term: 1, Data: make([]byte, 300)}))
		}
		if err := errors.Join(err, store.DeleteRange(test.first, test.last), store.Close()); err != nil {
			t.Fatal(err)
		}
		if store, err = openStore(dir, quiet); err != nil {
			t.Fatalf("%+v: %v", test, err)
		}
		first, _ := store.FirstIndex()
		last, _ := store.LastIndex()
		if first != test.wantFirst || last != test.wantLast {
			t.Errorf("%+v: got %d to %d", test, first, last)
		}
		next := &raft.Log{Index: max(last, test.last) + 1, Term: 2} // perhaps behind a snapshot
		if err := errors.Join(store.StoreLog(next), store.Close()); err != nil {
			t.Fatal(err)
		}
		if store, err = openStore(dir, quiet); err != nil {
			t.Fatalf("%+v, and one entry more: %v", test, err)
		}
		store.Close()
	}
}
