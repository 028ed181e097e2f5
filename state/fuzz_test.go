package state

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
)

// history is what one machine made of a log.
type history struct {
	*replica
	results []Result
	cut     Snapshot // as it was after the first cut entries
}

// play applies the log to m, and fails the test unless every view it makes
// keeps the invariants.
func play(t testing.TB, m *Machine, log []entry, cut int) history {
	t.Helper()
	h := history{replica: &replica{Machine: m}, cut: m.Snapshot()}
	for i, e := range log {
		before := m.View()
		result := h.applyData(t, e.index, e.data)
		if after := m.View(); after != before {
			if after.Index != e.index || result.Index != e.index || result.Err != nil {
				t.Fatalf("entry %d: got %s and a view of index %d", e.index, toJSON(result), after.Index)
			}
			checkInvariants(t, after)
			checkIndex(t, m)
		}
		h.results = append(h.results, result)
		if i+1 == cut {
			h.cut = m.Snapshot()
		}
	}
	return h
}

// checkLog fails the test unless the log, and a snapshot at the cut followed by
// the rest of the log, give the same results, views and bytes.
func checkLog(t testing.TB, log []entry, cut int) history {
	t.Helper()
	whole := play(t, NewMachine(), log, cut)
	kept, err := whole.cut.Encode()
	if err != nil {
		t.Fatal(err)
	}
	tail := play(t, checkRoundTrip(t, kept), log[cut:], 0)
	for i, got := range tail.results {
		if want := whole.results[cut+i]; !sameResult(got, want) {
			t.Fatalf("cut at %d: result of entry %d: got %s, want %s", cut, log[cut+i].index, toJSON(got), toJSON(want))
		}
	}
	if got, want := snapshotBytes(t, tail.Machine), snapshotBytes(t, whole.Machine); !bytes.Equal(got, want) {
		t.Fatalf("cut at %d: %s", cut, difference(got, want))
	}
	if got, want := tail.View().Digest(), whole.View().Digest(); got != want {
		t.Fatalf("cut at %d: got digest %s, want %s", cut, got, want)
	}
	whole.checkViews(t)
	tail.checkViews(t)
	return whole
}

func sameResult(a, b Result) bool {
	if a.Err == nil || b.Err == nil {
		return a == b
	}
	return a.Index == b.Index && *a.Err == *b.Err
}

// checkDigests fails the test unless two views have one digest exactly if they
// have one content.
func checkDigests(t testing.TB, views []seenView) {
	t.Helper()
	byDigest, byContent := map[string]string{}, map[string]string{}
	for _, s := range views {
		digest, content := s.view.Digest(), s.json
		if other, ok := byDigest[digest]; ok && other != content {
			t.Fatalf("one digest of two contents:\n%s\n%s", content, other)
		}
		if other, ok := byContent[content]; ok && other != digest {
			t.Fatalf("two digests of %s: %s and %s", content, digest, other)
		}
		byDigest[digest], byContent[content] = content, digest
	}
}

// makeSeed draws bytes that make a log of some 20 commands.
func makeSeed(n uint64) []byte {
	random := rand.New(rand.NewPCG(n, 1))
	data := make([]byte, 40+random.IntN(120))
	for i := range data {
		data[i] = byte(random.Uint32())
	}
	return data
}

func FuzzMachine(f *testing.F) {
	for n := range uint64(24) {
		f.Add(makeSeed(n), uint(n))
	}
	f.Fuzz(func(t *testing.T, data []byte, at uint) {
		log := readScript(t, data)
		h := checkLog(t, log, int(at%uint(len(log)+1)))
		checkDigests(t, h.seen)
	})
}

func TestEveryCut(t *testing.T) {
	log := readScript(t, makeSeed(1))
	for cut := range len(log) + 1 {
		checkLog(t, log, cut)
	}
}

// Thousands of drawn logs, and proof that they are worth it: every operation
// succeeds and fails in them, for every reason there is.
func TestRandomLogs(t *testing.T) {
	seen := map[string]int{}
	var views []seenView
	for n := range uint64(draws) {
		log := readScript(t, makeSeed(n))
		h := checkLog(t, log, int(n)%(len(log)+1))
		for i, result := range h.results {
			seen[outcome(log[i].kind, result)]++
		}
		views = append(views, h.seen...)
	}
	checkDigests(t, views)
	for _, want := range wantedOutcomes() {
		if seen[want] < 3 {
			t.Errorf("%s: got it %d times, want 3 at least", want, seen[want])
		}
	}
}

func outcome(kind string, result Result) string {
	if result.Err == nil {
		return kind + " ok"
	}
	return fmt.Sprintf("%s %s", kind, result.Err.Code)
}

