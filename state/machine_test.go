package state

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
)

func TestEmptyView(t *testing.T) {
	v := NewMachine().View()
	if v.Index != 0 || v.Pool("web") != nil || v.ClusterID != "" {
		t.Errorf("got %s, want nothing", toJSON(v))
	}
	if got, want := v.Digest(), EmptyView().Digest(); got != want || len(got) != 32 {
		t.Errorf("got digest %q, want %q of 32 digits", got, want)
	}
}

func TestLookups(t *testing.T) {
	v := newFixture(t).View()
	for _, name := range []string{"api", "empty", "web"} {
		if p := v.Pool(name); p == nil || p.Name != name {
			t.Errorf("pool %s: got %s", name, toJSON(p))
		}
	}
	if got := v.Pool("b"); got != nil {
		t.Errorf("got %s, want no pool", toJSON(got))
	}
	if got := v.Pool("web").Backend("b2"); got == nil || got.ID != "id-2" {
		t.Errorf("got %s, want backend id-2", toJSON(got))
	}
	if got := v.Pool("web").Backend("b3"); got != nil {
		t.Errorf("got %s, want no backend", toJSON(got))
	}
}

// A digest is of the facts alone: neither the index nor the way there shows.
func TestDigestIsOfContent(t *testing.T) {
	a, b := newFixture(t), newFixture(t)
	b.do(t,
		&AddBackend{Pool: "web", Backend: backend(9)},
		&RemoveBackend{Pool: "web", Name: "b9"},
		&UpdatePool{Pool: Pool{Name: "web", Settings: Settings{WhenAllDown: FailOpen}}},
	)
	if a.View().Digest() == b.View().Digest() {
		t.Error("got equal digests of different content")
	}
	b.do(t, &UpdatePool{Pool: Pool{Name: "web", Settings: Settings{WhenAllDown: Reject}}})
	if got, want := b.View().Digest(), a.View().Digest(); got != want {
		t.Errorf("got digest %s, want %s", got, want)
	}
	if a.View().Index == b.View().Index {
		t.Error("got equal indexes, want the test to compare different ones")
	}
}

func TestConditionalCommands(t *testing.T) {
	add := func(n int, ifIndex uint64) Command {
		return Command{IfIndex: ifIndex, Op: &AddBackend{Pool: "web", Backend: backend(n)}}
	}
	r := newFixture(t)
	now := r.View().Index
	if result := r.commit(t, add(7, now)); result.Err != nil {
		t.Fatalf("at the current index: got %v, want success", result.Err)
	}
	view := r.View()
	for _, ifIndex := range []uint64{now, view.Index + 1} {
		result := r.commit(t, add(8, ifIndex))
		if result.Err == nil || result.Err.Code != Stale || result.Index != view.Index {
			t.Errorf("at index %d: got %s, want stale at %d", ifIndex, toJSON(result), view.Index)
		}
	}
	if r.View() != view {
		t.Error("a stale command changed the view")
	}
	// The index is that of the view, not of the log, which has gone on.
	if result := r.commit(t, add(8, view.Index)); result.Err != nil {
		t.Errorf("after failed commands: got %v, want success", result.Err)
	}
}

func TestRepeatedCommand(t *testing.T) {
	good := Command{ID: "good", Op: &AddBackend{Pool: "web", Backend: backend(7)}}
	bad := Command{ID: "bad", Op: &DeletePool{Name: "nope"}}
	stale := Command{ID: "stale", IfIndex: 1, Op: &DeletePool{Name: "empty"}}
	for _, cmd := range []Command{good, bad, stale} {
		t.Run(cmd.ID, func(t *testing.T) {
			r := newFixture(t)
			want := r.commit(t, cmd)
			r.do(t, &CreatePool{Pool: Pool{Name: "nope"}}, &RemoveRoute{}) // would change what cmd does
			view, before := r.View(), snapshotBytes(t, r.Machine)
			if got := r.commit(t, cmd); toJSON(got) != toJSON(want) {
				t.Errorf("got %s, want %s", toJSON(got), toJSON(want))
			}
			if r.View() != view || !bytes.Equal(snapshotBytes(t, r.Machine), before) {
				t.Error("a repeated command changed the machine")
			}
			restored := restore(t, before)
			got, err := restored.Apply(r.index+1, encode(t, cmd))
			if err != nil || toJSON(got) != toJSON(want) {
				t.Errorf("after a snapshot: got %s and %v, want %s", toJSON(got), err, toJSON(want))
			}
			if !bytes.Equal(snapshotBytes(t, restored), before) {
				t.Error("a repeated command changed the restored machine")
			}
		})
	}
}

func TestCommandsWithoutIDAreNotRemembered(t *testing.T) {
	r := newFixture(t)
	remove := Command{Op: &RemoveBackend{Pool: "web", Name: "b1"}}
	if result := r.commit(t, remove); result.Err != nil {
		t.Fatal(result.Err)
	}
	if result := r.commit(t, remove); result.Err == nil || result.Err.Code != NotFound {
		t.Errorf("got %s, want not_found", toJSON(result))
	}
}

