package main

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// newTestCrew returns a crew of two backends that are this program.
func newTestCrew(t *testing.T, out *transcript) *crew {
	t.Helper()
	t.Setenv(runMain, "1")
	var members []demoMember
	for _, name := range []string{"web-1", "web-2"} {
		members = append(members, demoMember{name, []string{"demo", "backend", name, freeAddr(t)}})
	}
	c := newCrew(members, os.Args[:1], out.say)
	t.Cleanup(func() {
		c.stop([]string{"web-1", "web-2"})
		c.close()
	})
	return c
}

func waitListening(t *testing.T, addr string, want bool) {
	t.Helper()
	eventually(t, 10*time.Second, fmt.Sprintf("%s listening: %t", addr, want), func() bool {
		conn, err := net.Dial("tcp", addr)
		if err == nil {
			conn.Close()
		}
		return (err == nil) == want
	})
}

func TestCrewKillsAndStartsAgain(t *testing.T) {
	out := &transcript{}
	c := newTestCrew(t, out)
	addr := c.members[0].args[3]
	for range 3 {
		if err := c.start("web-1"); err != nil {
			t.Fatal(err)
		}
		waitListening(t, addr, true)
		if err := c.kill("web-1"); err != nil {
			t.Fatal(err)
		}
		waitListening(t, addr, false)
	}
	if got := out.String(); got != "" {
		t.Errorf("got output %q, want none: all that happened was asked for", got)
	}
}

func TestCrewTellsOfAnUnexpectedEnd(t *testing.T) {
	out := &transcript{}
	c := newTestCrew(t, out)
	c.members[0].args = []string{"demo", "backend", "web-1", "127.0.0.1:99999"}
	if err := c.start("web-1"); err != nil {
		t.Fatal(err)
	}
	if got := <-c.lost; got != "web-1" {
		t.Errorf("got %s lost, want web-1", got)
	}
	got := out.String()
	if !strings.HasPrefix(got, "web-1 has stopped by itself (exit status 1)\n          lbnode: cannot listen for web-1") {
		t.Errorf("got %q, want the end of web-1 and its last words", got)
	}
	if err := c.start("web-1"); err != nil {
		t.Errorf("got error %v when it is started again, want none", err)
	}
}

func TestCrewStops(t *testing.T) {
	out := &transcript{}
	c := newTestCrew(t, out)
	c.grace = 100 * time.Millisecond
	if err := c.startAll([]string{"web-1", "web-2"}); err != nil {
		t.Fatal(err)
	}
	for _, m := range c.members {
		waitListening(t, m.args[3], true)
		if err := c.running[m.name].cmd.Process.Signal(syscall.SIGSTOP); err != nil {
			t.Fatal(err) // SIGTERM waits until the process is continued, which it never is
		}
	}
	c.stop([]string{"web-1", "web-2"})
	want := "web-1 did not stop within 100ms; killing it\nweb-2 did not stop within 100ms; killing it\n"
	if got := out.String(); got != want {
		t.Errorf("got output %q, want %q", got, want)
	}
	if err := c.start("web-1"); err == nil || !strings.Contains(err.Error(), "is stopping") {
		t.Errorf("start after stop: got error %v, want a refusal", err)
	}
}

// TestChildrenOutliveTheThreadThatAsked has a thread die that asked for a child:
// the kernel takes the thread that forks, not the process, for the parent.
func TestChildrenOutliveTheThreadThatAsked(t *testing.T) {
	out := &transcript{}
	c := newTestCrew(t, out)
	started := make(chan error)
	go func() {
		runtime.LockOSThread() // without Unlock: the thread ends with the goroutine
		started <- c.start("web-1")
	}()
	if err := <-started; err != nil {
		t.Fatal(err)
	}
	waitListening(t, c.members[0].args[3], true)
	select {
	case name := <-c.lost:
		t.Errorf("%s died with a thread", name)
	case <-time.After(200 * time.Millisecond):
	}
}

// orphanAddr in the environment makes TestOrphanHelper start a backend there and
// then wait to be killed.
const orphanAddr = "LBNODE_TEST_ORPHAN_ADDR"

func TestOrphanHelper(t *testing.T) {
	addr := os.Getenv(orphanAddr)
	if addr == "" {
		t.Skip("the other half of TestNoChildOutlivesTheDemo")
	}
	c := newTestCrew(t, &transcript{})
	c.members[0].args[3] = addr
	if err := c.start("web-1"); err != nil {
		t.Fatal(err)
	}
	waitListening(t, addr, true)
	fmt.Println("started")
	<-t.Context().Done()
}

func TestNoChildOutlivesTheDemo(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("only Linux ends a child with its parent")
	}
	addr := freeAddr(t)
	cmd := exec.Command(os.Args[0], "-test.run=^TestOrphanHelper$")
	cmd.Env = append(os.Environ(), orphanAddr+"="+addr)
	output, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(output)
	for lines.Scan() && lines.Text() != "started" {
	}
	waitListening(t, addr, true)
	cmd.Process.Kill()
	cmd.Wait()
	waitListening(t, addr, false)
}

func TestWithoutSettings(t *testing.T) {
	env := []string{"HOME=/h", "LBNODE_JOIN=a", "LBNODE_DATA_DIR=/d", "LBNODE_OTHER=x", "PATH=/p"}
	want := []string{"HOME=/h", "LBNODE_OTHER=x", "PATH=/p"}
	if got := withoutSettings(env); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestLastWords(t *testing.T) {
	for _, test := range []struct{ text, want string }{
		{"", ""},
		{"one\n", "\n          one"},
		{"1\n2\n3\n4\n5\n6\n", "\n          2\n          3\n          4\n          5\n          6"},
		{"x\n" + strings.Repeat("y", 2*keptBytes), "\n          " + strings.Repeat("y", keptBytes)},
	} {
		w := &lastWords{}
		for piece := range slices.Chunk([]byte(test.text), 100) {
			w.Write(piece)
		}
		if got := w.String(); got != test.want {
			t.Errorf("after %.20q: got %.80q, want %.80q", test.text, got, test.want)
		}
	}
}
