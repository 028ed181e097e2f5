package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"lbnode/cluster/admin"
)

const runbookDir = "../../deploy/runbooks"

// runbookCase is what a runbook is for, and how to see that it helped.
type runbookCase struct {
	file string
	// happens makes what the runbook is for happen to a healthy site.
	happens func(s *site)
	// then happens after so many blocks of commands, if any.
	then map[int]func(s *site)
	// helped says whether all is well at the end.
	helped func(v *admin.ClusterView) bool
	slow   bool // only with -long
}

var runbookCases = []runbookCase{
	{
		file: "replace-a-node.md",
		happens: func(s *site) {
			s.machines[2].wipe()
			s.await("the loss is known", s.machines[:1], func(v *admin.ClusterView) bool { return status(v, "lb3") == "failed" })
		},
		helped: wellWith(2),
	},
	{
		file: "lost-quorum.md",
		happens: func(s *site) {
			s.machines[1].crash()
			s.machines[2].crash()
			s.await("the quorum is lost", s.machines[:1], func(v *admin.ClusterView) bool {
				return v.Degraded != "" && status(v, "lb2") == "failed" && status(v, "lb3") == "failed"
			})
		},
		helped: wellWith(2),
	},
	{
		file:    "restore-a-snapshot.md",
		happens: func(*site) {},
		then: map[int]func(*site){1: func(s *site) {
			s.machines[1].must("lbnode route rm shop.example/cart; lbnode backend rm web2")
			s.await("the loss is everywhere", s.machines, wellWith(1))
		}},
		helped: wellWith(2),
	},
	{
		file: "rolling-upgrade.md",
		happens: func(s *site) {
			for _, m := range s.machines { // a program that can be told from the one that is there
				m.must("{ cat /usr/bin/lbnode; echo '# new'; } >lbnode.new")
			}
		},
		then: map[int]func(*site){5: func(s *site) {
			for _, m := range s.machines {
				m.must("grep -q '^# new' /usr/bin/lbnode")
			}
		}},
		helped: wellWith(2),
		slow:   true,
	},
	{
		file:    "full-disk.md",
		happens: fillDisk,
		helped:  wellWith(2),
	},
	{
		file:    "damaged-data.md",
		happens: damageLog,
		helped:  wellWith(2),
	},
	{
		file:    "moved-addresses.md",
		happens: func(*site) {},
		then: map[int]func(*site){
			1: func(s *site) { s.machines[2].move("10.0.0.33") },
			8: func(s *site) {
				for i, m := range s.machines {
					m.move(fmt.Sprintf("10.0.1.%d", i+1))
				}
			},
		},
		helped: wellWith(2),
		slow:   true,
	},
	{
		file:    "two-clusters.md",
		happens: splitOff,
		helped:  wellWith(2),
	},
	{
		file:    "rotate-the-secret.md",
		happens: func(*site) {},
		helped:  wellWith(2),
	},
}

// splitOff has lb3 be a cluster of its own that the others' join list leads to.
func splitOff(s *site) {
	alone := s.machines[2]
	alone.must("systemctl stop lbnode; rm -r /var/lib/lbnode; sed -i 's/^LBNODE_JOIN=.*/LBNODE_JOIN=10.0.0.3/' /etc/lbnode/lbnode.env; systemctl start lbnode")
	s.await("all see two clusters", s.machines, func(v *admin.ClusterView) bool {
		return v.Leader != "" && slices.ContainsFunc(v.Warnings, func(w string) bool { return strings.HasPrefix(w, v.AsSeenBy+": another cluster is there") })
	})
}

// fillDisk fills the disk of lb2 with a file, and makes changes until lb2 has no room
// for them.
func fillDisk(s *site) {
	full := s.machines[1]
	full.must("mkdir -p /var/lib/lbnode.before-recover-1; dd if=/dev/zero of=/var/lib/lbnode.before-recover-1/raft.db bs=4k 2>/dev/null || true")
	weight := 1
	s.await("the disk of lb2 is full", s.machines[:1], func(v *admin.ClusterView) bool {
		weight = weight%200 + 1
		s.machines[0].run(s.t.Context(), fmt.Sprintf("lbnode backend set web1 -weight %d", weight))
		return slices.ContainsFunc(v.Warnings, func(w string) bool {
			return strings.HasPrefix(w, "lb2: the disk takes no writes")
		})
	})
}

// damageLog makes zeros of a page of lb2's log, with which lb2 starts no more.
func damageLog(s *site) {
	victim := s.machines[1]
	victim.crash()
	victim.must("dd if=/dev/zero of=/var/lib/lbnode/raft.db bs=4k count=1 seek=1 conv=notrunc 2>/dev/null")
	victim.run(s.t.Context(), "systemctl start lbnode")
	s.await("lb2 is seen to be gone", s.machines[:1], func(v *admin.ClusterView) bool { return v.Leader != "" && status(v, "lb2") == "failed" })
}

// move gives the machine another address.
func (m *machine) move(addr string) {
	m.t.Helper()
	ip(m.t, "-n", m.namespace, "addr", "flush", "dev", "eth0")
	ip(m.t, "-n", m.namespace, "addr", "add", addr+"/16", "dev", "eth0")
}

