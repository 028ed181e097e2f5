package main

import (
	"bytes"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// countLines counts the lines of a file, each of which must be JSON that names the
// node; 0 if there is no file.
func countLines(t *testing.T, file string) int {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		return 0
	}
	for line := range bytes.Lines(text) {
		var l struct{ Node, End string }
		if err := json.Unmarshal(line, &l); err != nil || l.Node != "lb1" || l.End != "no_backend" && l.End != "no_view" {
			t.Fatalf("%s: got %s, %v; want a line of lb1 that says that there is no backend, or no view yet", file, line, err)
		}
	}
	return bytes.Count(text, []byte("\n"))
}

// The access log is moved away and opened anew while requests flow, and none of them
// is missing, the last one before the node stops included.
func TestAccessLogIsRotated(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "access.log")
	old := file + ".1"
	n := newLBs(t, 1, "-access-log", file)[0]
	n.start()
	eventually(t, 30*time.Second, "it runs", func() bool { v := n.view(); return v != nil && v.Healthy })
	ask := func(count int) {
		for range count {
			res, err := http.Get("http://" + n.http)
			if err != nil {
				t.Fatal(err)
			}
			res.Body.Close()
		}
	}
	ask(20)
	if err := os.Rename(file, old); err != nil {
		t.Fatal(err)
	}
	ask(5)
	if err := n.cmd.Process.Signal(syscall.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	eventually(t, 10*time.Second, "there is a new file", func() bool { _, err := os.Stat(file); return err == nil })
	ask(10)
	n.cmd.Process.Signal(syscall.SIGTERM)
	if code, out := n.exit(30 * time.Second); code != 0 {
		t.Fatalf("got exit code %d:\n%s", code, out)
	}
	if before, after := countLines(t, old), countLines(t, file); before+after != 35 || after < 10 {
		t.Errorf("got %d and %d lines, want 35 together, the last 10 in the new file", before, after)
	}
}

// Without an access log the signal to open it anew does not end the node.
func TestNothingToOpenAnew(t *testing.T) {
	t.Parallel()
	n := newLBs(t, 1)[0]
	n.start()
	eventually(t, 30*time.Second, "it runs", func() bool { v := n.view(); return v != nil && v.Healthy })
	if err := n.cmd.Process.Signal(syscall.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	eventually(t, 10*time.Second, "it says so", func() bool {
		text, err := os.ReadFile(n.log)
		return err == nil && bytes.Contains(text, []byte("nothing to open anew"))
	})
	if n.view() == nil {
		t.Error("the node no longer answers")
	}
}
