package state

import (
	"bytes"
	"flag"
	"os"
	"testing"
)

var update = flag.Bool("update", false, "write the golden files anew")

// The golden files are written once for each version that is released, and
// kept: a node must read the logs and snapshots of all of them.
const (
	goldenLogFile      = "../testdata/snapshots/v1-log.jsonl"
	goldenSnapshotFile = "../testdata/snapshots/v1.json"
	goldenDigest       = "932a2aa6a7747a6a3443c7d14a5baaed"
)

// goldenCommands have every operation in them and leave something in every
// field of a snapshot.
func goldenCommands() []Command {
	v6 := Backend{ID: "id-9", Name: "b9", Protocol: "https", Host: "2001:db8::9", Port: 443, Weight: 256, Admin: Drain}
	ops := []Op{
		&InitCluster{ClusterID: "c1"},
		&Seed{Backends: []Backend{backend(1), backend(2)}},
		&CreatePool{Pool: Pool{
			Name: "shop", WhenAllDown: FailOpen, Backends: []Backend{v6},
			HealthCheck: HealthCheck{Type: "tcp", Path: "/up?a=1&b=<é>", Interval: 1_500_000_001, Rise: 1, Fall: 1},
			Timeouts:    Timeouts{Connect: seconds(1)},
		}},
		&CreatePool{Pool: Pool{Name: "gone"}},
		&UpdatePool{Pool: Pool{Name: "default", Timeouts: Timeouts{Request: seconds(90)}}},
		&DeletePool{Name: "gone"},
		&AddBackend{Pool: "default", Backend: backend(3)},
		&UpdateBackend{Pool: "default", Name: "b2", Patch: Backend{Admin: Maint, Weight: 9}},
		&RemoveBackend{Pool: "default", Name: "b3"},
		&PutRoute{Route: Route{Host: "example.com", Path: "/shop", Pool: "shop"}},
		&PutRoute{Route: Route{Pool: "default"}},
		&PutRoute{Route: Route{Path: "/old", Pool: "shop"}},
		&RemoveRoute{Path: "/old"},
		&SetHealth{Verdicts: []Verdict{
			{BackendID: "id-1", URL: "http://10.0.0.1:8080", Health: Healthy},
			{BackendID: "id-9", URL: "https://[2001:db8::9]:443", Health: Unhealthy},
		}},
		&DeletePool{Name: "shop"}, // fails: in use
	}
	commands := make([]Command, len(ops))
	for i, op := range ops {
		commands[i] = Command{ID: op.kind() + string(rune('a'+i)), At: someTime + int64(i), Op: op}
	}
	return append(commands, Command{ID: "stale", At: someTime, IfIndex: 3, Op: &DeletePool{Name: "shop"}})
}

func writeGoldenFiles(t *testing.T) {
	t.Helper()
	var log []byte
	r := newReplica()
	for _, cmd := range goldenCommands() {
		r.commit(t, cmd)
		log = append(append(log, encode(t, cmd)...), '\n')
	}
	for file, data := range map[string][]byte{goldenLogFile: log, goldenSnapshotFile: snapshotBytes(t, r.Machine)} {
		if err := os.WriteFile(file, data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func readGolden(t testing.TB, file string) []byte {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// goldenLog returns the encoded commands of the golden log.
func goldenLog(t testing.TB) [][]byte {
	t.Helper()
	return bytes.Split(bytes.TrimSpace(readGolden(t, goldenLogFile)), []byte("\n"))
}

func TestGoldenSnapshot(t *testing.T) {
	if *update {
		writeGoldenFiles(t)
	}
	want := readGolden(t, goldenSnapshotFile)
	m := restore(t, want)
	if got := snapshotBytes(t, m); !bytes.Equal(got, want) {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if got := m.View().Digest(); got != goldenDigest {
		t.Errorf("got digest %s, want %s", got, goldenDigest)
	}
	checkInvariants(t, m.View())
}

func TestGoldenLog(t *testing.T) {
	r, log := newReplica(), goldenLog(t)
	if got, want := len(log), len(goldenCommands()); got != want {
		t.Fatalf("got %d commands, want %d", got, want)
	}
	for i, data := range log {
		r.applyData(t, uint64(i+1), data)
		if want := encode(t, goldenCommands()[i]); !bytes.Equal(data, want) {
			t.Errorf("command %d is now written otherwise:\n got %s\nwant %s", i, want, data)
		}
	}
	if got, want := snapshotBytes(t, r.Machine), readGolden(t, goldenSnapshotFile); !bytes.Equal(got, want) {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}
