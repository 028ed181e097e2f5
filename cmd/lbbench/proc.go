//go:build linux

package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"time"
)

// tick is the unit of times in /proc/PID/stat. Linux shows 100 a second to
// programs on every architecture that Go runs on.
const tick = 10 * time.Millisecond

// stat is what we need of /proc/PID/stat.
type stat struct {
	pid, parent int
	own         time.Duration // user and system time of the process
	ended       time.Duration // the same of its children that have ended
}

// parseStat reads the content of a /proc/PID/stat. The name in parentheses may
// hold blanks and parentheses itself, so fields are counted from its end.
func parseStat(content []byte) (stat, error) {
	open, end := bytes.IndexByte(content, '('), bytes.LastIndexByte(content, ')')
	if open < 0 || end < open {
		return stat{}, fmt.Errorf("cannot parse process state %q: no name in parentheses", content)
	}
	fields := strings.Fields(string(content[end+1:]))
	const need = 15 // up to cstime, the 17th field of the whole
	if len(fields) < need {
		return stat{}, fmt.Errorf("cannot parse process state %q: %d fields after the name, want %d", content, len(fields), need)
	}
	var n [6]int
	for i, field := range []string{strings.TrimSpace(string(content[:open])), fields[1], fields[11], fields[12], fields[13], fields[14]} {
		var err error
		if n[i], err = strconv.Atoi(field); err != nil {
			return stat{}, fmt.Errorf("cannot parse process state %q: %w", content, err)
		}
	}
	return stat{pid: n[0], parent: n[1], own: tick * time.Duration(n[2]+n[3]), ended: tick * time.Duration(n[4]+n[5])}, nil
}

// readStats returns the state of all processes of the machine.
func readStats() ([]stat, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("cannot list processes: %w", err)
	}
	var all []stat
	for _, e := range entries {
		if _, err := strconv.Atoi(e.Name()); err != nil {
			continue
		}
		content, err := os.ReadFile("/proc/" + e.Name() + "/stat")
		if err != nil {
			continue // it has ended meanwhile
		}
		s, err := parseStat(content)
		if err != nil {
			return nil, err
		}
		all = append(all, s)
	}
	return all, nil
}

// family returns, of all, the process and those that descend from it.
func family(all []stat, root int) []stat {
	inside := map[int]bool{root: true}
	for grown := true; grown; {
		grown = false
		for _, s := range all {
			if inside[s.parent] && !inside[s.pid] {
				inside[s.pid], grown = true, true
			}
		}
	}
	var members []stat
	for _, s := range all {
		if inside[s.pid] {
			members = append(members, s)
		}
	}
	return members
}

// cpuTime returns the time that a process and all its descendants, also those
// that have ended, have spent on a CPU.
func cpuTime(root int) (time.Duration, error) {
	all, err := readStats()
	if err != nil {
		return 0, err
	}
	members := family(all, root)
	if len(members) == 0 {
		return 0, fmt.Errorf("cannot read the CPU time of process %d: it has ended", root)
	}
	var sum time.Duration
	for _, s := range members {
		sum += s.own + s.ended
	}
	return sum, nil
}

// memory returns the proportional set size of a process and its descendants, in
// bytes: pages that they share count once.
func memory(root int) (int64, error) {
	all, err := readStats()
	if err != nil {
		return 0, err
	}
	var sum int64
	for _, s := range family(all, root) {
		content, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", s.pid))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return 0, fmt.Errorf("cannot read the memory of process %d: %w", s.pid, err)
		}
		size, err := parsePSS(string(content))
		if err != nil {
			return 0, fmt.Errorf("cannot read the memory of process %d: %w", s.pid, err)
		}
		sum += size
	}
	if sum == 0 {
		return 0, fmt.Errorf("cannot read the memory of process %d: it has ended", root)
	}
	return sum, nil
}

// parsePSS returns the bytes of the line `Pss:` in a smaps_rollup.
func parsePSS(content string) (int64, error) {
	for line := range strings.Lines(content) {
		value, ok := strings.CutPrefix(line, "Pss:")
		if !ok {
			continue
		}
		kib, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
		if err != nil {
			return 0, fmt.Errorf("cannot parse %q: %w", line, err)
		}
		return kib << 10, nil
	}
	return 0, errors.New("no line begins with Pss: (the kernel must be 4.14 or newer)")
}
