package main

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// wayOut is what a node says that cannot go on with its data: which file is damaged,
// and the command that moves the data away.
var wayOut = regexp.MustCompile(`(?m)^lbnode: (\S+) is damaged: .*: (mv \S+ \S+), then start this node again, and it joins`)

// pageSize is that of raft.db on most machines.
const pageSize = 4096

// harm is what happens to a file.
type harm struct {
	name string
	do   func(text []byte) []byte
	sure bool // it hits what is in use
}

// harms are those that are tried.
var harms = []harm{
	{"emptied", func([]byte) []byte { return nil }, true},
	{"cut off in the first page", func(text []byte) []byte { return text[:min(len(text), 100)] }, true},
	{"cut off after a page", func(text []byte) []byte { return text[:min(len(text), pageSize)] }, true},
	{"cut off at random", func(text []byte) []byte { return text[:rand.IntN(len(text)+1)] }, false},
	{"cut off in the middle", func(text []byte) []byte { return text[:len(text)/2] }, false},
	{"a bit turned over", func(text []byte) []byte { return flipBits(text, 1) }, false},
	{"bits turned over", func(text []byte) []byte { return flipBits(text, 1+len(text)/pageSize) }, false},
	{"a page zeroed", func(text []byte) []byte { return zeroPages(text, 1) }, false},
	{"half the pages zeroed", func(text []byte) []byte { return zeroPages(text, len(text)/pageSize/2) }, false},
	{"the pages' heads zeroed", func(text []byte) []byte {
		for at := 0; at < len(text); at += pageSize {
			clear(text[at:min(at+64, len(text))])
		}
		return text
	}, true},
	{"all zeroed", func(text []byte) []byte { clear(text); return text }, true},
	{"bits in each page", func(text []byte) []byte { // of which some hits what is in use
		for at := 0; at < len(text); at += pageSize {
			for range 8 {
				text[at+rand.IntN(min(pageSize, len(text)-at))] ^= 1 << rand.IntN(8)
			}
		}
		return text
	}, false},
}

func flipBits(text []byte, count int) []byte {
	for range min(count, len(text)) {
		text[rand.IntN(len(text))] ^= 1 << rand.IntN(8)
	}
	return text
}

func zeroPages(text []byte, count int) []byte {
	for range count {
		if at := rand.IntN(len(text)/pageSize+1) * pageSize; at < len(text) {
			clear(text[at:min(at+pageSize, len(text))])
		}
	}
	return text
}

