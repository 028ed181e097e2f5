package main

import (
	"encoding/json"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A node of each role is stopped in its tracks, for a moment or for long, and goes
// on without knowing.
func pauseAnyRole(t *testing.T) {
	tr := startTrial(t, newLBs(t, 3))
	var healed []time.Duration
	for _, d := range amount([]time.Duration{200 * time.Millisecond, time.Second, 5 * time.Second},
		[]time.Duration{200 * time.Millisecond, time.Second, 5 * time.Second, 30 * time.Second}) {
		for _, role := range []string{"leader", "follower"} {
			lead, followers := roles(t, tr.nodes)
			victim := map[string]*lb{"leader": lead, "follower": followers[0]}[role]
			tr.load.spare(t, victim)
			clients := tr.journal.startWriting(tr.nodes, 6)
			victim.cmd.Process.Signal(syscall.SIGSTOP)
			hold(t, d)
			clients.halt()
			victim.cmd.Process.Signal(syscall.SIGCONT)
			took := whole(t, tr.nodes)
			t.Logf("%s paused for %s: whole again after %s", role, d, took.Round(time.Millisecond))
			healed = append(healed, took)
			clients.stop()
			tr.load.include(victim)
		}
	}
	tr.end(t, "whole again after a pause "+spread(healed))
}

// The wall clock of a node of each role moves by hours, both ways, while it runs
// and while it starts.
func moveClock(t *testing.T) {
	nodes := newLBs(t, 3, "-secret", newSecret(t))
	binary := buildWithMovedClock(t)
	for _, n := range nodes {
		n.binary, n.env = binary, []string{movedClock + "=" + filepath.Join(t.TempDir(), "offset")}
		n.moveClock(t, 0)
	}
	tr := startTrial(t, nodes)
	clients := tr.journal.startWriting(nodes, 3)
	for _, role := range []string{"leader", "follower"} {
		for _, by := range []time.Duration{3 * time.Hour, -5 * time.Hour, 0} {
			lead, followers := roles(t, nodes)
			victim := map[string]*lb{"leader": lead, "follower": followers[0]}[role]
			victim.moveClock(t, by)
			eventually(t, patience, "the clock moves", func() bool { return (victim.clock(t) - by).Abs() < time.Hour })
			hold(t, amount(time.Second, 20*time.Second))
		}
	}
	lead, _ := roles(t, nodes)
	tr.load.spare(t, lead)
	lead.kill()
	lead.moveClock(t, -5*time.Hour)
	lead.start()
	clients.stop()
	whole(t, nodes)
	tr.load.include(lead)
	tr.end(t, "clocks moved by hours, one of them before a restart")
}

// movedClock in the environment names a file with the seconds to add to the time.
// Only a binary of buildWithMovedClock looks at it.
const movedClock = "LBNODE_TEST_CLOCK"

// moveClock sets how far the node's clock is from the true time.
func (n *lb) moveClock(t *testing.T, by time.Duration) {
	t.Helper()
	_, path, _ := strings.Cut(n.env[0], "=")
	temp := path + ".new"
	if err := os.WriteFile(temp, strconv.AppendInt(nil, int64(by/time.Second), 10), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(temp, path); err != nil {
		t.Fatal(err)
	}
}

// clock is how far the node's clock is from the true time, by what it tells its
// clients.
func (n *lb) clock(t *testing.T) time.Duration {
	t.Helper()
	response, err := http.Get("http://" + n.admin + "/livez")
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	says, err := http.ParseTime(response.Header.Get("Date"))
	if err != nil {
		t.Fatalf("%s tells no date: %v", n.name, err)
	}
	return time.Until(says)
}

// clockSource goes into package time: seconds, read from a file every 100 ms, that
// are added to the wall clock. The monotonic clock goes on as it is. The runtime
// calls time.Now where nothing can wait or grow its stack, so a goroutine reads.
const clockSource = `
var moved atomic.Int64

func init() { go readMoved() }

func readMoved() {
	name, known := syscall.Getenv("` + movedClock + `")
	for ; known; Sleep(100 * Millisecond) {
		if text, err := readFile(name); err == nil {
			if seconds, err := atoi(string(text)); err == nil {
				moved.Store(int64(seconds))
			}
		}
	}
}
`

// buildWithMovedClock builds lbnode with another time.Now. No library can be put
// in its way: Go reads the clock without one.
func buildWithMovedClock(t *testing.T) string {
	t.Helper()
	root, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		t.Skip("needs the go command: ", err)
	}
	original := filepath.Join(strings.TrimSpace(string(root)), "src", "time", "time.go")
	source, err := os.ReadFile(original)
	if err != nil {
		t.Skip("needs the source of package time: ", err)
	}
	dir := t.TempDir()
	changed, overlay, binary := filepath.Join(dir, "time.go"), filepath.Join(dir, "overlay.json"), filepath.Join(dir, "lbnode")
	list, err := json.Marshal(map[string]map[string]string{"Replace": {original: changed}})
	if err != nil {
		t.Fatal(err)
	}
	for path, text := range map[string]string{changed: withMovedClock(t, string(source)), overlay: string(list)} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := exec.Command("go", "build", "-overlay", overlay, "-o", binary, ".").CombinedOutput(); err != nil {
		t.Fatalf("cannot build with another clock: %v: %s", err, out)
	}
	return binary
}

// withMovedClock changes the source of package time.
func withMovedClock(t *testing.T, source string) string {
	t.Helper()
	for old, with := range map[string]string{
		"sec, nsec, mono := runtimeNow()\n": "sec, nsec, mono := runtimeNow()\n\tsec += moved.Load()\n",
		"\t\"math/bits\"\n":                 "\t\"math/bits\"\n\t\"sync/atomic\"\n\t\"syscall\"\n",
	} {
		if strings.Count(source, old) != 1 {
			t.Skipf("package time of %s is not as expected: it does not have %q once", runtime.Version(), old)
		}
		source = strings.Replace(source, old, with, 1)
	}
	return source + clockSource
}

// newSecret makes a secret file.
func newSecret(t *testing.T) string {
	t.Helper()
	keygen := exec.Command(os.Args[0], "keygen")
	keygen.Env = append(os.Environ(), runMain+"=1")
	text, err := keygen.Output()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
