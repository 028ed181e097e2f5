package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"lbnode/cluster"
	"lbnode/cluster/admin"
	"lbnode/state"
)

// Nodes are stopped in their tracks for 10 s and go on without knowing. Meanwhile some
// backends fall ill and others get well, and the nodes that run agree on that. What those that
// were stopped still believe must not undo it, though two of five are a majority of some
// backends' observers, and they must serve as soon as they run.
func TestStoppedNodesCastNoStaleVerdict(t *testing.T) {
	for _, test := range []struct {
		name    string
		nodes   int
		victims func(lead *lb, followers []*lb) []*lb
	}{
		{"the leader", 3, func(lead *lb, _ []*lb) []*lb { return []*lb{lead} }},
		{"a follower", 3, func(_ *lb, followers []*lb) []*lb { return followers[:1] }},
		{"two followers of five nodes", 5, func(_ *lb, followers []*lb) []*lb { return followers[:2] }},
		{"the leader and a follower of five", 5, func(lead *lb, followers []*lb) []*lb { return []*lb{lead, followers[0]} }},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			w := startWard(t, test.nodes)
			for range amount(1, 5) {
				w.round(t, test.victims(roles(t, w.nodes)))
			}
		})
	}
}

// ward is a cluster with backends whose health the test decides.
type ward struct {
	nodes    []*lb
	patients []*patient
	stopped  atomic.Bool // some nodes are, and what they asked for slowly is given up
	verdicts *verdicts
}

// patient is a backend that answers each request, be it slowly, and fails probes while
// it is ill.
type patient struct {
	name string
	url  string
	ill  atomic.Bool
	hale bool // it is well all the time
}

func (w *ward) admit(t *testing.T, name string) *patient {
	p := &patient{name: name}
	server := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/" { // so that many are under way when a node is stopped
			<-time.After(200 * time.Millisecond)
		}
		switch {
		case r.URL.Path == "/healthz" && p.ill.Load():
			rw.WriteHeader(http.StatusServiceUnavailable)
		case r.URL.Path == "/slow" && w.stopped.Load():
			panic(http.ErrAbortHandler)
		default:
			fmt.Fprint(rw, "Hello from "+name)
		}
	}))
	t.Cleanup(server.Close)
	p.url = server.URL
	return p
}

// health is what the cluster should say.
func (p *patient) health() string {
	if p.ill.Load() {
		return "unhealthy"
	}
	return "healthy"
}

// startWard starts the nodes and waits until they have judged all patients.
func startWard(t *testing.T, size int) *ward {
	w := &ward{nodes: newLBs(t, size)}
	pool := admin.PoolSpec{
		Name: "default",
		Settings: state.Settings{HealthCheck: state.HealthCheck{Path: "/healthz", Interval: state.Duration(time.Second), Timeout: state.Duration(time.Second), Rise: 2, Fall: 2},
			Timeouts: state.Timeouts{Request: state.Duration(5 * time.Second)}, // less than a node is stopped for
			Limits:   state.Limits{Failures: 5},
			Outlier:  state.Outlier{Consecutive: 5},
		},
	}
	for i := range 16 {
		p := w.admit(t, fmt.Sprintf("web-%d", i+1))
		p.hale = i%4 == 0
		p.ill.Store(i%4 == 1)
		w.patients = append(w.patients, p)
		pool.Backends = append(pool.Backends, admin.BackendSpec{Name: p.name, URL: p.url})
	}
	startAll(w.nodes)
	whole(t, w.nodes)
	insist(t, "the pool is made", func() error { _, err := w.nodes[0].client.CreatePool(t.Context(), pool); return err })
	w.agreed(t, w.nodes)
	return w
}

// agreed waits until the nodes show of each patient how it is.
func (w *ward) agreed(t *testing.T, nodes []*lb) time.Duration {
	t.Helper()
	return eventually(t, patience, "the nodes agree on how the backends are", func() bool {
		return every(nodes, func(n *lb) bool {
			shown := n.health()
			return !slices.ContainsFunc(w.patients, func(p *patient) bool { return shown[p.name] != p.health() })
		})
	})
}

