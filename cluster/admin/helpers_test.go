package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"lbnode/cluster"
	"lbnode/state"
)

// fakeCluster agrees with itself: a real machine without a log.
type fakeCluster struct {
	mu       sync.Mutex
	machine  *state.Machine
	index    uint64
	status   cluster.Status
	local    cluster.Local
	applied  chan struct{} // closed and replaced by each write
	catchUp  func()        // unless nil, what Barrier waits for
	failure  error         // of Propose, Barrier, Leave and Expel
	notReady error
	left     int
	expelled []string
	hang     chan struct{} // unless nil, Status sends to it, then waits for its context
}

func newFakeCluster() *fakeCluster {
	return &fakeCluster{machine: state.NewMachine(), applied: make(chan struct{}), status: cluster.Status{
		ClusterID: "c1", AsSeenBy: "lb1", Leader: "lb1", Term: 4, CommitIndex: 812, Quorum: 1, Agreement: true, Healthy: true,
		Nodes: []cluster.NodeStatus{{ID: "n1", Name: "lb1", State: cluster.Alive, Member: true, Voter: true, Leader: true}},
	}}
}

func (c *fakeCluster) View() *state.View {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.machine.View()
}

func (c *fakeCluster) Propose(_ context.Context, w cluster.Write) (state.Result, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.failure != nil {
		return state.Result{}, c.failure
	}
	data, err := state.Command{ID: w.RequestID, At: 1_700_000_000_000, IfIndex: w.IfIndex, Op: w.Op}.Encode()
	if err != nil {
		return state.Result{}, err
	}
	c.index++
	close(c.applied)
	c.applied = make(chan struct{})
	return c.machine.Apply(c.index, data)
}

func (c *fakeCluster) Barrier(context.Context) error {
	c.mu.Lock()
	failure, catchUp := c.failure, c.catchUp
	c.mu.Unlock()
	if failure == nil && catchUp != nil {
		catchUp()
	}
	return failure
}

func (c *fakeCluster) NextView(ctx context.Context, index uint64) *state.View {
	for {
		c.mu.Lock()
		view, applied := c.machine.View(), c.applied
		c.mu.Unlock()
		if view.Index > index {
			return view
		}
		select {
		case <-applied:
		case <-ctx.Done():
			return c.View()
		}
	}
}

func (c *fakeCluster) Status(ctx context.Context) cluster.Status {
	c.mu.Lock()
	status, hang := c.status, c.hang
	c.mu.Unlock()
	if hang != nil {
		hang <- struct{}{}
		<-ctx.Done()
	}
	return status
}

func (c *fakeCluster) Leave(context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.failure != nil {
		return c.failure
	}
	c.left++
	return nil
}

func (c *fakeCluster) Expel(_ context.Context, peer string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.failure != nil {
		return c.failure
	}
	c.expelled = append(c.expelled, peer)
	return nil
}

func (c *fakeCluster) Local() cluster.Local {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.local
}

func (c *fakeCluster) Observed(backendID string) *cluster.Observation {
	return c.Local().Backends[backendID].Observation
}

func (c *fakeCluster) Ready() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.notReady
}

// change alters the fake while it serves.
func (c *fakeCluster) change(with func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	with()
}

// apply carries out operations that must succeed.
func (c *fakeCluster) apply(t *testing.T, ops ...state.Op) {
	t.Helper()
	for _, op := range ops {
		if result, err := c.Propose(t.Context(), cluster.Write{Op: op}); err != nil || result.Err != nil {
			t.Fatalf("cannot apply %+v: %v, %v", op, err, result.Err)
		}
	}
}

// serve starts a server over the fake and returns its address.
func serve(t *testing.T, c *fakeCluster, config Config) string {
	t.Helper()
	config.Cluster, config.Local, config.Observed, config.Ready = c, c.Local, c.Observed, c.Ready
	s := New(config)
	addr, err := s.Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := s.Shutdown(ctx); err != nil {
			t.Error(err)
		}
	})
	return addr.String()
}

// answer is what came back.
type answer struct {
	status int
	header http.Header
	body   string
}

// problem decodes the answer as a problem, and checks what all problems have.
func (a answer) problem(t *testing.T) Problem {
	t.Helper()
	var p Problem
	if got, want := a.header.Get("Content-Type"), "application/problem+json"; got != want {
		t.Errorf("content type: got %q, want %q (body %s)", got, want, a.body)
	}
	if err := json.Unmarshal([]byte(a.body), &p); err != nil {
		t.Fatalf("cannot read problem %q: %v", a.body, err)
	}
	title := http.StatusText(a.status)
	if a.status == http.StatusGatewayTimeout {
		title = "Outcome Unknown"
	}
	if p.Type != "about:blank" || p.Status != a.status || p.Title != title || p.Detail == "" || p.Instance == "" {
		t.Errorf("got problem %+v of status %d, want all members filled", p, a.status)
	}
	return p
}

// ask sends a request; headers alternate names and values, "Host" included. A
// body is JSON unless a header says otherwise.
func ask(t *testing.T, method, url, body string, headers ...string) answer {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
		if headers[i] == "Host" {
			req.Host = headers[i+1]
		}
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{resp.StatusCode, resp.Header, string(data)}
}

// webPool is a cluster with one pool of one backend, which a route leads to.
func webPool(t *testing.T) *fakeCluster {
	t.Helper()
	c := newFakeCluster()
	c.apply(t,
		&state.InitCluster{ClusterID: "c1"},
		&state.CreatePool{Pool: state.Pool{Name: "web", Backends: []*state.Backend{{ID: "b1", Name: "web-1", Host: "10.0.0.1", Port: 80}}}},
		&state.CreatePool{Pool: state.Pool{Name: "idle"}},
		&state.PutRoute{Route: state.Route{Path: "/", Pool: "web"}},
	)
	return c
}

var errTest = errors.New("test failure")

// compact removes what indentation added.
func compact(t *testing.T, data []byte) string {
	t.Helper()
	var buf bytes.Buffer
	if err := json.Compact(&buf, data); err != nil {
		t.Fatal(err)
	}
	return buf.String()
}
