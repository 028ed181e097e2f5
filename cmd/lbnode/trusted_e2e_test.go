package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"lbnode/cluster/admin"
)

// reply is an answer of the admin API.
type reply struct {
	status int
	index  uint64 // of the view, from the ETag; 0 if there is none
	body   []byte
	err    error
}

// ask sends a request to the node's admin API; headers alternate names and values.
func (n *lb) ask(method, path, body string, headers ...string) (r reply) {
	request, err := http.NewRequest(method, "http://"+n.admin+path, strings.NewReader(body))
	if err != nil {
		return reply{err: err}
	}
	request.Header.Set("Content-Type", "application/json")
	for i := 0; i < len(headers); i += 2 {
		request.Header.Set(headers[i], headers[i+1])
	}
	client := http.Client{Timeout: time.Minute}
	response, err := client.Do(request)
	if err != nil {
		return reply{err: err}
	}
	defer response.Body.Close()
	r.status = response.StatusCode
	r.index, _ = strconv.ParseUint(strings.Trim(response.Header.Get("ETag"), `"`), 10, 64)
	r.body, r.err = io.ReadAll(response.Body)
	return r
}

// names lists the backends in the answer of /v1/pools/default/backends.
func (r reply) names(t *testing.T) []string {
	t.Helper()
	var backends []admin.Backend
	if err := json.Unmarshal(r.body, &backends); r.err != nil || r.status != http.StatusOK || err != nil {
		t.Fatalf("cannot read backends: got %d %s, %v", r.status, r.body, r.err)
	}
	var names []string
	for _, b := range backends {
		names = append(names, b.Name)
	}
	return names
}

const defaultBackends = "/v1/pools/default/backends"

// add writes a backend until the write is taken, with one key, as it may take an
// election.
func add(t *testing.T, n *lb, name string, port int) admin.Backend {
	t.Helper()
	var r reply
	eventually(t, time.Minute, n.name+" takes the backend "+name, func() bool {
		r = n.ask("POST", defaultBackends, fmt.Sprintf(`{"name":%q,"host":"127.0.0.1","port":%d}`, name, port), "Idempotency-Key", "add "+name)
		return r.err == nil && r.status != http.StatusServiceUnavailable && r.status != http.StatusGatewayTimeout
	})
	var b admin.Backend
	if err := json.Unmarshal(r.body, &b); r.status != http.StatusCreated || err != nil {
		t.Fatalf("%s: got %d %s, want the backend %s", n.name, r.status, r.body, name)
	}
	return b
}

// TestTrustedReadsAndWrites: what one node answered is read on another, a reader
// that waits is woken, and without quorum nothing is claimed that is not so.
func TestTrustedReadsAndWrites(t *testing.T) {
	t.Parallel()
	nodes := newLBs(t, 3)
	startAll(nodes)
	(&fleet{nodes: nodes}).waitHealthy(t, "three nodes form one cluster", nodes, 3)

	for i := range 30 {
		name := fmt.Sprintf("web-%d", i)
		add(t, nodes[i%3], name, 3000+i)
		reader := nodes[(i+1)%3]
		var read reply
		eventually(t, time.Minute, "a consistent read is answered", func() bool {
			read = reader.ask("GET", defaultBackends+"?consistent=1", "")
			return read.status != http.StatusServiceUnavailable
		})
		if got := read.names(t); !slices.Contains(got, name) {
			t.Fatalf("%s does not know %s, which %s has answered: %v", reader.name, name, nodes[i%3].name, got)
		}
	}

	t.Run("blocking", func(t *testing.T) { testBlockingRead(t, nodes) })
	t.Run("metrics", func(t *testing.T) { testCommitMetrics(t, nodes) })
	t.Run("no quorum", func(t *testing.T) { testWithoutQuorum(t, nodes) })
}

func testBlockingRead(t *testing.T, nodes []*lb) {
	before := nodes[0].ask("GET", defaultBackends+"?consistent=1", "").index
	woken := make(chan reply, 1)
	go func() {
		at := before
		for { // other changes may come first
			r := nodes[1].ask("GET", fmt.Sprintf("%s?index=%d&wait=50s", defaultBackends, at), "")
			if r.err != nil || r.status != http.StatusOK || r.index <= at || strings.Contains(string(r.body), `"late"`) {
				woken <- r
				return
			}
			at = r.index
		}
	}()
	add(t, nodes[0], "late", 4000)
	if r := <-woken; !slices.Contains(r.names(t), "late") {
		t.Errorf("the reader woke at view %d without the change: %s", r.index, r.body)
	}
}

// testCommitMetrics: whoever leads has counted the writes, and all have a log.
func testCommitMetrics(t *testing.T, nodes []*lb) {
	value := func(n *lb, metric string) float64 {
		match := regexp.MustCompile(`(?m)^` + metric + ` (\S+)$`).FindSubmatch(n.ask("GET", "/metrics", "").body)
		if match == nil {
			t.Fatalf("%s has no %s", n.name, metric)
		}
		v, err := strconv.ParseFloat(string(match[1]), 64)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	commits := 0.0
	for _, n := range nodes {
		commits += value(n, "lbnode_raft_commit_duration_seconds_count")
		if got := value(n, "lbnode_raft_store_bytes"); got < 4096 {
			t.Errorf("%s: size of the log: got %v bytes, want some pages", n.name, got)
		}
	}
	if commits < 30 {
		t.Errorf("commits counted by all nodes: got %v, want 30 or more", commits)
	}
}

// testWithoutQuorum keeps the leader: it takes the write before it knows that it
// leads nobody.
func testWithoutQuorum(t *testing.T, nodes []*lb) {
	leader := nodes[0].view().Leader
	left := nodes[max(0, slices.IndexFunc(nodes, func(n *lb) bool { return n.name == leader }))]
	for _, n := range nodes {
		if n != left {
			n.kill()
		}
	}
	written := make(chan reply, 1)
	go func() {
		written <- left.ask("POST", defaultBackends, `{"name":"once","host":"127.0.0.1","port":5000}`, "Idempotency-Key", "add once")
	}()
	began := time.Now()
	read := left.ask("GET", defaultBackends+"?consistent=1", "")
	t.Logf("a consistent read without quorum was answered after %s: %s", time.Since(began).Round(time.Millisecond), read.body)
	if read.status != http.StatusServiceUnavailable {
		t.Errorf("consistent read without quorum: got %d, want 503", read.status)
	}
	write := <-written
	t.Logf("a write without quorum was answered after %s: %s", time.Since(began).Round(time.Millisecond), write.body)
	told := map[int]string{http.StatusServiceUnavailable: "has not happened", http.StatusGatewayTimeout: "may have happened"}[write.status]
	if told == "" || !strings.Contains(string(write.body), told) {
		t.Errorf("write without quorum: got %d %s, want 503 and that it has not happened, or 504 and that it may have", write.status, write.body)
	}
	if got := left.ask("GET", defaultBackends, "").names(t); len(got) != 31 {
		t.Errorf("plain read without quorum: got %d backends, want all 31", len(got))
	}
	for _, n := range nodes {
		if n != left {
			n.start()
		}
	}
	// The first try may yet take effect; with its key, each further one is the same.
	id := add(t, left, "once", 5000).ID
	for _, n := range nodes {
		if got := add(t, n, "once", 5000).ID; got != id {
			t.Errorf("repeated on %s: got the id %s, want %s", n.name, got, id)
		}
	}
}