// round stops the victims, has patients fall ill and get well, and lets the victims go on.
func (w *ward) round(t *testing.T, victims []*lb) {
	whole(t, w.nodes)
	rest := without(w.nodes, victims...)
	w.verdicts = follow(t, rest[0])
	defer w.verdicts.stop()
	w.verdicts.expect(t, w.hale())
	before := askAtOnce(victims, 100, http.MethodGet, "/slow")
	hold(t, 100*time.Millisecond)
	signalAll(victims, syscall.SIGSTOP)
	stopped := time.Now()
	w.stopped.Store(true)
	w.change()
	hold(t, time.Second)
	while := askAtOnce(victims, 5, http.MethodPost, "/slow")
	eventually(t, patience, "the victims are missed", func() bool { return missed(rest, victims) })
	agreed := time.Since(stopped) + w.agreed(t, rest)
	w.verdicts.expect(t, w.patients)
	since := w.since(t, rest[0])
	hold(t, 10*time.Second-time.Since(stopped))
	w.stopped.Store(false)
	signalAll(victims, syscall.SIGCONT)
	resumed := time.Now()
	after := askAtOnce(victims, 20, http.MethodPost, "/slow")
	load := startSteadyLoad(t, victims, 50)
	caught := w.agreed(t, victims)
	hold(t, amount(8*time.Second, 20*time.Second)-time.Since(resumed)) // they have reported anew, and observe again
	if got := w.since(t, rest[0]); got != since {
		t.Errorf("got verdicts after %v was agreed on: %v", since, got)
	}
	spared(t, victims)
	t.Logf("%d of %d stopped for %s: agreed after %s, caught up %s after they ran; %d views; requests before %s, while %s, after %s; %s",
		len(victims), len(w.nodes), resumed.Sub(stopped).Round(time.Millisecond), agreed.Round(time.Millisecond), caught.Round(time.Millisecond),
		w.verdicts.conclude(t), before.conclude(t), while.conclude(t), after.conclude(t), load.conclude(t))
}

func signalAll(nodes []*lb, s syscall.Signal) {
	for _, n := range nodes {
		n.cmd.Process.Signal(s)
	}
}

// missed says whether all of the nodes know that the victims do not answer.
func missed(nodes, victims []*lb) bool {
	return every(nodes, func(n *lb) bool {
		v := n.view()
		return v != nil && every(victims, func(lost *lb) bool { return status(v, lost.name) == string(cluster.Failed) })
	})
}

// hale are the patients that are well all the time.
func (w *ward) hale() []*patient {
	return slices.DeleteFunc(slices.Clone(w.patients), func(p *patient) bool { return !p.hale })
}

// change has each patient but those that stay well become what it was not.
func (w *ward) change() {
	for _, p := range w.patients {
		if !p.hale {
			p.ill.Store(!p.ill.Load())
		}
	}
}

// since is when the health of each backend last changed, as the node has it.
func (w *ward) since(t *testing.T, n *lb) string {
	t.Helper()
	backends, err := n.client.Backends(t.Context(), "default")
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	for _, b := range backends {
		fmt.Fprintf(&text, "%s %s since %s, ", b.Name, b.Health, b.Since)
	}
	return text.String()
}

// spared fails the test if a victim took its own absence for the backends' fault.
func spared(t *testing.T, victims []*lb) {
	t.Helper()
	for _, n := range victims {
		text, err := os.ReadFile(n.log)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			if strings.Contains(line, "backend gets no requests") || strings.Contains(line, "backend unreachable") {
				t.Errorf("%s has avoided a backend: %s", n.name, line)
			}
		}
	}
}

// asked is requests of which each must be answered, however late.
type asked struct {
	asking sync.WaitGroup
	began  time.Time

	mu     sync.Mutex
	took   []time.Duration
	failed []string
}

