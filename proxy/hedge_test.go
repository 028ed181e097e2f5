package proxy

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"lbnode/state"
)

// hedged is a pool that sends a request to a second backend after that time.
func hedged(after time.Duration, backends ...*server) *state.Pool {
	pool := poolOf(state.DefaultPool)
	for _, b := range backends {
		pool.Backends = append(pool.Backends, new(b.backend()))
	}
	pool.Timeouts.Hedge = state.Duration(after)
	return pool
}

// after answers with the name once the time is over, unless the request is given up.
func after(d time.Duration, name string, given chan<- string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		select {
		case <-time.After(d):
			io.WriteString(w, name)
		case <-r.Context().Done():
			given <- name
		}
	}
}

func TestHedge(t *testing.T) {
	for name, test := range map[string]struct {
		first, second time.Duration
		method        string
		want          string
	}{
		"the second is quicker":   {time.Minute, 0, "GET", "second"},
		"the first is still":      {300 * time.Millisecond, time.Minute, "PUT", "first"},
		"not to be sent twice":    {300 * time.Millisecond, 0, "POST", "first"},
		"the first is in time":    {0, time.Minute, "GET", "first"},
		"both are equally fast":   {50 * time.Millisecond, 0, "GET", ""},
		"with a body that is all": {time.Minute, 0, "PUT", "second"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			given := make(chan string, 1)
			first := startServer(t, "first", after(test.first, "first", given))
			second := startServer(t, "second", after(test.second, "second", given))
			counts := newTally()
			p, url := startProxyWith(t, Config{Recorder: counts}, viewOf(nil, hedged(50*time.Millisecond, first, second)))
			req, _ := http.NewRequest(test.method, url, strings.NewReader("body"))
			if test.method == "GET" {
				req.Body, req.ContentLength = nil, 0
			}
			res, err := client(t).Do(req)
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(res.Body)
			if err != nil || res.StatusCode != http.StatusOK || test.want != "" && string(body) != test.want {
				t.Fatalf("got %d, %q, %v; want 200, %q", res.StatusCode, body, err, test.want)
			}
			if test.want != "" && counts.get("retry default hedge") == 1 {
				if lost := <-given; lost == test.want {
					t.Errorf("%s was given up", lost)
				}
			}
			eventually(t, "nothing is in flight", func() bool { return inFlight(p) == 0 })
		})
	}
}

// inFlight is how many attempts a proxy counts at its backends.
func inFlight(p *Proxy) (n int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, f := range p.findings {
		n += f.local.InFlight.Load()
	}
	return n
}

func TestHedgeWhenBothFail(t *testing.T) {
	reset := func(w http.ResponseWriter, _ *http.Request) {
		<-time.After(100 * time.Millisecond)
		panic(http.ErrAbortHandler)
	}
	counts := newTally()
	pool := hedged(20*time.Millisecond, startServer(t, "a", reset), startServer(t, "b", reset))
	p, url := startProxyWith(t, Config{Recorder: counts}, viewOf(nil, pool))
	mustGet(t, client(t), url, http.StatusBadGateway)
	if got := counts.get("retry default hedge"); got != 1 {
		t.Errorf("got %d hedges, want 1", got)
	}
	eventually(t, "nothing is in flight", func() bool { return inFlight(p) == 0 })
}

// However two attempts meet, the client gets one whole answer, and connections that are
// used again carry no answer that another request asked for.
func TestHedgesUnderLoad(t *testing.T) {
	echo := func(w http.ResponseWriter, r *http.Request) {
		<-time.After(rand.N(4 * time.Millisecond))
		io.WriteString(w, r.URL.Path)
		if rand.N(50) == 0 {
			panic(http.ErrAbortHandler)
		}
		io.WriteString(w, "/end")
	}
	pool := hedged(time.Millisecond)
	for i := range 3 {
		pool.Backends = append(pool.Backends, new(startServer(t, fmt.Sprint("b", i), echo).backend()))
	}
	counts := newTally()
	p, url := startProxyWith(t, Config{Recorder: counts}, viewOf(nil, pool))
	var clients sync.WaitGroup
	for i := range 8 {
		clients.Go(func() {
			c := client(t)
			for j := range 150 {
				path := fmt.Sprintf("/%d/%d", i, j)
				res, err := c.Get(url + path)
				if err != nil {
					continue // cut short, as it had to be
				}
				body, err := io.ReadAll(res.Body)
				res.Body.Close()
				if err == nil && res.StatusCode == http.StatusOK && string(body) != path+"/end" {
					t.Errorf("got %q, want %q", body, path+"/end")
				}
			}
		})
	}
	clients.Wait()
	if counts.get("retry default hedge") == 0 {
		t.Error("no request was hedged")
	}
	eventually(t, "nothing is in flight", func() bool { return inFlight(p) == 0 })
}
