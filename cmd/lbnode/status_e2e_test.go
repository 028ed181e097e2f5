package main

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// crashStatus is what Go's runtime ends a process with after a panic or SIGABRT.
const crashStatus = 2

// unit returns the values of a setting of the systemd unit.
func unit(t *testing.T, setting string) []string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root(t), "deploy", "systemd", "lbnode.service"))
	if err != nil {
		t.Fatal(err)
	}
	line := regexp.MustCompile(`(?m)^` + setting + `=(.*)$`).FindSubmatch(text)
	if line == nil {
		t.Fatalf("the unit has no %s", setting)
	}
	return strings.Fields(string(line[1]))
}

// The unit starts a node again after all ends but those that would come again, of which
// a crash must not have the status.
func TestUnitStartsCrashedNodesAgain(t *testing.T) {
	t.Parallel()
	final := unit(t, "RestartPreventExitStatus")
	if want := []string{strconv.Itoa(exitCode(errUsage))}; !slices.Equal(final, want) {
		t.Errorf("after the statuses %v the unit does not start a node again, want %v: a wrong flag stays wrong", final, want)
	}
	if got := unit(t, "Restart"); !slices.Equal(got, []string{"on-failure"}) {
		t.Errorf("got Restart=%v, want on-failure: a node that left does not come back", got)
	}
	wrong := newProcess(t, "wrong", "-jion", "lb1")
	wrong.start()
	if code, out := wrong.exit(30 * time.Second); strconv.Itoa(code) != final[0] {
		t.Errorf("got exit code %d for a wrong flag, want %s:\n%s", code, final[0], out)
	}
	forced := unit(t, "RestartForceExitStatus")
	for _, s := range []struct {
		signal syscall.Signal
		name   string
	}{{syscall.SIGABRT, "SIGABRT"}, {syscall.SIGSEGV, "SIGSEGV"}, {syscall.SIGPIPE, "SIGPIPE"}, {syscall.SIGHUP, "SIGHUP"}} {
		n := newLBs(t, 1)[0]
		n.start()
		eventually(t, 30*time.Second, "it runs", func() bool { v := n.view(); return v != nil && v.Healthy })
		n.cmd.Process.Signal(s.signal)
		if clean := s.signal == syscall.SIGPIPE || s.signal == syscall.SIGHUP; clean {
			if !slices.Contains(forced, s.name) {
				t.Errorf("the unit takes the end by %s for a clean one, and would not start the node again", s.name)
			}
			eventually(t, 30*time.Second, "it goes on after "+s.name, func() bool { return n.view() != nil })
			continue
		}
		code, out := n.exit(30 * time.Second)
		if slices.Contains(final, strconv.Itoa(code)) || code == 0 || code != crashStatus {
			t.Errorf("%s: got exit code %d, want %d, after which the unit starts it again:\n%s", s.name, code, crashStatus, lastLines([]byte(out), 5))
		}
	}
}

// No status of ours is that of a crash.
func TestStatusesAreNoCrash(t *testing.T) {
	seen := map[int]error{}
	for _, err := range []error{nil, errUsage, errDegraded, os.ErrNotExist} {
		code := exitCode(err)
		if other, twice := seen[code]; code == crashStatus || twice {
			t.Errorf("%v has exit code %d, which is that of a crash or of %v", err, code, other)
		}
		seen[code] = err
	}
}