// block is one fenced block of a runbook.
type block struct {
	line     int
	language string
	host     string // of commands
	exit     int    // the exit code that commands are to have
	text     string
}

// readBlocks returns the blocks of a runbook. Those of language text say what the
// commands before them print, where … stands for anything.
func readBlocks(t *testing.T, path string) []block {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var blocks []block
	var open *block
	var text []string
	lines := bufio.NewScanner(bytes.NewReader(data))
	for n := 1; lines.Scan(); n++ {
		fence, isFence := strings.CutPrefix(strings.TrimSpace(lines.Text()), "```")
		switch {
		case isFence && open == nil:
			open, text = newBlock(t, path, n, fence), nil
		case isFence:
			open.text = strings.Join(text, "\n")
			blocks, open = append(blocks, *open), nil
		case open != nil:
			text = append(text, strings.TrimPrefix(lines.Text(), "   ")) // as in a list
		}
	}
	if open != nil {
		t.Fatalf("%s:%d: the block does not end", path, open.line)
	}
	return blocks
}

func newBlock(t *testing.T, path string, line int, info string) *block {
	t.Helper()
	words := strings.Fields(info)
	b := &block{line: line}
	switch {
	case len(words) == 1 && words[0] == "text":
	case (len(words) == 2 || len(words) == 3) && words[0] == "sh":
		b.host = words[1]
		if len(words) == 3 {
			if _, err := fmt.Sscanf(words[2], "exit=%d", &b.exit); err != nil {
				t.Fatalf("%s:%d: %q is not exit=N", path, line, words[2])
			}
		}
	default:
		t.Fatalf("%s:%d: a block is text, or sh with the host that the commands are for, not %q", path, line, info)
	}
	b.language = words[0]
	return b
}

// Every runbook does what it says: its commands are run as written, each on the host
// that it names, in what it is for.
func TestRunbooks(t *testing.T) {
	for _, c := range runbookCases {
		t.Run(strings.TrimSuffix(c.file, ".md"), func(t *testing.T) {
			if c.slow && !*long {
				t.Skip("takes long: run with -long")
			}
			t.Parallel()
			blocks := readBlocks(t, filepath.Join(runbookDir, c.file))
			s := newSite(t)
			s.form()
			c.happens(s)
			s.follow(c, blocks)
			s.await("all is well", s.machines, c.helped)
		})
	}
}

// follow runs the blocks in their order.
func (s *site) follow(c runbookCase, blocks []block) {
	s.t.Helper()
	var last block
	var printed string
	ran := 0
	for _, b := range blocks {
		at := fmt.Sprintf("%s:%d", c.file, b.line)
		if b.language == "text" {
			checkPrinted(s.t, at, b.text, printed)
			continue
		}
		last = b
		printed = s.runBlock(at, last)
		ran++
		if then := c.then[ran]; then != nil {
			then(s)
		}
	}
	if ran == 0 {
		s.t.Fatalf("%s has no commands", c.file)
	}
}

func (s *site) runBlock(at string, b block) string {
	s.t.Helper()
	i := slices.IndexFunc(s.machines, func(m *machine) bool { return m.name == b.host })
	if i < 0 {
		s.t.Fatalf("%s: there is no host %q", at, b.host)
	}
	ctx, cancel := context.WithTimeout(s.t.Context(), 2*time.Minute)
	defer cancel()
	began := time.Now()
	out, code := s.machines[i].run(ctx, b.text)
	s.t.Logf("%s on %s: %s, exit code %d", at, b.host, time.Since(began).Round(10*time.Millisecond), code)
	if code != b.exit {
		s.t.Fatalf("%s: got exit code %d, want %d:\n%s\nprinted:\n%s", at, code, b.exit, b.text, out)
	}
	return out
}

// checkPrinted fails the test unless each line stands somewhere in what was printed.
// White space counts as one space.
func checkPrinted(t *testing.T, at, want, printed string) {
	t.Helper()
	all := strings.Join(strings.Fields(printed), " ")
	for line := range strings.Lines(want) {
		words := strings.Fields(line)
		pattern := strings.ReplaceAll(regexp.QuoteMeta(strings.Join(words, " ")), "…", ".*?")
		if !regexp.MustCompile(pattern).MatchString(all) {
			t.Errorf("%s: %q is not in what was printed:\n%s", at, strings.TrimSpace(line), printed)
		}
	}
}

// Every runbook is tested and can be found.
func TestRunbooksAreComplete(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(runbookDir, "*.md"))
	if err != nil {
		t.Fatal(err)
	}
	readme, err := os.ReadFile("../../deploy/README.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		name := filepath.Base(file)
		if !slices.ContainsFunc(runbookCases, func(c runbookCase) bool { return c.file == name }) {
			t.Errorf("%s is not tested", name)
		}
		if !strings.Contains(string(readme), "(runbooks/"+name+")") {
			t.Errorf("deploy/README.md does not lead to %s", name)
		}
		readBlocks(t, file)
	}
	if len(files) != len(runbookCases) {
		t.Errorf("got %d runbooks and %d cases", len(files), len(runbookCases))
	}
}
