//go:build linux

package main

import (
	"os"
	"slices"
	"testing"
	"time"
)

func TestParseStat(t *testing.T) {
	const rest = " S 7 42 42 0 -1 4194560 1185 0 0 0 12 34 5 6 20 0 1 0 1000 10485760 700\n"
	for _, name := range []string{"(nginx)", "(a b)", "(a) R 9 (b)", "()"} {
		got, err := parseStat([]byte("42 " + name + rest))
		want := stat{pid: 42, parent: 7, own: 460 * time.Millisecond, ended: 110 * time.Millisecond}
		if err != nil || got != want {
			t.Errorf("%s: got %+v, %v, want %+v", name, got, err, want)
		}
	}
	for _, text := range []string{"", "42", "42 (a", "42 (a) S 7 1", "x (a)" + rest, ") 42 ("} {
		if got, err := parseStat([]byte(text)); err == nil {
			t.Errorf("%q: got %+v, want an error", text, got)
		}
	}
}

func TestFamily(t *testing.T) {
	// The grandchild is listed before its parent, and 9 belongs to another.
	all := []stat{{pid: 4, parent: 3}, {pid: 2, parent: 1}, {pid: 3, parent: 2}, {pid: 9, parent: 1}}
	var got []int
	for _, s := range family(all, 2) {
		got = append(got, s.pid)
	}
	if want := []int{4, 2, 3}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestParsePSS(t *testing.T) {
	got, err := parsePSS("00400000-7ffd rollup\nRss:    5000 kB\nPss:        1234 kB\nPss_Dirty:  900 kB\n")
	if err != nil || got != 1234<<10 {
		t.Errorf("got %d, %v, want %d", got, err, 1234<<10)
	}
	for _, text := range []string{"", "Rss: 5000 kB\n", "Pss: many kB\n"} {
		if got, err := parsePSS(text); err == nil {
			t.Errorf("%q: got %d, want an error", text, got)
		}
	}
}

func TestOwnProcessIsMeasured(t *testing.T) {
	before, err := cpuTime(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(10 * time.Second)
	for {
		after, err := cpuTime(os.Getpid())
		if err != nil {
			t.Fatal(err)
		}
		if after > before {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("got %s after 10 s of work, want more than the %s before", after, before)
		}
	}
	if size, err := memory(os.Getpid()); err != nil || size < 1<<20 {
		t.Errorf("got %d bytes, %v, want at least a MiB", size, err)
	}
}

func TestEndedProcessIsAnError(t *testing.T) {
	const none = 1 << 30 // above the greatest id
	if got, err := cpuTime(none); err == nil {
		t.Errorf("CPU time: got %s, want an error", got)
	}
	if got, err := memory(none); err == nil {
		t.Errorf("memory: got %d, want an error", got)
	}
}
