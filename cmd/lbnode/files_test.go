package main

import (
	"fmt"
	"os"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"
)

// Whatever the limit is, the shares fit into it, and no share is too small to be of use.
func TestFilesAreSharedOut(t *testing.T) {
	for limit, want := range map[uint64]fileShares{
		640:         {clients: 32, admin: 128, probes: 32},
		1024:        {clients: 224, admin: 128, probes: 32},
		4096:        {clients: 1_472, admin: 512, probes: 128},
		12_000:      {clients: 4_683, admin: 1500, probes: 375},
		1_048_576:   {clients: 521_298, admin: 1500, probes: 2048},
		^uint64(0):  {clients: 1_073_738_833, admin: 1500, probes: 2048},
		1<<63 | 100: {clients: 1_073_738_833, admin: 1500, probes: 2048},
	} {
		got, err := shareFiles(limit)
		if err != nil || got != want {
			t.Errorf("%d: got %+v, %v; want %+v", limit, got, err, want)
		}
		if uint64(2*got.clients+got.admin+filesOfProbe*got.probes+ownFiles) > limit {
			t.Errorf("%d: the shares %+v are more than that", limit, got)
		}
	}
	for _, limit := range []uint64{0, 64, 639} {
		if _, err := shareFiles(limit); err == nil || !strings.Contains(err.Error(), fmt.Sprint(limit)) || !strings.Contains(err.Error(), "LimitNOFILE=") {
			t.Errorf("%d: got %v, want it refused, and how it is raised", limit, err)
		}
	}
}

// A node raises its limit to what it may, refuses one with which it is of no use, and
// warns of one with which it is of little.
func TestLimitOnOpenFiles(t *testing.T) {
	t.Parallel()
	few := newLBs(t, 1)[0]
	few.withFiles(100)
	few.start()
	if code, out := few.exit(30 * time.Second); code != 1 || !strings.Contains(out, "limit on open files is 100") {
		t.Errorf("got exit code %d, want 1 and the limit named:\n%s", code, out)
	}
	tight := newLBs(t, 1, "-max-connections", "5000")[0]
	tight.withFiles(1024)
	low := newLBs(t, 1)[0]
	low.withFiles(1024)
	soft := newLBs(t, 1)[0]
	soft.under = []string{"sh", "-c", `ulimit -S -n 100; exec "$@"`, "sh"}
	nodes := []*lb{tight, low, soft}
	startAll(nodes)
	eventually(t, 30*time.Second, "they run", func() bool {
		return every(nodes, func(n *lb) bool { v := n.view(); return v != nil && v.Healthy })
	})
	for n, want := range map[*lb]string{tight: "allowed=224", low: "connections=224"} {
		if text, err := os.ReadFile(n.log); err != nil || !strings.Contains(string(text), want) || !strings.Contains(string(text), "level=WARN") {
			t.Errorf("%s, %v; want a warning with %s", text, err, want)
		}
	}
	if runtime.GOOS != "linux" {
		return
	}
	limits, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", soft.cmd.Process.Pid))
	line := regexp.MustCompile(`(?m)^Max open files +(\d+) +(\d+)`).FindStringSubmatch(string(limits))
	if err != nil || line == nil || len(line[1]) < len("640") || line[1] == "100" {
		t.Errorf("got %v, %v; want the soft limit raised", line, err)
	}
}

// withFiles has a process run with that limit on open files.
func (p *process) withFiles(limit int) {
	p.under = []string{"sh", "-c", fmt.Sprintf(`ulimit -n %d; exec "$@"`, limit), "sh"}
}
