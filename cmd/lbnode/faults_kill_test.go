package main

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// The leader and the followers in turn are killed at a random moment and started
// again.
func killAnyRole(t *testing.T) {
	tr := startTrial(t, newLBs(t, 3))
	var led, agreed, back []time.Duration
	for i := range amount(3, 100) {
		lead, followers := roles(t, tr.nodes)
		victim := []*lb{lead, followers[0], followers[1]}[i%3]
		rest := without(tr.nodes, victim)
		tr.load.spare(t, victim)
		clients := tr.journal.startWriting(rest, 2)
		hold(t, time.Duration(rand.Int64N(int64(2*time.Second))))
		began := time.Now()
		victim.kill()
		eventually(t, patience, "all survivors know a leader among them", func() bool {
			return every(rest, func(n *lb) bool { v := n.view(); return v != nil && v.Leader != "" && v.Leader != victim.name })
		})
		if victim == lead {
			led = append(led, time.Since(began))
		}
		clients.stop()
		eventually(t, patience, "the survivors agree", func() bool { return agreeWithout(rest, victim) })
		agreed = append(agreed, time.Since(began))
		victim.start()
		back = append(back, whole(t, tr.nodes))
		tr.load.include(victim)
	}
	tr.end(t, fmt.Sprintf("new leader %s; agreement %s; whole again after the restart %s", spread(led), spread(agreed), spread(back)))
}

// agreeWithout says whether the nodes have one leader among them and one view, and
// know that the lost one is dead.
func agreeWithout(nodes []*lb, lost *lb) bool {
	seen := map[string]bool{}
	for _, n := range nodes {
		v := n.view()
		if v == nil || v.Leader == "" || v.Leader == lost.name || status(v, lost.name) != "failed" || !v.Agreement {
			return false
		}
		seen[v.Leader] = true
	}
	return len(seen) == 1
}

// One node or all are killed while eight clients write.
func killInMidWrite(t *testing.T) {
	for range amount(1, 25) { // a new cluster now and then, so that the writes do not pile up
		t.Run("cluster", func(t *testing.T) {
			nodes := newLBs(t, 3)
			tr := startTrial(t, nodes)
			tr.load.spare(t, nodes...) // one that is killed breaks what it has under way
			var back []time.Duration
			for i := range amount(5, 20) {
				victims := []*lb{nodes[rand.IntN(3)]}
				if i%2 == 1 {
					victims = nodes
				}
				clients := tr.journal.startWriting(nodes, 8)
				hold(t, 200*time.Millisecond+time.Duration(rand.Int64N(int64(1300*time.Millisecond))))
				for _, v := range victims {
					v.kill()
				}
				clients.stop()
				startAll(victims)
				back = append(back, whole(t, nodes))
			}
			tr.load.include(nodes...)
			hold(t, time.Second)
			tr.end(t, fmt.Sprintf("%d kills; whole again after the restart %s", len(back), spread(back)))
		})
	}
}

// Two of three are killed and come back later; then all are killed and one comes
// back, alone.
func loseQuorum(t *testing.T) {
	nodes := newLBs(t, 3)
	tr := startTrial(t, nodes)
	last := nodes[2]
	before := last.digest()
	tr.load.spare(t, nodes[:2]...)
	nodes[0].kill()
	nodes[1].kill()
	ended := time.Now().Add(amount(10*time.Second, 10*time.Minute))
	for time.Now().Before(ended) {
		if tr.journal.write(last) {
			t.Error("a write was acknowledged without a quorum")
		}
		hold(t, 100*time.Millisecond)
	}
	began := time.Now()
	nodes[0].start()
	eventually(t, patience, "writes are taken again", func() bool { return tr.journal.write(last) })
	healed := time.Since(began)
	nodes[1].start()
	whole(t, nodes)
	refusals := spread(tr.journal.took)
	tr.end(t, fmt.Sprintf("writes refused within %s; taken again %s after one came back", refusals, healed.Round(time.Millisecond)))

	want := last.digest()
	if want == before {
		t.Errorf("got digest %s before and after writes", want)
	}
	newest := tr.journal.acked[len(tr.journal.acked)-1]
	eventually(t, patience, "the view is on disk", func() bool {
		text, err := os.ReadFile(filepath.Join(*last.argument("-data-dir"), "view.json"))
		return err == nil && strings.Contains(string(text), `"`+newest+`"`)
	})
	restartAlone(t, nodes, last, want)
}

// restartAlone kills all nodes and starts one, which must serve what it last knew.
func restartAlone(t *testing.T, nodes []*lb, last *lb, want string) {
	for _, n := range nodes {
		n.kill()
	}
	began := time.Now()
	last.start()
	client := &http.Client{Transport: &http.Transport{}, Timeout: patience}
	defer client.CloseIdleConnections()
	eventually(t, patience, "the lone node serves", func() bool {
		_, err := fetch(client, "http://"+last.http+"/")
		return err == nil
	})
	served := time.Since(began)
	view := own(last.view()).View
	if view.Digest != want || !view.Stale {
		t.Errorf("got view %+v from a node that restarted alone, want digest %s and stale", view, want)
	}
	t.Logf("all killed, one restarted: it serves its last view after %s, marked stale", served.Round(time.Millisecond))
}

// Three nodes start for the first time, in random order, up to 3 s apart.
func firstStarts(t *testing.T) {
	var took []time.Duration
	for i := range amount(3, 200) {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			nodes := newLBs(t, 3)
			for _, n := range rand.Perm(3) {
				nodes[n].start()
				if n != 2 {
					hold(t, time.Duration(rand.Int64N(int64(1500*time.Millisecond))))
				}
			}
			took = append(took, whole(t, nodes))
			for _, n := range nodes {
				if v := n.view(); v == nil || v.ClusterID != nodes[0].view().ClusterID {
					t.Errorf("%s is in another cluster than lb1", n.name)
				}
			}
		})
	}
	t.Logf("%d first starts, one cluster each; formed after the last start %s", len(took), spread(took))
}

// The leader leaves for good under load, and comes back as a new node.
func changeMembers(t *testing.T) {
	nodes := newLBs(t, 3)
	tr := startTrial(t, nodes)
	var joined []time.Duration
	for range amount(1, 20) {
		lead, followers := roles(t, nodes)
		clients := tr.journal.startWriting(followers, 2)
		tr.load.spare(t, lead)
		if err := lead.client.Leave(t.Context()); err != nil {
			t.Fatalf("%s cannot leave: %v", lead.name, err)
		}
		if code, out := lead.exit(patience); code != 0 {
			t.Fatalf("got exit code %d from a node that left, want 0:\n%s", code, out)
		}
		clients.stop()
		lead.wipe(t)
		lead.start()
		joined = append(joined, eventually(t, patience, "the new node votes", func() bool {
			return isWhole(nodes) && every(nodes, func(n *lb) bool { v := n.view(); return v != nil && v.Quorum == 2 && v.FailureTolerance == 1 })
		}))
		tr.load.include(lead)
	}
	tr.end(t, "left and voting again as a new node after "+spread(joined))
}