func wantedOutcomes() (all []string) {
	failures := map[string][]Code{
		"init_cluster":   {Invalid, Conflict, Stale},
		"seed":           {Invalid, Exists, Stale},
		"create_pool":    {Invalid, Exists, Stale},
		"update_pool":    {Invalid, NotFound, Stale},
		"delete_pool":    {NotFound, Conflict, Stale},
		"add_backend":    {Invalid, NotFound, Exists, Stale},
		"update_backend": {Invalid, NotFound, Exists, Stale},
		"remove_backend": {NotFound, Stale},
		"put_route":      {Invalid, NotFound, Stale},
		"remove_route":   {NotFound, Stale},
		"set_health":     {Invalid, Stale},
		"replace":        {Invalid, NotFound, Exists, Stale},
	}
	for kind, codes := range failures {
		all = append(all, kind+" ok")
		for _, code := range codes {
			all = append(all, fmt.Sprintf("%s %s", kind, code))
		}
	}
	return all
}

// checkCommandBytes applies bytes that may be anything: an error that changes
// nothing, or a result.
func checkCommandBytes(t testing.TB, data []byte) {
	t.Helper()
	r := newFixture(t)
	before := snapshotBytes(t, r.Machine)
	if _, err := r.Apply(r.index+1, data); err != nil {
		if !bytes.Equal(snapshotBytes(t, r.Machine), before) {
			t.Fatalf("%s: got error %v and a changed machine", data, err)
		}
		return
	}
	checkInvariants(t, r.View())
	checkIndex(t, r.Machine)
	checkRoundTrip(t, snapshotBytes(t, r.Machine))
	r.checkViews(t)
}

// checkSnapshotBytes restores bytes that may be anything: an error, or a machine
// that can go on.
func checkSnapshotBytes(t testing.TB, data []byte) {
	t.Helper()
	m, err := Restore(data)
	if err != nil {
		return
	}
	checkRoundTrip(t, snapshotBytes(t, m))
	for _, e := range readScript(t, makeSeed(2)) {
		if _, err := m.Apply(e.index, e.data); err != nil {
			t.Fatalf("after %s: %v", data, err)
		}
	}
	checkRoundTrip(t, snapshotBytes(t, m))
	m.View().Digest()
}

// checkRoundTrip restores an encoded snapshot, and fails the test unless the
// machine encodes to the same bytes again.
func checkRoundTrip(t testing.TB, want []byte) *Machine {
	t.Helper()
	m := restore(t, want)
	if got := snapshotBytes(t, m); !bytes.Equal(got, want) {
		t.Fatalf("restored and encoded again: %s", difference(got, want))
	}
	return m
}

// difference shows the first line in which two snapshots differ.
func difference(got, want []byte) string {
	gotLines, wantLines := strings.Split(string(got), "\n"), strings.Split(string(want), "\n")
	for i := range min(len(gotLines), len(wantLines)) {
		if gotLines[i] != wantLines[i] {
			return fmt.Sprintf("line %d:\n got %s\nwant %s\nin\n%s", i+1, gotLines[i], wantLines[i], want)
		}
	}
	return fmt.Sprintf("got %d lines, want %d", len(gotLines), len(wantLines))
}

func FuzzApply(f *testing.F) {
	for _, g := range goldens() {
		for _, data := range g.lines(f) {
			f.Add(data)
		}
	}
	f.Add([]byte(`{"v":1,"op":"create_pool","body":null}`))
	f.Add([]byte(`{"v":1,"op":"set_health","body":{"verdicts":[null,{}]}}`))
	f.Add(readGolden(f, goldenReplaceFile))
	f.Add([]byte(`{"v":1,"op":"replace","body":{"pools":[{"name":"a"},{"name":"a"}],"routes":[{}]}}`))
	f.Add([]byte(`{"v":1e999,"op":7}`))
	f.Fuzz(func(t *testing.T, data []byte) { checkCommandBytes(t, data) })
}

func FuzzRestore(f *testing.F) {
	for _, g := range goldens() {
		f.Add(readGolden(f, g.snapshot))
	}
	f.Add([]byte(`{"version":1,"content":{"routes":[],"pools":[{"backends":[]}]},"recent":[]}`))
	f.Add([]byte(`{"version":1,"content":{"pools":[null,null]}}`))
	f.Add([]byte(`{"version":1,"recent":[{"id":"r1","result":{"error":null}},{}]}`))
	f.Fuzz(func(t *testing.T, data []byte) { checkSnapshotBytes(t, data) })
}

// Bytes that were damaged a little go deeper than bytes that were made up.
func TestDamagedBytes(t *testing.T) {
	random := rand.New(rand.NewPCG(7, 7))
	for _, g := range goldens() {
		log, snapshot := g.lines(t), readGolden(t, g.snapshot)
		for n := range draws / 2 {
			checkCommandBytes(t, damage(random, log[n%len(log)]))
		}
		for range draws / 8 {
			checkSnapshotBytes(t, damage(random, snapshot))
		}
	}
}

// damage replaces, cuts out or repeats a few bytes.
func damage(random *rand.Rand, data []byte) []byte {
	const noise = "0-\"{}[],:nul\xff\x00"
	data = bytes.Clone(data)
	for range 1 + random.IntN(3) {
		at := random.IntN(len(data))
		end := min(len(data), at+1+random.IntN(8))
		switch random.IntN(3) {
		case 0:
			data[at] = noise[random.IntN(len(noise))]
		case 1:
			data = append(data[:at:at], data[end:]...)
		case 2:
			data = append(data[:end:end], data[at:]...)
		}
	}
	return data
}
