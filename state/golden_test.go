package state

import (
	"bytes"
	"flag"
	"os"
	"testing"
)

var update = flag.Bool("update", false, "write the golden files anew")

// golden are the files of one version: a log, the snapshot that it comes to, and the
// digest of that. They are written once for each version that is released, and kept: a
// node must read the logs and snapshots of all of them.
type golden struct {
	log, snapshot, digest string
	commands              func() []Command
}

const goldenSnapshotFile = "../testdata/snapshots/v1.json"

func goldens() []golden {
	return []golden{
		{"../testdata/snapshots/v1-log.jsonl", goldenSnapshotFile, "932a2aa6a7747a6a3443c7d14a5baaed", goldenCommands},
		{"../testdata/snapshots/v4-log.jsonl", "../testdata/snapshots/v4.json", "9f4136e3b808c6253df5a11b19a72e93", goldenCommands4},
	}
}

// goldenCommands have every operation in them and leave something in every
// field of a snapshot.
func goldenCommands() []Command {
	v6 := Backend{ID: "id-9", Name: "b9", Protocol: "https", Host: "2001:db8::9", Port: 443, Weight: 256, Admin: Drain}
	ops := []Op{
		&InitCluster{ClusterID: "c1"},
		&Seed{Backends: []Backend{backend(1), backend(2)}},
		&CreatePool{Pool: Pool{
			Name: "shop", Backends: pointers([]Backend{v6}),
			Settings: Settings{
				HealthCheck: HealthCheck{Type: "tcp", Path: "/up?a=1&b=<é>", Interval: 1_500_000_001, Rise: 1, Fall: 1},
				Timeouts:    Timeouts{Connect: seconds(1)},
				WhenAllDown: FailOpen,
			},
		}},
		&CreatePool{Pool: Pool{Name: "gone"}},
		&UpdatePool{Pool: Pool{Name: "default", Settings: Settings{Timeouts: Timeouts{Request: seconds(90)}}}},
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

func (g golden) write(t *testing.T) {
	t.Helper()
	var log []byte
	r := newReplica()
	for _, cmd := range g.commands() {
		r.commit(t, cmd)
		log = append(append(log, encode(t, cmd)...), '\n')
	}
	for file, data := range map[string][]byte{g.log: log, g.snapshot: snapshotBytes(t, r.Machine)} {
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

// lines returns the encoded commands of the log.
func (g golden) lines(t testing.TB) [][]byte {
	t.Helper()
	return bytes.Split(bytes.TrimSpace(readGolden(t, g.log)), []byte("\n"))
}

func TestGoldenSnapshots(t *testing.T) {
	for _, g := range goldens() {
		if *update {
			g.write(t)
		}
		want := readGolden(t, g.snapshot)
		m := restore(t, want)
		if got := snapshotBytes(t, m); !bytes.Equal(got, want) {
			t.Errorf("%s: got  %s\nwant %s", g.snapshot, got, want)
		}
		if got := m.View().Digest(); got != g.digest {
			t.Errorf("%s: got digest %s, want %s", g.snapshot, got, g.digest)
		}
		checkInvariants(t, m.View())
	}
}

func TestGoldenLogs(t *testing.T) {
	for _, g := range goldens() {
		r, log, commands := newReplica(), g.lines(t), g.commands()
		if got, want := len(log), len(commands); got != want {
			t.Fatalf("%s: got %d commands, want %d", g.log, got, want)
		}
		for i, data := range log {
			r.applyData(t, uint64(i+1), data)
			if want := encode(t, commands[i]); !bytes.Equal(data, want) {
				t.Errorf("%s: command %d is now written otherwise:\n got %s\nwant %s", g.log, i, want, data)
			}
		}
		if got, want := snapshotBytes(t, r.Machine), readGolden(t, g.snapshot); !bytes.Equal(got, want) {
			t.Errorf("%s: got  %s\nwant %s", g.log, got, want)
		}
	}
}
