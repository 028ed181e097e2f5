package cluster

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"lbnode/state"
)

// noted is one operation on a register that first holds 1.
type noted struct {
	access
	call, ended time.Duration
}

func read(value int, call, ended time.Duration) noted {
	return noted{access{kind: reads, value: value}, call, ended}
}

func wrote(value int, call, ended time.Duration) noted {
	return noted{access{kind: writes, value: value}, call, ended}
}

func exchanged(seen, value int, call, ended time.Duration) noted {
	return noted{access{kind: exchanges, value: value, seen: seen}, call, ended}
}

func TestCheckerTellsHistoriesApart(t *testing.T) {
	for name, test := range map[string]struct {
		windows [][]noted
		legal   bool
	}{
		"a write is read":                      {[][]noted{{wrote(2, 0, 1), read(2, 2, 3)}}, true},
		"a write is lost":                      {[][]noted{{wrote(2, 0, 1), read(1, 2, 3)}}, false},
		"a write is read while it is made":     {[][]noted{{wrote(2, 0, 9), read(2, 1, 2), read(2, 3, 4)}}, true},
		"a write is not yet read":              {[][]noted{{wrote(2, 0, 9), read(1, 1, 2), read(2, 3, 4)}}, true},
		"a write is read and then not":         {[][]noted{{wrote(2, 0, 9), read(2, 1, 2), read(1, 3, 4)}}, false},
		"a later write is lost":                {[][]noted{{wrote(2, 0, 1), wrote(3, 2, 3), read(2, 4, 5)}}, false},
		"a refused write shows":                {[][]noted{{read(7, 0, 1)}}, false},
		"a doubtful write never shows":         {[][]noted{{wrote(2, 0, never), read(1, 4, 5)}}, true},
		"a doubtful write shows late":          {[][]noted{{wrote(2, 0, never), read(1, 4, 5), read(2, 6, 7)}}, true},
		"a doubtful write comes and goes":      {[][]noted{{wrote(2, 0, never), read(2, 4, 5), read(1, 6, 7)}}, false},
		"a doubtful write shows too early":     {[][]noted{{read(2, 0, 1), wrote(2, 2, never)}}, false},
		"a doubtful write shows a window late": {[][]noted{{wrote(2, 0, never), read(1, 1, 2)}, {read(1, 3, 4), read(2, 5, 6)}}, true},
		"a doubtful write takes effect twice": {
			[][]noted{{wrote(2, 0, never), read(2, 1, 2), wrote(3, 3, 4), read(3, 5, 6)}, {read(2, 7, 8)}}, false},
		"a write takes effect twice":       {[][]noted{{wrote(2, 0, 1), read(2, 2, 3), wrote(3, 4, 5), read(3, 6, 7), read(2, 8, 9)}}, false},
		"an exchange succeeds":             {[][]noted{{exchanged(1, 2, 0, 1), read(2, 2, 3)}}, true},
		"two exchanges of one value":       {[][]noted{{exchanged(1, 2, 0, 9), exchanged(1, 3, 0, 9)}}, false},
		"an exchange of what is gone":      {[][]noted{{wrote(2, 0, 1), exchanged(1, 3, 2, 3)}}, false},
		"an exchange of a doubtful write":  {[][]noted{{wrote(2, 0, never), exchanged(2, 3, 4, 5), read(3, 6, 7)}}, true},
		"a window that begins differently": {[][]noted{{wrote(2, 0, 1), read(2, 2, 3)}, {read(1, 4, 5)}}, false},
	} {
		if got := legal(t, test.windows); got != test.legal {
			t.Errorf("%s: got legal %t, want %t", name, got, test.legal)
		}
	}
}

// legal plays the windows of one register to the checker.
func legal(t *testing.T, windows [][]noted) bool {
	h := newHistory()
	for _, window := range windows {
		for _, op := range window {
			h.note(0, op.access, timed{call: op.call, ended: op.ended})
		}
		err := h.keys[0].check()
		if bad := (*illegal)(nil); errors.As(err, &bad) {
			return false
		}
		if err != nil {
			t.Fatal(err)
		}
		last := window[len(window)-1]
		h.keys[0].first, h.keys[0].ended = last.value, nil
	}
	return true
}

// A suite that cannot fail proves nothing, so it is shown code that is wrong.
func TestCheckerCatchesBrokenCode(t *testing.T) {
	for name, test := range map[string]struct {
		spoil   func(*suite)
		trouble func(*suite) string
	}{
		"an answer before the commit": {
			func(s *suite) { s.crew.write = answerEarly },
			func(s *suite) string {
				old := s.leader()
				return s.cutOffUntil(old, func() bool { return s.leaderBut(old) != nil })
			},
		},
		"a read without a barrier": {
			func(s *suite) { s.crew.read = readLocally },
			func(s *suite) string {
				before := s.crew.done.answers()
				return s.cutOffUntil(s.follower(), func() bool { return s.crew.done.answers() > before+100 })
			},
		},
		"a machine that forgets requests": {
			func(s *suite) {
				for _, n := range s.nodes {
					forgetRequests(s.t, n)
				}
			},
			func(*suite) string { return "no fault" },
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSuite(t, 3)
			s.crew.wrong = func(string, ...any) {} // the history is what is judged here
			test.spoil(s)
			var err error
			for round := 0; round < 8 && err == nil; round++ {
				err = s.round(200, func() string { return test.trouble(s) })
			}
			if bad := (*illegal)(nil); !errors.As(err, &bad) {
				t.Errorf("got %v after %d rounds, want an illegal history", err, s.rounds)
			}
		})
	}
}

// answerEarly answers when the leader has been handed the write.
func answerEarly(ctx context.Context, n *node, w Write) (state.Result, error) {
	if n.raft().State() != raft.Leader || w.IfIndex != 0 {
		return n.Propose(ctx, w)
	}
	data, err := state.Command{ID: w.RequestID, At: time.Now().UnixMilli(), Op: w.Op}.Encode()
	n.raft().Apply(data, callWithin)
	return state.Result{Index: n.View().Index}, err
}

// readLocally reads what the node has, agreed now or not.
func readLocally(_ context.Context, n *node) (*state.View, error) { return n.View(), nil }

// forgetRequests makes a node's machine forget which requests it has carried out.
func forgetRequests(t testing.TB, n *node) {
	n.fsm.mu.Lock()
	defer n.fsm.mu.Unlock()
	publish := n.fsm.publish
	n.fsm.publish = func(view *state.View) {
		publish(view)
		data, err := view.Snapshot().Encode()
		if err != nil {
			t.Error(err)
			return
		}
		if n.fsm.machine, err = state.Restore(data); err != nil {
			t.Error(err)
		}
	}
}

// follower is a node that does not lead.
func (s *suite) follower() *node {
	lead := s.leader()
	return s.nodes[slices.IndexFunc(s.nodes, func(n *node) bool { return n != lead })]
}

// cutOffUntil cuts all links of a node until ok holds.
func (s *suite) cutOffUntil(n *node, ok func() bool) string {
	lift := s.network.add(allLinks(n, passage{cut: true}))
	defer lift()
	s.await("what the cut was for", ok)
	return "cutting off " + n.cfg.Name
}
