package health

import (
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"lbnode/state"
)

func TestAgentProbe(t *testing.T) {
	const slow, patient = 100 * time.Millisecond, 5 * time.Second
	const nonsense = "not the answer of an agent: a line of words such as up, down, ready, drain, maint or 50%"
	secure, trusting := serveHTTP(t, true, http1, func(http.ResponseWriter, *http.Request) {}) // an agent beside it speaks no TLS for that
	for _, test := range []struct {
		name    string
		answer  string
		hang    bool // keep the connection open after the answer
		timeout time.Duration
		passed  bool
		reason  string
		said    words
	}{
		{"up", "up\n", true, patient, true, "agent: up", words{}},
		{"up without an end of line", "up", false, patient, true, "agent: up", words{}},
		{"CRLF, upper case", "UP Ready\r\n", true, patient, true, "agent: up ready", words{admin: "ready"}},
		{"down", "down\n", true, patient, false, "agent: down", words{down: true}},
		{"stopped", "stopped\n", true, patient, false, "agent: stopped", words{down: true}},
		{"fail", "fail\n", true, patient, false, "agent: fail", words{down: true}},
		{"failed and why", "failed # disk\x1b[2J full\xff\n", true, patient, false, "agent: failed, disk[2J full", words{down: true}},
		{"a long why", "down #" + strings.Repeat("x", 200) + "\n", true, patient, false, "agent: down, " + strings.Repeat("x", 80), words{down: true}},
		{"drain", "drain\n", true, patient, true, "agent: drain", words{admin: "drain"}},
		{"a weight", "50%\n", true, patient, true, "agent: 50%", words{weight: "50%"}},
		{"all of it", "up, maint,\t0%\n", true, patient, true, "agent: up maint 0%", words{admin: "maint", weight: "0%"}},
		{"the last counts", "down up drain ready 10% 20%\n", true, patient, true, "agent: down up drain ready 10% 20%", words{admin: "ready", weight: "20%"}},
		{"a limit of another's", "up maxconn:30\n", true, patient, true, "agent: up maxconn:30", words{}},
		{"only the first line", "up\ndown\n", true, patient, true, "agent: up", words{}},
		{"unknown word", "up sideways\n", true, patient, false, nonsense, words{}},
		{"weight without a sign", "50\n", true, patient, false, nonsense, words{}},
		{"no word", "\n", true, patient, false, nonsense, words{}},
		{"only why", "# nothing\n", true, patient, false, nonsense, words{}},
		{"endless line", strings.Repeat("up,", 1000), true, patient, false, nonsense, words{}}, // cut in the middle of a word
		{"closed", "", false, patient, false, "connection closed before the end of the answer", words{}},
		{"no end of the line", "up", true, slow, false, "timeout after 100ms", words{}},
		{"no answer", "", true, slow, false, "timeout after 100ms", words{}},
	} {
		b := listenRaw(t, func(conn net.Conn) {
			io.WriteString(conn, test.answer)
			if test.hang {
				untilClosed(conn)
			}
		})
		pool := checkedAs(state.HealthCheck{Type: "agent", Port: b.Port, Timeout: state.Duration(test.timeout)})
		got := trusting.probe(t.Context(), pool, secure)
		if want := (result{passed: test.passed, connected: true, reason: test.reason, said: test.said}); got != want {
			t.Errorf("%s: got %+v, want %+v", test.name, got, want)
		}
	}
}

// said is what a probe brings of an agent that says so.
func said(t *testing.T, line string) result {
	t.Helper()
	w, ok := parseWords(line)
	if !ok {
		t.Fatalf("%q says nothing", line)
	}
	return result{passed: !w.down, connected: true, said: w}
}

// What an agent does not speak of stays, and its admin state is told at once.
func TestAgentsWishIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, l := newFacts(t), newLab()
		defer l.Stop()
		f.add(1, state.Healthy)
		f.check(state.HealthCheck{Type: "agent", Port: 81})
		f.do(&state.SetHealth{Verdicts: []state.Verdict{{BackendID: "1", URL: "http://10.0.0.1:1001", Agent: &state.Wish{Weight: "70%"}}}})
		l.Update(f.machine.View(), all)
		for _, step := range []struct {
			line  string
			want  state.Wish
			heard []string
		}{
			{"up", state.Wish{Weight: "70%"}, []string{}}, // what the cluster has agreed
			{"drain", state.Wish{Admin: state.Drain, Weight: "70%"}, []string{"healthy"}},
			{"50%", state.Wish{Admin: state.Drain, Weight: "50%"}, []string{}},
			{"up", state.Wish{Admin: state.Drain, Weight: "50%"}, []string{}},
			{"down", state.Wish{Admin: state.Drain, Weight: "50%"}, []string{}},
			{"maint", state.Wish{Admin: state.Maint, Weight: "50%"}, []string{"healthy"}},
			{"ready 100%", state.Wish{}, []string{"healthy"}},
			{"60%", state.Wish{Weight: "60%"}, []string{}}, // may wait for the next report
			{"0%", state.Wish{Weight: "0%"}, []string{"healthy"}},
			{"1%", state.Wish{Weight: "1%"}, []string{"healthy"}},
		} {
			l.always(said(t, step.line))
			pass(2 * second)
			if o, _ := l.Observation("1"); o.Agent != step.want {
				t.Errorf("after %q: got %+v, want %+v", step.line, o.Agent, step.want)
			}
			wantHeard(t, l, step.heard...)
		}
		l.Update(f.check(state.HealthCheck{Interval: state.Duration(second)}), all)
		pass(2 * second)
		if o, _ := l.Observation("1"); o.Agent != (state.Wish{Weight: "1%"}) {
			t.Errorf("after another interval: got %+v, want the wish kept", o.Agent)
		}
		l.always(passes)
		l.Update(f.check(state.HealthCheck{Type: "tcp"}), all)
		pass(2 * second)
		if o, _ := l.Observation("1"); o.Agent != (state.Wish{}) {
			t.Errorf("without an agent check: got %+v, want no wish", o.Agent)
		}
	})
}
