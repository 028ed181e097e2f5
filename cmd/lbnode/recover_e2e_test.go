package main

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Two of three nodes are lost for good. The third is recovered, and the two come back
// with empty directories; one that comes back with its old one is refused.
func TestRecover(t *testing.T) {
	t.Parallel()
	nodes := newLBs(t, 3)
	startAll(nodes)
	(&fleet{}).waitHealthy(t, "three nodes form one cluster", nodes, 3)
	survivor, lost := nodes[0], nodes[1:]
	for i := range 5 {
		body := fmt.Sprintf(`{"name":"web-%d","url":"http://127.0.0.1:%d"}`, i, 1+i)
		if code, answer := call(t, "POST", "http://"+survivor.admin+"/v1/pools/default/backends", body); code != http.StatusCreated {
			t.Fatalf("cannot add backend %d: %d %v", i, code, answer)
		}
	}
	clusterID := survivor.view().ClusterID
	dir := survivor.args[3]
	refused(t, 1, []string{dir, "in use by another lbnode"}, "recover", "-data-dir", dir, "-yes")
	survivor.kill()
	refused(t, 1, []string{"quorum is not lost", "3 of 3 voters are there", "nothing was changed"}, "recover", "-data-dir", dir, "-yes")
	lost[0].kill()
	lost[1].kill()
	refused(t, 64, []string{"-yes", "nothing was changed"}, "recover", "-data-dir", dir)
	if kept, err := filepath.Glob(dir + ".before-recover*"); err != nil || len(kept) != 0 {
		t.Errorf("got %v, %v, want nothing changed so far", kept, err)
	}

	answers := []string{"no", "yes"}
	if _, err := exec.LookPath("script"); err != nil {
		t.Log("script is not installed: not asked on a terminal")
		answers = []string{""}
	}
	for _, answer := range answers {
		out, err := recoverOn(dir, answer)
		if (err == nil) != (answer != "no") {
			t.Fatalf("answered %q: got %v: %s", answer, err, out)
		}
		for _, word := range []string{"cluster   " + clusterID, "1 pool, 5 backends, 0 routes", "lb2", "lb3", "refused"} {
			if !strings.Contains(out, word) {
				t.Errorf("answered %q: got %s, want %q in it", answer, out, word)
			}
		}
		if answer == "no" && !strings.Contains(out, "not confirmed: nothing was changed") {
			t.Errorf("got %s, want the recovery given up", out)
		}
	}

	survivor.start()
	(&fleet{}).waitHealthy(t, "the survivor is a cluster of one", nodes[:1], 1)
	if got := len(survivor.health()); got != 5 {
		t.Errorf("got %d backends, want 5", got)
	}
	newID := survivor.view().ClusterID
	if newID == clusterID {
		t.Error("the new cluster has the id of the old one")
	}
	lost[0].start()
	code, out := lost[0].exit(30 * time.Second)
	if code != 1 || !strings.Contains(out, clusterID) || !strings.Contains(out, newID) || !strings.Contains(out, "empty -data-dir") {
		t.Errorf("a node of the old cluster: got exit code %d:\n%s", code, lastLines([]byte(out), 3))
	}
	for _, n := range lost {
		if err := os.RemoveAll(n.args[3]); err != nil {
			t.Fatal(err)
		}
		n.start()
	}
	(&fleet{}).waitHealthy(t, "three nodes again", nodes, 3)
	for _, n := range nodes {
		if got := len(n.health()); got != 5 || n.view().ClusterID != newID {
			t.Errorf("%s: got %d backends in cluster %s, want 5 in %s", n.name, got, n.view().ClusterID, newID)
		}
	}
}

// recoverOn runs the command on a terminal where somebody types the answer or, if that
// is empty, with -yes.
func recoverOn(dir, answer string) (string, error) {
	cmd := exec.Command("script", "--quiet", "--return", "--command", os.Args[0]+" recover -data-dir "+dir, "/dev/null")
	if answer == "" {
		cmd = exec.Command(os.Args[0], "recover", "-data-dir", dir, "-yes")
	}
	cmd.Env = append(os.Environ(), runMain+"=1")
	cmd.Stdin = strings.NewReader(answer + "\n")
	out, err := cmd.CombinedOutput()
	return string(out), err
}