// askAtOnce sends so many requests at once to each of the nodes, each over a connection of its own.
func askAtOnce(nodes []*lb, each int, method, path string) *asked {
	a := &asked{began: time.Now()}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: patience}
	for _, n := range nodes {
		for range each {
			a.asking.Go(func() { a.request(client, method, "http://"+n.http+path) })
		}
	}
	return a
}

func (a *asked) request(client *http.Client, method, url string) {
	err := send(client, method, url)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.took = append(a.took, time.Since(a.began))
	if err != nil {
		a.failed = append(a.failed, err.Error())
	}
}

func send(client *http.Client, method, url string) error {
	request, err := http.NewRequest(method, url, nil)
	if err != nil {
		return err
	}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s %s: %s", method, url, response.Status)
	}
	return nil
}

// conclude waits for the answers and fails the test if one is not as it should be.
func (a *asked) conclude(t *testing.T) string {
	t.Helper()
	a.asking.Wait()
	if len(a.failed) > 0 {
		t.Errorf("got %d of %d requests failed, want 0, the first: %s", len(a.failed), len(a.took), a.failed[0])
	}
	return spread(a.took)
}

// verdicts is all that a node's views say of the health of backends.
type verdicts struct {
	cancel    context.CancelFunc
	following sync.WaitGroup
	node      *lb

	mu    sync.Mutex
	index uint64 // of the last view
	views int
	wants map[string]want
	wrong []string
}

// want is what views from some index on must say of a backend.
type want struct {
	health string
	from   uint64
}

// follow waits for one view of a node after the other.
func follow(t *testing.T, n *lb) *verdicts {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	v := &verdicts{cancel: cancel, node: n, wants: map[string]want{}}
	if err := v.next(ctx); err != nil {
		t.Fatal(err)
	}
	v.following.Go(func() { v.run(ctx) })
	t.Cleanup(v.stop)
	return v
}

func (v *verdicts) run(ctx context.Context) {
	for ctx.Err() == nil {
		if err := v.next(ctx); err != nil && ctx.Err() == nil {
			v.mu.Lock()
			v.wrong = append(v.wrong, "cannot follow the views: "+err.Error())
			v.mu.Unlock()
			return
		}
	}
}

// next waits for a view newer than the last one.
func (v *verdicts) next(ctx context.Context) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("http://%s/v1/pools/default?index=%d&wait=1s", v.node.admin, v.index), nil)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	var pool admin.Pool
	if err := json.NewDecoder(response.Body).Decode(&pool); err != nil {
		return err
	}
	var index uint64
	if _, err := fmt.Sscanf(response.Header.Get("ETag"), `"%d"`, &index); err != nil {
		return fmt.Errorf("no index in the ETag of a %s: %w", response.Status, err)
	}
	v.note(index, pool.Backends)
	return nil
}

func (v *verdicts) note(index uint64, backends []admin.Backend) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if index > v.index {
		v.index = index
		v.views++
	}
	for _, b := range backends {
		if want, ok := v.wants[b.Name]; ok && index >= want.from && string(b.Health) != want.health {
			v.wrong = append(v.wrong, fmt.Sprintf("%s was found %s at index %d: %s", b.Name, b.Health, index, b.Reason))
		}
	}
}

// expect has all views from the node's present one on say how these patients are now.
func (v *verdicts) expect(t *testing.T, patients []*patient) {
	t.Helper()
	var index uint64
	eventually(t, patience, "the node shows its view", func() bool { index = own(v.node.view()).View.Index; return index > 0 })
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, p := range patients {
		v.wants[p.name] = want{p.health(), index}
	}
}

func (v *verdicts) stop() {
	v.cancel()
	v.following.Wait()
}

// conclude fails the test if a view was wrong, and returns how many there were.
func (v *verdicts) conclude(t *testing.T) int {
	t.Helper()
	v.stop()
	if len(v.wrong) > 0 {
		t.Errorf("got %d wrong views, the first: %s", len(v.wrong), v.wrong[0])
	}
	return v.views
}
