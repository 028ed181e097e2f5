package main

import (
	"fmt"
	"strings"
	"testing"

	"lbnode/cluster"
)

// TestOutcomeOfCommands: exit code 1, and the line says which of the two it is.
func TestOutcomeOfCommands(t *testing.T) {
	c := soloAPI(t)
	mustRun(t, "backend add web-1 http://10.0.0.11:8080")
	mustRun(t, "route add /x default")
	for _, line := range []struct{ command, look string }{
		{"backend add web-2 http://10.0.0.12:8080", "lbnode backend ls"},
		{"backend set web-1 drain", "lbnode backend ls"},
		{"backend rm web-1", "lbnode backend ls"},
		{"route add /y default", "lbnode route ls"},
		{"route rm /x", "lbnode route ls"},
	} {
		c.refuse(fmt.Errorf("%w: 1 of 3 voters is alive", cluster.ErrNoLeader))
		_, err := lbnode(t, line.command)
		if exitCode(err) != 1 || !strings.HasPrefix(err.Error(), "cannot ") || !strings.Contains(err.Error(), "the change has not happened: no leader: 1 of 3") ||
			!strings.Contains(err.Error(), "may be repeated") {
			t.Errorf("%s, not taken: got exit code %d, %v", line.command, exitCode(err), err)
		}
		c.refuse(fmt.Errorf("%w: gave up after 1.9s", cluster.ErrUnknownOutcome))
		_, err = lbnode(t, line.command)
		if exitCode(err) != 1 || strings.Contains(err.Error(), "cannot") || !strings.Contains(err.Error(), "the change may have happened") ||
			!strings.Contains(err.Error(), line.look) || strings.Contains(err.Error(), "Idempotency-Key") {
			t.Errorf("%s, outcome unknown: got exit code %d, %v", line.command, exitCode(err), err)
		}
	}
}

func TestStatusPrintsWarnings(t *testing.T) {
	c := soloAPI(t)
	c.status.Warnings = []string{"two voters tolerate no failure", "lb1: the disk is slow"}
	got := mustRun(t, "status") // a warning does not change the exit code
	if want := "\nwarning: two voters tolerate no failure\nwarning: lb1: the disk is slow\n"; !strings.Contains(got, want) {
		t.Errorf("got %s\nwant in it %s", got, want)
	}
	if got := mustRun(t, "status -o json"); !strings.Contains(got, `"lb1: the disk is slow"`) {
		t.Errorf("got %s, want the warnings", got)
	}
}
