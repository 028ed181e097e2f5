//go:build linux

package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"lbnode/state"
)

// newPipe returns the two ends of a pipe that the test closes.
func newPipe(t *testing.T) (reader, writer *os.File) {
	t.Helper()
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { reader.Close(); writer.Close() })
	return reader, writer
}

// fill writes to a pipe until it takes no more.
func fill(t *testing.T, pipe *os.File) {
	t.Helper()
	// Opened anew, because only this use of the pipe may not block.
	fd, err := syscall.Open(fmt.Sprintf("/proc/self/fd/%d", pipe.Fd()), syscall.O_WRONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(fd)
	chunk := bytes.Repeat([]byte{'\n'}, os.Getpagesize())
	for err == nil {
		_, err = syscall.Write(fd, chunk)
	}
	if err != syscall.EAGAIN {
		t.Fatal(err)
	}
}

// follows checks that a node goes by what is written to it: its traffic, its view, its
// metrics.
func follows(t *testing.T, n *lb) {
	t.Helper()
	for _, admin := range []state.Admin{state.Maint, state.Ready, state.Maint} {
		code, answer := call(t, "PATCH", "http://"+n.admin+"/v1/pools/default/backends/web-1", `{"admin":"`+string(admin)+`"}`)
		if code != http.StatusOK {
			t.Fatalf("got %d %v for a change to %s, want 200", code, answer, admin)
		}
		want := http.StatusOK
		if admin == state.Maint {
			want = http.StatusServiceUnavailable
		}
		eventually(t, 20*time.Second, "traffic follows "+string(admin), func() bool { return statusOf(t, "http://"+n.http) == want })
	}
}

// startServing starts a node that has a healthy backend.
func startServing(t *testing.T, n *lb) {
	t.Helper()
	backend, addr := newBackend(t, "web-1")
	backend.start()
	n.start()
	eventually(t, 30*time.Second, "it runs", func() bool { v := n.view(); return v != nil && v.Healthy })
	if code, answer := call(t, "POST", "http://"+n.admin+"/v1/pools/default/backends", `{"name":"web-1","url":"http://`+addr+`"}`); code != http.StatusCreated {
		t.Fatalf("got %d %v, want 201", code, answer)
	}
	eventually(t, 30*time.Second, "it serves", func() bool { return statusOf(t, "http://"+n.http) == http.StatusOK })
}

// metric is the sum of a metric of the node over its labels.
func metric(t *testing.T, n *lb, name string) (sum float64) {
	t.Helper()
	response, err := impatient.Get("http://" + n.admin + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	for _, match := range regexp.MustCompile(`(?m)^`+name+`(?:\{.*\})? (\S+)$`).FindAllSubmatch(text, -1) {
		value, err := strconv.ParseFloat(string(match[1]), 64)
		if err != nil {
			t.Fatal(err)
		}
		sum += value
	}
	return sum
}

// terminates tells a node to stop and checks that it does.
func terminates(t *testing.T, n *lb) {
	t.Helper()
	n.cmd.Process.Signal(syscall.SIGTERM)
	if code, out := n.exit(60 * time.Second); code != 0 || n.cmd.ProcessState.Sys().(syscall.WaitStatus).Signaled() {
		t.Errorf("got exit code %d (%s), want 0:\n%s", code, n.cmd.ProcessState, out)
	}
}

// Who read the log, and the access log, has gone, as when journald starts anew.
func TestNodeOutlivesWhoReadsItsLog(t *testing.T) {
	t.Parallel()
	n := newLBs(t, 1, "-access-log", "-", "-log-level", "debug", "-lame-duck", "0s")[0]
	var reader, output *os.File
	reader, n.stderr = newPipe(t)
	output, n.stdout = newPipe(t)
	startServing(t, n)
	reader.Close()
	output.Close()
	n.stderr.Close()
	n.stdout.Close()
	follows(t, n)
	eventually(t, 20*time.Second, "what is lost is counted", func() bool {
		return metric(t, n, "lbnode_log_dropped_total") > 0 && metric(t, n, "lbnode_access_log_dropped_total") > 0
	})
	terminates(t, n)
}

// Who reads the log, and all else that is printed, has stopped to.
func TestNodeWaitsForNobodyWhoReadsItsLog(t *testing.T) {
	t.Parallel()
	n := newLBs(t, 1, "-access-log", "-", "-log-level", "debug", "-lame-duck", "0s")[0]
	var reader *os.File
	reader, n.stderr = newPipe(t)
	_, n.stdout = newPipe(t)
	fill(t, n.stdout) // before there is a node: its first line is one too many
	startServing(t, n)
	fill(t, n.stderr)
	follows(t, n)
	n.cmd.Process.Signal(syscall.SIGUSR1)

	n.stderr.Close() // so that the log ends with the node
	read := make(chan []byte)
	go func() {
		text, _ := io.ReadAll(reader)
		read <- text
	}()
	terminates(t, n)
	if text := string(<-read); !strings.Contains(text, "changed on request") {
		t.Errorf("the lines that waited are not in the log once somebody reads it:\n%s", lastLines([]byte(text), 20))
	}
}

// A node ends although nobody reads its log, also because of an error.
func TestNodeEndsUnread(t *testing.T) {
	t.Parallel()
	n := newLBs(t, 1, "-lame-duck", "0s")[0]
	_, n.stderr = newPipe(t)
	fill(t, n.stderr)
	startServing(t, n)
	terminates(t, n)

	reader, writer := newPipe(t)
	fill(t, writer)
	late := newProcess(t, "late", "-http", "256.0.0.1:99999", "-data-dir", t.TempDir())
	late.stderr = writer
	late.start()
	writer.Close()
	if text, err := io.ReadAll(reader); err != nil || !strings.Contains(string(text), "lbnode: cannot listen") {
		t.Errorf("got %q, %v from a node that cannot listen, want the error once somebody reads it", bytes.TrimSpace(text), err)
	}

	failing := newProcess(t, "failing", "-http", "256.0.0.1:99999", "-data-dir", t.TempDir())
	failing.stderr = n.stderr
	failing.start()
	if code, out := failing.exit(30 * time.Second); code != 1 {
		t.Errorf("got exit code %d from a node that cannot listen, want 1:\n%s", code, out)
	}
}

// A crash is not kept waiting by a log that nobody reads: a process that hangs in it
// would hold its ports and answer nobody.
func TestNodeCrashesUnread(t *testing.T) {
	t.Parallel()
	n := newLBs(t, 1)[0]
	_, n.stderr = newPipe(t)
	startServing(t, n)
	fill(t, n.stderr)
	n.cmd.Process.Signal(syscall.SIGABRT)
	if code, out := n.exit(30 * time.Second); code != crashStatus {
		t.Errorf("got exit code %d (%s), want %d:\n%s", code, n.cmd.ProcessState, crashStatus, out)
	}
}

// A command whose output nobody reads ends at once and says nothing.
func TestCommandsInPipes(t *testing.T) {
	t.Parallel()
	n := newLBs(t, 1)[0]
	startServing(t, n)
	for _, line := range []string{`"$0" status -admin "$1" | head -1`, `"$0" help | head -1`, `"$0" members -admin "$1" | true`} {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		cmd := exec.CommandContext(ctx, "sh", "-c", line, os.Args[0], n.admin)
		cmd.Env = append(os.Environ(), runMain+"=1")
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		if err := cmd.Run(); err != nil || stderr.Len() > 0 {
			t.Errorf("%s: got %v and %q on standard error, want nothing", line, err, stderr.String())
		}
	}
}
