package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"

	"lbnode/cluster"
	"lbnode/cluster/admin"
)

var previous = flag.String("previous", "HEAD~1", "the commit whose binary runs beside the one under test")

// versionOne is the last commit whose binaries know nothing of versions: they
// understand version 1 of commands and do not say so.
const versionOne = "2ed07f4"

// buildCommit builds lbnode as it was at a commit.
func buildCommit(t *testing.T, ref string) string {
	t.Helper()
	git := exec.Command("git", "archive", ref)
	git.Dir = root(t)
	var reason bytes.Buffer
	git.Stderr = &reason
	tree, err := git.Output()
	if err != nil {
		t.Skipf("needs the history of this tree in git, with %s: %v: %s", ref, err, bytes.TrimSpace(reason.Bytes()))
	}
	dir := t.TempDir()
	tar := exec.Command("tar", "-x", "-C", dir)
	tar.Stdin = bytes.NewReader(tree)
	if out, err := tar.CombinedOutput(); err != nil {
		t.Fatalf("cannot unpack %s: %v: %s", ref, err, out)
	}
	build := exec.Command("go", "build", "-buildvcs=false", "-o", "lbnode", "./cmd/lbnode")
	build.Dir = dir
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("cannot build %s: %v: %s", ref, err, out)
	}
	return filepath.Join(dir, "lbnode")
}

// startMixed starts a fleet in which two nodes run the binary old and the third
// the one under test.
func startMixed(t *testing.T, old string) *fleet {
	f := &fleet{nodes: newLBs(t, 3)}
	f.nodes[0].binary, f.nodes[1].binary = old, old
	p, addr := newBackend(t, "web-1")
	p.start()
	f.backends = append(f.backends, p)
	startAll(f.nodes)
	f.waitHealthy(t, "nodes of two versions form one cluster", f.nodes, 3)
	body := fmt.Sprintf(`{"name":"web-1","url":"http://%s"}`, addr)
	if code, answer := call(t, "POST", "http://"+f.nodes[0].admin+"/v1/pools/default/backends", body); code != http.StatusCreated {
		t.Fatalf("cannot add a backend: %d %v", code, answer)
	}
	f.waitBackends(t, 30*time.Second, "web-1", "healthy")
	return f
}

// beLed kills leaders until one that runs the wanted binary leads.
func (f *fleet) beLed(t *testing.T, binary string) *lb {
	t.Helper()
	for range 20 {
		old, rest := leader(f.nodes)
		if old != nil && old.binary == binary {
			return old
		}
		if old != nil {
			old.kill()
			eventually(t, 30*time.Second, "the others elect a leader", func() bool {
				return every(rest, func(n *lb) bool { v := n.view(); return v != nil && v.Leader != "" && v.Leader != old.name })
			})
			old.start()
		}
		f.waitHealthy(t, "the killed leader is back", f.nodes, 3)
	}
	t.Fatal("20 elections gave no leader of the wanted version")
	return nil
}

// replace stops a node in order and starts it again with another binary, while the
// others serve and take writes.
func (f *fleet) replace(t *testing.T, n *lb, binary string) {
	t.Helper()
	rest := slices.DeleteFunc(slices.Clone(f.nodes), func(other *lb) bool { return other == n })
	l, w := startLoad(t, rest, 2), startWriter(t, rest)
	n.cmd.Process.Signal(syscall.SIGTERM)
	if code, out := n.exit(60 * time.Second); code != 0 {
		t.Errorf("%s: got exit code %d, want 0:\n%s", n.name, code, out)
	}
	n.binary = binary
	n.start()
	eventually(t, 60*time.Second, n.name+" is back and follows a leader", func() bool {
		return every(f.nodes, func(other *lb) bool {
			v := other.view()
			return v != nil && v.Leader != "" && status(v, n.name) == "alive"
		})
	})
	l.stop(t, n.name+" got another version")
	w.stop(t, f.nodes)
	f.waitHealthy(t, "all agree", f.nodes, 3)
}

// writer makes pools, one after the other, through changing nodes.
type writer struct {
	cancel  context.CancelFunc
	writing sync.WaitGroup
	made    []string // the pools that the cluster said it has made
}

func startWriter(t *testing.T, nodes []*lb) *writer {
	ctx, cancel := context.WithCancel(context.Background())
	w := &writer{cancel: cancel}
	w.writing.Go(func() { w.run(ctx, t, nodes) })
	t.Cleanup(func() { cancel(); w.writing.Wait() })
	return w
}

func (w *writer) run(ctx context.Context, t *testing.T, nodes []*lb) {
	client := &http.Client{Timeout: 20 * time.Second}
	defer client.CloseIdleConnections()
	for i := 0; ctx.Err() == nil; i++ {
		name := "pool-" + cluster.NewID()
		response, err := client.Post("http://"+nodes[i%len(nodes)].admin+"/v1/pools", "application/json", strings.NewReader(`{"name":"`+name+`"}`))
		if err != nil {
			t.Errorf("cannot write through %s: %v", nodes[i%len(nodes)].name, err)
			return
		}
		text, _ := io.ReadAll(response.Body) // for the message below
		response.Body.Close()
		switch response.StatusCode {
		case http.StatusCreated:
			w.made = append(w.made, name)
		case http.StatusServiceUnavailable, http.StatusGatewayTimeout: // an election
		default:
			t.Errorf("got %s %s, want the pool made", response.Status, text)
			return
		}
	}
}

