package admin

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"lbnode/cluster"
	"lbnode/state"
)

func TestConsistentReads(t *testing.T) {
	for _, test := range []struct {
		query   string
		barrier bool
	}{
		{"", false},
		{"?pretty", false},
		{"?consistent=0", false},
		{"?consistent=false", false},
		{"?consistent", true},
		{"?consistent=1", true},
		{"?consistent=true&pretty", true},
		{"?index=4&wait=1s&consistent=1", true}, // in this order
	} {
		for _, path := range []string{"/v1/pools", "/v1/pools/web", "/v1/pools/web/backends", "/v1/pools/web/backends/web-1", "/v1/routes"} {
			c := webPool(t)
			c.catchUp = func() { c.apply(t, &state.CreatePool{Pool: state.Pool{Name: "late"}}) }
			addr := serve(t, c, Config{})
			want := `"4"`
			if test.barrier {
				want = `"5"`
			}
			got := ask(t, "GET", "http://"+addr+path+test.query, "")
			if got.status != 200 || got.header.Get("ETag") != want {
				t.Errorf("%s%s: got %d, view %s, want 200, view %s", path, test.query, got.status, got.header.Get("ETag"), want)
			}
		}
	}
}

func TestConsistentReadWithoutQuorum(t *testing.T) {
	c := webPool(t)
	c.failure = fmt.Errorf("%w: 1 of 3 voters is alive", cluster.ErrNoLeader)
	addr := serve(t, c, Config{})
	for _, query := range []string{"consistent=1", "index=1000&wait=10m&consistent=1"} {
		got := ask(t, "GET", "http://"+addr+"/v1/pools?"+query, "")
		if got.status != 503 || got.header.Get("Retry-After") == "" {
			t.Errorf("%s: got %d, want 503 and when to retry", query, got.status)
		}
		if p := got.problem(t); !strings.Contains(p.Detail, "1 of 3 voters is alive") {
			t.Errorf("%s: got %q, want the reason", query, p.Detail)
		}
	}
	if got := ask(t, "GET", "http://"+addr+"/v1/pools?index=0", ""); got.status != 200 {
		t.Errorf("plain read: got %d, want 200", got.status)
	}
}

func TestBadFreshness(t *testing.T) {
	addr := serve(t, webPool(t), Config{})
	for _, test := range []struct{ query, field string }{
		{"consistent=yes", "consistent"},
		{"consistent=2", "consistent"},
		{"index=", "index"},
		{"index=-1", "index"},
		{"index=" + url.QueryEscape(`"4"`), "index"},
		{"index=99999999999999999999", "index"},
		{"index=1e3", "index"},
		{"wait=30s", "wait"},
		{"wait=30s&consistent=1", "wait"},
		{"index=4&wait=30", "wait"},
		{"index=4&wait=", "wait"},
		{"index=4&wait=-1s", "wait"},
		{"index=4&wait=10m1s", "wait"},
		{"index=4&wait=9999999h", "wait"},
		{"index=x&wait=1ms&consistent=1", "index"},
		{"index=" + strings.Repeat("9", 5000), "index"},
	} {
		got := ask(t, "GET", "http://"+addr+"/v1/pools?"+test.query, "")
		if got.status != 400 {
			t.Errorf("%.50s: got %d, want 400", test.query, got.status)
			continue
		}
		if p := got.problem(t); p.Field != test.field || p.Hint == "" || len(got.body) > 1024 {
			t.Errorf("%.50s: got %+v, want the field %s and a hint, in short", test.query, p, test.field)
		}
	}
}

// pipes is a listener without a network, so that time in a synctest bubble can
// pass over it.
type pipes struct {
	dialled chan net.Conn
	closed  chan struct{}
	once    sync.Once
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case conn := <-p.dialled:
		return conn, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	p.once.Do(func() { close(p.closed) })
	return nil
}

func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipes"} }