func TestMemoryOfIDsIsBounded(t *testing.T) {
	r := newReplica()
	cmd := func(n int) Command {
		return Command{ID: fmt.Sprintf("r%d", n), Op: &InitCluster{ClusterID: "c1"}}
	}
	first := make([]Result, 3*remembered)
	for n := range first {
		first[n] = r.commit(t, cmd(n))
	}
	if got := len(restore(t, snapshotBytes(t, r.Machine)).recent); got != remembered {
		t.Errorf("got %d ids in the snapshot, want %d", got, remembered)
	}
	oldest := len(first) - remembered
	if got := r.commit(t, cmd(oldest)); got != first[oldest] {
		t.Errorf("oldest remembered: got %s, want %s", toJSON(got), toJSON(first[oldest]))
	}
	if got := r.commit(t, cmd(oldest-1)); got.Index != r.index {
		t.Errorf("forgotten: got index %d, want it applied at %d", got.Index, r.index)
	}
	if got := len(r.recent); got != remembered {
		t.Errorf("got %d ids in memory, want %d", got, remembered)
	}
}

// A snapshot is encoded while the machine goes on.
func TestSnapshotIsFixed(t *testing.T) {
	r := newFixture(t)
	snapshot := r.Snapshot()
	want := snapshotBytes(t, r.Machine)
	encoded := make(chan []byte)
	go func() {
		data, _ := snapshot.Encode()
		encoded <- data
	}()
	for n := range 2 * remembered {
		r.commit(t, Command{ID: fmt.Sprint(n), Op: &UpdateBackend{Pool: "web", Name: "b1", Patch: Backend{Port: 1 + n}}})
	}
	if got := <-encoded; !bytes.Equal(got, want) {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	r.checkViews(t)
}

// Readers use and digest views while the machine makes new ones; the race
// detector watches.
func TestViewsAreReadConcurrently(t *testing.T) {
	r := newFixture(t)
	views := make(chan *View)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for v := range views {
			if again := newView(0, v.content).Digest(); again != v.Digest() {
				t.Errorf("view %d: got digest %s, then %s", v.Index, v.Digest(), again)
			}
		}
	}()
	for n := range 200 {
		views <- r.View()
		r.do(t, &UpdateBackend{Pool: "web", Name: "b2", Patch: Backend{Weight: 1 + n}})
		r.View().Digest()
	}
	close(views)
	<-done
}

func TestApplyRefusesWhatItCannotRead(t *testing.T) {
	for name, data := range map[string]string{
		"empty":             ``,
		"not JSON":          `hello`,
		"cut short":         `{"v":1,"op":"delete_pool","body":{"na`,
		"newer version":     `{"v":99,"op":"delete_pool","body":{"name":"empty"}}`,
		"no version":        `{"op":"delete_pool","body":{"name":"empty"}}`,
		"unknown operation": `{"v":1,"op":"explode","body":{}}`,
		"no body":           `{"v":1,"op":"delete_pool"}`,
		"unknown field":     `{"v":1,"op":"delete_pool","body":{"name":"empty","force":true}}`,
		"wrong type":        `{"v":1,"op":"delete_pool","body":{"name":7}}`,
		"bad duration":      `{"v":1,"op":"update_pool","body":{"pool":{"name":"web","timeouts":{"connect":"soon"}}}}`,
	} {
		r := newFixture(t)
		before := snapshotBytes(t, r.Machine)
		if _, err := r.Apply(7, []byte(data)); err == nil || !strings.HasPrefix(err.Error(), "log entry 7: cannot read command") {
			t.Errorf("%s: got error %v, want one that names the log entry", name, err)
		}
		if !bytes.Equal(snapshotBytes(t, r.Machine), before) {
			t.Errorf("%s: the machine changed", name)
		}
	}
}

func TestRestoreRefusesWhatItCannotUse(t *testing.T) {
	for name, data := range map[string]string{
		"empty":            ``,
		"cut short":        `{"version":1,"index":3,"content":{"clu`,
		"more after it":    `{"version":1} {}`,
		"newer version":    `{"version":99,"index":3,"shards":[]}`,
		"no version":       `{"index":3}`,
		"unknown field":    `{"version":1,"index":3,"content":{"certificates":[]}}`,
		"missing pool":     `{"version":1,"content":{"pools":[null]}}`,
		"unsorted pools":   `{"version":1,"content":{"pools":[{"name":"b"},{"name":"a"}]}}`,
		"pool twice":       `{"version":1,"content":{"pools":[{"name":"a"},{"name":"a"}]}}`,
		"unsorted routes":  `{"version":1,"content":{"routes":[{"path":"/b"},{"path":"/a"}]}}`,
		"route twice":      `{"version":1,"content":{"routes":[{"path":"/a"},{"path":"/a"}]}}`,
		"negative index":   `{"version":1,"index":-1}`,
		"a command's form": `{"v":1,"op":"delete_pool","body":{"name":"empty"}}`,
	} {
		if m, err := Restore([]byte(data)); err == nil || m != nil || !strings.HasPrefix(err.Error(), "cannot ") {
			t.Errorf("%s: got machine %v and error %v, want an error alone", name, m, err)
		}
	}
	if _, err := Restore([]byte(`{"version":99,"shards":[]}`)); !errors.Is(err, ErrTooNew) || !strings.Contains(err.Error(), "version 99") {
		t.Errorf("newer version: got error %v, want ErrTooNew that names the version", err)
	}
}