// stop ends the writer and sees that every node has all that was acknowledged.
func (w *writer) stop(t *testing.T, nodes []*lb) {
	t.Helper()
	w.cancel()
	w.writing.Wait()
	t.Logf("%d writes acknowledged", len(w.made))
	if len(w.made) == 0 {
		t.Error("no write was acknowledged")
	}
	for _, n := range nodes {
		eventually(t, 30*time.Second, n.name+" has every write that was acknowledged", func() bool {
			v := n.view()
			return v != nil && !slices.ContainsFunc(w.made, func(name string) bool {
				return !slices.ContainsFunc(v.Pools, func(p admin.ClusterPool) bool { return p.Name == name })
			})
		})
	}
}

// Nodes of two versions serve as one cluster, whichever of them leads, and a
// cluster is upgraded, and a node of it taken back, without a word to its clients.
func TestRollingUpgrade(t *testing.T) {
	t.Parallel()
	refs := []string{*previous}
	if *long {
		refs = append(refs, versionOne)
	}
	for _, ref := range refs {
		t.Run(ref, func(t *testing.T) {
			old := buildCommit(t, ref)
			f := startMixed(t, old)
			first, _ := leader(f.nodes)
			for _, binary := range []string{first.binary, otherOf(first.binary, old)} {
				f.beLed(t, binary)
				f.writeAll(t)
			}
			f.replace(t, f.nodes[0], "")
			f.replace(t, f.nodes[1], "")
			f.replace(t, f.nodes[0], old)
			f.writeAll(t)
		})
	}
}

// writeAll writes through every node.
func (f *fleet) writeAll(t *testing.T) {
	t.Helper()
	for i, n := range f.nodes {
		f.write(t, n, 2+i)
	}
}

// otherOf returns the binary that is not this one, of the one under test and old.
func otherOf(binary, old string) string {
	if binary == "" {
		return old
	}
	return ""
}

// newerWrite restores a snapshot, which version 1 does not understand, and returns
// the status and the text of the answer.
func newerWrite(t *testing.T, f *fleet) (status int, text string) {
	t.Helper()
	client := f.nodes[2].client // of the binary under test
	eventually(t, 60*time.Second, "the cluster answers", func() bool {
		file, err := client.Snapshot(t.Context(), true)
		if err != nil {
			return false
		}
		_, err = client.Restore(t.Context(), file)
		var refused *admin.Problem
		switch {
		case err == nil:
			status, text = http.StatusOK, ""
		case errors.As(err, &refused):
			status, text = refused.Status, refused.Detail
		}
		return err == nil || refused != nil && refused.Status != http.StatusServiceUnavailable && refused.Status != http.StatusGatewayTimeout
	})
	return status, text
}

// While a member understands version 1 alone, alive or dead, what is newer is held
// back; once all are upgraded, it is taken.
func TestNewerWritesWaitForTheUpgrade(t *testing.T) {
	if !*long {
		t.Skip("needs -long")
	}
	f := startMixed(t, buildCommit(t, versionOne))
	checkHeldBack := func(while string, names ...string) {
		t.Helper()
		var status int
		var text string
		eventually(t, 60*time.Second, while+": held back because of "+strings.Join(names, " and "), func() bool {
			status, text = newerWrite(t, f)
			return status == http.StatusOK || every(f.nodes, func(n *lb) bool { // what gossip has yet to tell is held back too
				return slices.Contains(names, n.name) == strings.Contains(text, n.name+" (devel) understands commands up to version 1")
			})
		})
		if status != http.StatusConflict {
			t.Fatalf("%s: got %d %s, want it held back", while, status, text)
		}
	}
	checkHeldBack("two are old", "lb1", "lb2")
	f.nodes[0].kill()
	f.nodes[0].binary = ""
	f.nodes[0].start()
	f.waitHealthy(t, "lb1 is upgraded", f.nodes, 3)
	checkHeldBack("one is old", "lb2")
	f.nodes[1].kill()
	checkHeldBack("the old one is dead", "lb2")
	f.nodes[1].binary = ""
	f.nodes[1].start()
	f.waitHealthy(t, "lb2 is upgraded", f.nodes, 3)
	eventually(t, 60*time.Second, "the write is taken now that all are upgraded", func() bool {
		status, _ := newerWrite(t, f)
		return status == http.StatusOK
	})
	f.waitHealthy(t, "all have carried it out", f.nodes, 3)
}

// A node that is older than what the cluster has agreed on says so and ends: it
// must neither go on with a view of its own nor leave an operator with a stack.
func TestEndsAtACommandFromTheFuture(t *testing.T) {
	t.Parallel()
	n := newLBs(t, 1)[0]
	n.start()
	(&fleet{}).waitHealthy(t, "a cluster of one", []*lb{n}, 1)
	n.kill()
	dir := n.args[slices.Index(n.args, "-data-dir")+1]
	appendCommand(t, filepath.Join(dir, "raft.db"), `{"v":99,"id":"x","op":"explode","body":{}}`)
	n.start()
	code, out := n.exit(60 * time.Second)
	last := out[strings.LastIndexByte(strings.TrimSpace(out), '\n')+1:]
	if code != 1 || !strings.HasPrefix(last, "lbnode: cannot follow the cluster any further") || !strings.Contains(last, "upgrade it") {
		t.Errorf("got exit code %d and the last line %q, want 1 and what to do", code, last)
	}
	if strings.Contains(out, "goroutine ") {
		t.Errorf("got a stack:\n%s", out)
	}
}

// appendCommand writes a command to the log of a node that is not running.
func appendCommand(t *testing.T, path, data string) {
	t.Helper()
	store, err := raftboltdb.NewBoltStore(path)
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	last, err := store.LastIndex()
	if err != nil {
		t.Fatal(err)
	}
	term, err := store.GetUint64([]byte("CurrentTerm"))
	if err != nil {
		t.Fatal(err)
	}
	if err := store.StoreLog(&raft.Log{Index: last + 1, Term: term, Type: raft.LogCommand, Data: []byte(data)}); err != nil {
		t.Fatal(err)
	}
}