// spoil damages a file.
func spoil(t *testing.T, path string, do func([]byte) []byte) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err == nil {
		err = os.WriteFile(path, do(text), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// dir is the node's data directory.
func (n *lb) dir() string { return *n.argument("-data-dir") }

// A node with a damaged log ends with one line that names the file and the way out, or
// it goes on, where the damage has hit nothing. It never crashes.
func TestDamagedLog(t *testing.T) {
	t.Parallel()
	nodes := newLBs(t, 3)
	startAll(nodes)
	whole(t, nodes)
	for i := range 50 {
		body := fmt.Sprintf(`{"name":"web-%d","url":"http://127.0.0.1:%d","admin":"maint"}`, i, 1+i)
		if code, answer := call(t, "POST", "http://"+nodes[0].admin+"/v1/pools/default/backends", body); code != http.StatusCreated {
			t.Fatalf("cannot add a backend: %d %v", code, answer)
		}
	}
	whole(t, nodes)
	victim := nodes[2]
	kept := victim.dir()
	eventually(t, patience, "the view on disk, which may be behind, has all backends", func() bool {
		text, err := os.ReadFile(filepath.Join(kept, "view.json"))
		return err == nil && strings.Count(string(text), `"web-`) == 50
	})
	victim.kill()
	for _, harm := range harms {
		dir := filepath.Join(t.TempDir(), "data")
		if err := os.CopyFS(dir, os.DirFS(kept)); err != nil {
			t.Fatal(err)
		}
		spoil(t, filepath.Join(dir, "raft.db"), harm.do)
		*victim.argument("-data-dir") = dir
		os.Remove(victim.log)
		victim.start()
		if endedOrWhole(t, victim, nodes) {
			victim.checkLine(t, harm.name, filepath.Join(dir, "raft.db"))
		} else {
			if harm.sure {
				t.Errorf("%s: the node goes on", harm.name)
			}
			victim.kill()
		}
		if harm.name == "all zeroed" {
			out, err := recoverOn(dir, "") // the others are there, so it only says what it could do
			for _, word := range []string{"NOT USABLE", "raft.db is damaged: page 0", "the view kept on disk, of index", "quorum is not lost"} {
				if err == nil || !strings.Contains(out, word) {
					t.Errorf("got %v, %s, want %q", err, out, word)
				}
			}
		}
	}
}

// endedOrWhole waits until the node has ended, or is one of a whole cluster, and says
// whether it has ended.
func endedOrWhole(t *testing.T, n *lb, nodes []*lb) (ended bool) {
	t.Helper()
	eventually(t, patience, n.name+" ends or goes on", func() bool {
		select {
		case <-n.done:
			ended = true
		default:
		}
		return ended || isWhole(nodes)
	})
	return ended
}

// checkLine fails the test unless the node has ended with the line that names the file,
// and returns the command that the line says.
func (n *lb) checkLine(t *testing.T, harm, path string) (command string) {
	t.Helper()
	code, out := n.exit(patience)
	lines := strings.Split(strings.TrimSpace(out), "\n")
	found := wayOut.FindStringSubmatch(lines[len(lines)-1])
	if crash.MatchString(out) || slices.ContainsFunc(lines, crash.MatchString) || code != 1 || found == nil || found[1] != path {
		t.Errorf("%s of %s: got exit code %d, want 1 and a line that names the file and the way out, and got:\n%s", harm, filepath.Base(path), code, lastLines([]byte(out), 6))
		return ""
	}
	return found[2]
}

// Files of one node are damaged while the others take writes. The node goes on without
// them, or ends; then what it says is done, and it comes back as a new one.
func damageFiles(t *testing.T) {
	nodes := newLBs(t, 3)
	for _, n := range nodes {
		*n.argument("-data-dir") = filepath.Join(t.TempDir(), "data")
	}
	makeSnapshots(t, nodes)
	tr := startTrial(t, nodes)
	clusterID := nodes[0].view().ClusterID
	files := []string{"raft.db", "raft.db", "raft.db", "view.json", "snapshots/*/state.bin", "snapshots/*/meta.json", "node.json", "term.json"}
	var back []time.Duration
	ended := map[string]int{}
	for i := range amount(8, 100) {
		wholeAndVoting(t, nodes) // or the loss of one would be that of the quorum
		lead, followers := roles(t, nodes)
		victim := []*lb{lead, followers[0], followers[1]}[rand.IntN(3)]
		rest := without(nodes, victim)
		tr.load.spare(t, victim)
		clients := tr.journal.startWriting(nodes, 3)
		hold(t, time.Duration(rand.Int64N(int64(500*time.Millisecond))))
		file, harm := files[i%len(files)], harms[rand.IntN(len(harms))]
		running := i%3 == 1
		if !running {
			victim.kill()
		}
		os.Remove(victim.log)
		path := victim.spoilOne(t, file, harm.do)
		if running { // and what it does not notice now, it may when it starts again
			hold(t, 500*time.Millisecond)
			clients.stop()
			victim.kill()
		}
		began := time.Now()
		victim.start()
		if !running {
			clients.stop()
		}
		if path != "" && endedOrWhole(t, victim, nodes) {
			ended[file]++
			command := strings.Fields(victim.checkLine(t, harm.name, path))
			if len(command) == 0 {
				t.FailNow()
			}
			if out, err := exec.Command(command[0], command[1:]...).CombinedOutput(); err != nil {
				t.Fatalf("%v: %v: %s", command, err, out)
			}
			victim.start()
		}
		wholeAndVoting(t, nodes)
		back = append(back, time.Since(began))
		for _, n := range rest {
			if v := n.view(); v == nil || v.ClusterID != clusterID {
				t.Errorf("%s is in another cluster than before", n.name)
			}
		}
		if own(victim.view()).ID == "" || victim.view().ClusterID != clusterID {
			t.Errorf("%s founded a cluster of its own", victim.name)
		}
		tr.load.include(victim)
	}
	tr.end(t, fmt.Sprintf("%d damaged files, of which %v ended the node; whole again after %s", len(back), ended, spread(back)))
}

// wholeAndVoting waits until the nodes are one cluster that can lose one of them.
func wholeAndVoting(t *testing.T, nodes []*lb) {
	t.Helper()
	whole(t, nodes)
	eventually(t, patience, "all nodes vote", func() bool {
		return isWhole(nodes) && every(nodes, func(n *lb) bool { v := n.view(); return v != nil && v.Quorum == 2 && v.FailureTolerance == 1 })
	})
}

// spoilOne damages a file of the node and returns its path, or that of the directory of a
// snapshot, as which it is named; empty if the node has none.
func (n *lb) spoilOne(t *testing.T, pattern string, do func([]byte) []byte) string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(n.dir(), pattern))
	if err != nil {
		t.Fatal(err)
	}
	if len(found) == 0 {
		return ""
	}
	spoil(t, found[0], do)
	if strings.HasPrefix(pattern, "snapshots/") {
		return filepath.Dir(found[0])
	}
	return found[0]
}

// makeSnapshots makes the nodes one cluster with a snapshot on each, behind which there is no
// log: one of them was recovered, and the others joined it.
func makeSnapshots(t *testing.T, nodes []*lb) {
	t.Helper()
	startAll(nodes)
	whole(t, nodes)
	for _, n := range nodes {
		n.kill()
	}
	if out, err := recoverOn(nodes[0].dir(), ""); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, n := range nodes[1:] {
		n.wipe(t)
	}
}
