package admin

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"lbnode/cluster"
	"lbnode/state"
)

var update = flag.Bool("update", false, "write the golden snapshot file anew")

// The golden files are written once for each version of the format, and of what it
// holds, and kept.
const (
	goldenFile  = "../../testdata/snapshots/file-v1.json"
	goldenFile4 = "../../testdata/snapshots/file-v4.json"
)

// encodeSnapshot gives the file of what c has.
func encodeSnapshot(t *testing.T, c *fakeCluster) []byte {
	t.Helper()
	data, err := newSnapshot(c.View(), "v1.0.0", time.Unix(1_700_000_000, 0)).encode()
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// seal gives the file of a snapshot written by hand, with the right checksum.
func seal(snapshot string) string {
	sum := sha256.Sum256([]byte(snapshot))
	return fmt.Sprintf(`{"format":%q,"version":1,"sha256":%q,"snapshot":%s}`, snapshotFormat, hex.EncodeToString(sum[:]), snapshot)
}

func TestGoldenSnapshotFiles(t *testing.T) {
	full, err := state.Restore(readFile(t, "../../testdata/snapshots/v4.json"))
	if err != nil {
		t.Fatal(err)
	}
	for file, test := range map[string]struct {
		cluster *fakeCluster
		want    Snapshot // but for what it holds
	}{
		goldenFile:  {webPool(t), Snapshot{ClusterID: "c1", Index: 4, Counts: Counts{2, 1, 1}}},
		goldenFile4: {&fakeCluster{machine: full}, Snapshot{ClusterID: "c4", Index: 15, Counts: Counts{6, 6, 1}}},
	} {
		got := encodeSnapshot(t, test.cluster)
		if *update {
			if err := os.WriteFile(file, got, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want := readFile(t, file)
		if !bytes.Equal(got, want) {
			t.Errorf("%s: got  %s\nwant %s", file, got, want)
		}
		s, err := ReadSnapshot(want)
		if err != nil {
			t.Fatal(err)
		}
		test.want.SavedAt, test.want.SavedBy, test.want.Content = "2023-11-14T22:13:20.000Z", "v1.0.0", s.Content
		if !reflect.DeepEqual(*s, test.want) {
			t.Errorf("%s: got %+v, want %+v", file, *s, test.want)
		}
	}
}

func readFile(t *testing.T, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// What was found out about a backend is no part of the configuration, and would keep
// older nodes from restoring it.
func TestSnapshotHasNoReasons(t *testing.T) {
	c := webPool(t)
	pool := c.View().Pool("web")
	want := encodeSnapshot(t, c)
	b := pool.Backends[0]
	c.apply(t, &state.SetHealth{Verdicts: []state.Verdict{{BackendID: b.ID, URL: b.URL(), Health: state.Unhealthy, Reason: "lb1: refused", Falls: 3}}})
	if got := c.View().Pool(pool.Name).Backends[0].Reason; got == "" {
		t.Fatal("got no reason to leave out")
	}
	got := encodeSnapshot(t, c)
	if bytes.Contains(got, []byte("refused")) || bytes.Contains(got, []byte("falls")) || bytes.Equal(got, want) {
		t.Errorf("got %s, want the health and nothing of why", got)
	}
}

// A file may be indented otherwise, by an editor or a tool.
func TestSnapshotMayBeIndented(t *testing.T) {
	data := encodeSnapshot(t, webPool(t))
	want, err := ReadSnapshot(data)
	if err != nil {
		t.Fatal(err)
	}
	var wide bytes.Buffer
	if err := json.Indent(&wide, data, "\t", "      "); err != nil {
		t.Fatal(err)
	}
	for _, data := range []string{wide.String(), compact(t, data)} {
		if got, err := ReadSnapshot([]byte(data)); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("got %+v, %v, want %+v", got, err, want)
		}
	}
}

// Whatever one byte is changed to, the file is refused or means the same.
func TestDamagedSnapshot(t *testing.T) {
	data := encodeSnapshot(t, webPool(t))
	want, err := ReadSnapshot(data)
	if err != nil {
		t.Fatal(err)
	}
	refused := 0
	for at := range data {
		for _, change := range []byte{1, 2, 0x20, 0x80, 0xff} {
			damaged := bytes.Clone(data)
			damaged[at] ^= change
			got, err := ReadSnapshot(damaged)
			if err != nil {
				refused++
			} else if !reflect.DeepEqual(got, want) {
				t.Fatalf("byte %d changed by %#x: got %+v", at, change, got)
			}
		}
	}
	if refused < 3*len(data) {
		t.Errorf("refused %d of %d damaged files", refused, 5*len(data))
	}
	for end := range len(data) - 1 { // the last byte is a line feed
		if _, err := ReadSnapshot(data[:end]); err == nil {
			t.Fatalf("a file cut short at %d of %d bytes was read", end, len(data))
		}
	}
}

func TestUnusableSnapshots(t *testing.T) {
	good := compact(t, encodeSnapshot(t, webPool(t)))
	for _, test := range []struct{ name, file, in string }{
		{"empty", " \n", "is empty"},
		{"cut short", good[:len(good)/2], "damaged or cut short at byte"},
		{"text", "hello", "damaged or cut short at byte 1"},
		{"other JSON", `[1]`, "no snapshot of lbnode"},
		{"other object", `{"version":1}`, `its format is ""`},
		{"raft's snapshot", `{"version":1,"index":3,"content":{},"recent":[]}`, `its format is ""`},
		{"newer frame", strings.Replace(good, `"version":1`, `"version":2`, 1), "is of version 2, and this lbnode reads version 1: upgrade it"},
		{"newer frame field", strings.Replace(good, `"version":1`, `"version":1,"signed":true`, 1), "signed"},
		{"newer content", seal(`{"cluster_id":"c1","index":1,"certificates":[]}`), `"certificates"; was it saved by a newer lbnode?`},
		{"changed by hand", strings.Replace(good, "10.0.0.1", "10.0.0.2", 1), "damaged, or was changed by hand: its SHA-256 is"},
		{"changed header", strings.Replace(good, `"index":4`, `"index":5`, 1), "damaged, or was changed by hand"},
		{"no checksum", strings.Replace(good, `"sha256"`, `"sha1"`, 1), "sha1"},
		{"counts that lie", seal(`{"cluster_id":"c1","index":1,"counts":{"pools":7}}`), "Pools:7"},
		{"two files", good + good, "damaged or cut short at byte"},
	} {
		if s, err := ReadSnapshot([]byte(test.file)); err == nil || !strings.Contains(err.Error(), test.in) {
			t.Errorf("%s: got %+v, %v, want an error with %q", test.name, s, err, test.in)
		}
	}
}

// A snapshot goes to another cluster and brings all with it but the cluster's id and
// the health.
func TestSaveAndRestore(t *testing.T) {
	from, to := webPool(t), newFakeCluster()
	to.apply(t, &state.InitCluster{ClusterID: "c2"}, &state.CreatePool{Pool: state.Pool{Name: "other"}})
	file, err := NewClient(serve(t, from, Config{Version: "v1"}), "").Snapshot(t.Context(), false)
	if err != nil {
		t.Fatal(err)
	}
	client := NewClient(serve(t, to, Config{}), "")
	got, err := client.Restore(t.Context(), file)
	if err != nil {
		t.Fatal(err)
	}
	if want := (Restored{Index: 3, ClusterID: "c2", SavedFrom: "c1", Counts: Counts{2, 1, 1}}); *got != want {
		t.Errorf("got %+v, want %+v", *got, want)
	}
	from.apply(t, &state.UpdatePool{Pool: state.Pool{Name: "web"}}) // its index changes, its content does not
	back, err := client.Snapshot(t.Context(), true)
	if err != nil {
		t.Fatal(err)
	}
	was, err := ReadSnapshot(file)
	if err != nil {
		t.Fatal(err)
	}
	is, err := ReadSnapshot(back)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(is.Content, was.Content) || is.ClusterID != "c2" {
		t.Errorf("got %+v, want %+v", is, was)
	}
}

func TestSnapshotEndpoint(t *testing.T) {
	good := string(encodeSnapshot(t, webPool(t)))
	noLeader := fmt.Errorf("%w: 1 of 3 voters is alive", cluster.ErrNoLeader)
	for _, test := range []struct {
		name, method, query, body, match string
		failure                          error
		status                           int
		in                               string
	}{
		{name: "save", method: "GET", status: 200, in: `"format": "lbnode snapshot"`},
		{name: "save without quorum", method: "GET", failure: noLeader, status: 503, in: "?stale=1"},
		{name: "save what there is", method: "GET", query: "?stale=1", failure: noLeader, status: 200, in: `"index": 4`},
		{name: "restore", method: "POST", body: good, status: 200, in: `"counts":{"pools":2,"backends":1,"routes":1}`},
		{name: "restore on a condition", method: "POST", body: good, match: `"4"`, status: 200, in: `"index":5`},
		{name: "restore a large file", method: "POST", body: good + strings.Repeat(" ", 2*maxBody), status: 200},
		{name: "restore too late", method: "POST", body: good, match: `"3"`, status: 412},
		{name: "restore without quorum", method: "POST", body: good, failure: noLeader, status: 503},
		{name: "restore a damaged file", method: "POST", body: good[:len(good)/2], status: 400, in: "nothing was changed"},
		{name: "restore what the machine refuses", method: "POST", status: 422, in: "pools[0].name",
			body: seal(`{"cluster_id":"c1","index":1,"counts":{"pools":1},"content":{"pools":[{"name":"-"}]}}`)},
		{name: "restore nothing", method: "POST", body: " ", status: 400, in: "is empty"},
		{name: "restore too much", method: "POST", body: strings.Repeat(" ", maxSnapshot+1), status: 413},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := webPool(t)
			before := c.View()
			c.change(func() { c.failure = test.failure })
			got := ask(t, test.method, "http://"+serve(t, c, Config{})+"/v1/snapshot"+test.query, test.body, "If-Match", test.match, keyHeader, "k")
			if got.status != test.status || !strings.Contains(got.body, test.in) {
				t.Errorf("got %d %.200s, want %d and %q", got.status, got.body, test.status, test.in)
			}
			if got.status == 200 {
				if want := fmt.Sprintf(`"%d"`, c.View().Index); got.header.Get("ETag") != want {
					t.Errorf("got ETag %s, want %s", got.header.Get("ETag"), want)
				}
			} else if c.View() != before {
				t.Error("a refused restore changed the cluster")
			}
		})
	}
	if got := ask(t, "GET", "http://"+serve(t, newFakeCluster(), Config{})+"/v1/snapshot", ""); got.status != 503 || !strings.Contains(got.body, "no view yet") {
		t.Errorf("without a view: got %d %s", got.status, got.body)
	}
}