func (p *pipes) dial(context.Context, string, string) (net.Conn, error) {
	near, far := net.Pipe()
	select {
	case p.dialled <- far:
		return near, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

// blockable is a server within a bubble, and a client of it.
type blockable struct {
	*fakeCluster
	server *Server
	client *http.Client
}

func newBlockable(t *testing.T) *blockable {
	t.Helper()
	c := webPool(t)
	b := &blockable{fakeCluster: c, server: New(Config{Cluster: c, Local: c.Local, Observed: c.Observed, Ready: c.Ready})}
	l := &pipes{dialled: make(chan net.Conn), closed: make(chan struct{})}
	b.server.serving.Go(func() { b.server.serve(l) })
	transport := &http.Transport{DialContext: l.dial}
	b.client = &http.Client{Transport: transport}
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		if err := b.server.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return b
}

// blockedRead is a read under way; its answer comes later.
type blockedRead struct {
	done   chan struct{}
	answer answer
	took   time.Duration
	err    error
}

func (b *blockable) read(ctx context.Context, query string) *blockedRead {
	r := &blockedRead{done: make(chan struct{})}
	began := time.Now()
	go func() {
		defer close(r.done)
		r.answer, r.err = b.get(ctx, "/v1/pools?"+query)
		r.took = time.Since(began)
	}()
	return r
}

func (b *blockable) get(ctx context.Context, path string) (a answer, err error) {
	req, err := http.NewRequestWithContext(ctx, "GET", "http://lbnode"+path, nil)
	if err != nil {
		return a, err
	}
	req.Host = "localhost"
	resp, err := b.client.Do(req)
	if err != nil {
		return a, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return answer{resp.StatusCode, resp.Header, string(body)}, err
}

// check waits for the answer, which must be the view of that index after that time.
func (r *blockedRead) check(t *testing.T, after time.Duration, tag string) {
	t.Helper()
	<-r.done
	if r.err != nil || r.answer.status != 200 || r.answer.header.Get("ETag") != tag || r.took != after {
		t.Errorf("got %d, view %s, %v after %s, want 200, view %s after %s", r.answer.status, r.answer.header.Get("ETag"), r.err, r.took, tag, after)
	}
}

// TestBlockingReadWaitsForItsTime also shows that the server's deadlines for
// requests and answers, 15 s and 45 s, do not end it.
func TestBlockingReadWaitsForItsTime(t *testing.T) {
	for _, test := range []struct {
		query string
		after time.Duration
	}{
		{"index=3", 0},
		{"index=0&wait=10m", 0},
		{"index=4&wait=0s", 0},
		{"index=4&wait=30s", 30 * time.Second},
		{"index=1000&wait=30s", 30 * time.Second}, // of a view that never was
		{"index=4", 5 * time.Minute},
		{"index=4&wait=10m", 10 * time.Minute},
	} {
		synctest.Test(t, func(t *testing.T) {
			b := newBlockable(t)
			b.read(t.Context(), test.query).check(t, test.after, `"4"`)
			b.read(t.Context(), "").check(t, 0, `"4"`) // the connection can still be used
		})
	}
}

func TestBlockingReadWakes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBlockable(t)
		next, later := b.read(t.Context(), "index=4&consistent=1"), b.read(t.Context(), "index=5&wait=10m")
		time.Sleep(2 * time.Minute)
		b.apply(t, &state.DeletePool{Name: "idle"})
		next.check(t, 2*time.Minute, `"5"`)
		if strings.Contains(next.answer.body, "idle") {
			t.Errorf("got %s, want the view that the change made", next.answer.body)
		}
		time.Sleep(time.Minute)
		b.apply(t, &state.CreatePool{Pool: state.Pool{Name: "api"}})
		later.check(t, 3*time.Minute, `"6"`)
	})
}

func TestShutdownAnswersBlockingReads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBlockable(t)
		waiting := b.read(t.Context(), "index=4")
		time.Sleep(time.Minute)
		if err := b.server.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
		waiting.check(t, time.Minute, `"4"`)
	})
}

func TestBlockingReadEndsWithItsClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBlockable(t)
		ctx, hangUp := context.WithCancel(t.Context())
		waiting := b.read(ctx, "index=4")
		synctest.Wait()
		if got := len(b.server.blocked); got != 1 {
			t.Fatalf("reads that wait: got %d, want 1", got)
		}
		hangUp()
		<-waiting.done
		synctest.Wait()
		if got := len(b.server.blocked); got != 0 {
			t.Errorf("reads that wait without a client: got %d, want 0", got)
		}
	})
}

func TestBlockingReadsAreLimited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBlockable(t)
		var waiting []*blockedRead
		for range cap(b.server.blocked) {
			waiting = append(waiting, b.read(t.Context(), "index=4"))
			synctest.Wait() // a crowd that has yet to ask would be displaced
		}
		synctest.Wait()
		excess := b.read(t.Context(), "index=4")
		<-excess.done
		if excess.answer.status != 429 || excess.answer.header.Get("Retry-After") == "" {
			t.Errorf("one more: got %d %v, want 429 and when to retry", excess.answer.status, excess.err)
		}
		excess.answer.problem(t)
		b.read(t.Context(), "index=3").check(t, 0, `"4"`) // need not wait
		b.read(t.Context(), "consistent=1").check(t, 0, `"4"`)
		b.apply(t, &state.DeletePool{Name: "idle"})
		for _, r := range waiting {
			r.check(t, 0, `"5"`)
		}
		b.read(t.Context(), "index=5&wait=1s").check(t, time.Second, `"5"`)
	})
}
