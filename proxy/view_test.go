package proxy

import (
	"fmt"
	"maps"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"lbnode/state"
)

func TestRoutes(t *testing.T) {
	routes := []state.Route{
		{Host: "", Path: "/", Pool: "any"},
		{Host: "", Path: "/shop", Pool: "shop"},
		{Host: "example.com", Path: "/api", Pool: "api"},
		{Host: "example.com", Path: "/api/v2", Pool: "api2"},
		{Host: "example.com", Path: "/trail/", Pool: "trail"},
		{Host: "example.com", Path: "/caf%C3%A9", Pool: "cafe"},
		{Host: "root.example.com.", Path: "/", Pool: "root"},
		{Host: "::1", Path: "/", Pool: "six"},
	}
	pools := map[string]*pool{}
	for _, r := range routes {
		pools[r.Pool] = &pool{spec: &state.Pool{Name: r.Pool}}
	}
	table := newTable(routes, pools)
	tests := []struct{ host, path, want string }{
		{"example.com", "/api", "api"},
		{"example.com", "/api/", "api"},
		{"example.com", "/api/x/y", "api"},
		{"example.com", "/apix", "any"},
		{"example.com", "/api/v2", "api2"},
		{"example.com", "/api/v2/x", "api2"},
		{"example.com", "/api/v22", "api"},
		{"example.com", "/API", "any"},
		{"example.com", "/trail", "trail"},
		{"example.com", "/trail/x", "trail"},
		{"example.com", "/trailer", "any"},
		{"example.com", "/café/x", "cafe"},
		{"example.com", "/shop/x", "shop"},
		{"example.com", "/", "any"},
		{"example.com", "", "any"},
		{"EXAMPLE.com:8080", "/api", "api"},
		{"example.com.", "/api", "api"},
		{"example.com.:80", "/api", "api"},
		{"root.example.com", "/api", "root"},
		{"sub.root.example.com", "/api", "any"},
		{"[::1]:8080", "/", "six"},
		{"[::1]", "/", "six"},
		{"", "/shop", "shop"},
		{"ex%61mple%2Ecom:80", "/api", "api"},
		{"%45XAMPLE.%63om%2e", "/api", "api"},
		{"example.com%2Fapi", "/api", "any"},
		{"example.com,x", "/api", "any"},
		{"other", "/shopping", "any"},
	}
	for _, test := range tests {
		got := table.route([]byte(test.host), []byte(test.path))
		if got == nil || got.spec.Name != test.want {
			t.Errorf("%s%s: got %v, want pool %s", test.host, test.path, got, test.want)
		}
	}
	if got := newTable(routes[2:], pools).route([]byte("other"), []byte("/api")); got != nil {
		t.Errorf("got pool %s for a host without a route, want none", got.spec.Name)
	}
}

func TestRefusals(t *testing.T) {
	a := startServer(t, "a", nil)
	routes := []state.Route{{Host: "a.example", Path: "/", Pool: "a"}, {Host: "empty.example", Path: "/", Pool: "empty"}}
	counts := newTally()
	p, url := startProxyWith(t, Config{Recorder: counts}, nil)
	mustGet(t, client(t), url, http.StatusServiceUnavailable)
	if got := counts.get("reject no_view"); got != 1 {
		t.Errorf("got %d rejections for want of a view, want 1", got)
	}
	p.SetView(viewOf(routes, poolOf("a", a.backend()), poolOf("empty")))
	tests := []struct {
		head, want, reason string
	}{
		{"GET / HTTP/1.1\r\nHost: a.example\r\n", "HTTP/1.1 200", ""},
		{"GET http://a.example HTTP/1.1\r\nHost: other\r\n", "HTTP/1.1 200", ""},
		{"GET / HTTP/1.0\r\n", "HTTP/1.1 404", "no_route"},
		{"GET / HTTP/1.1\r\nHost: b.example\r\n", "HTTP/1.1 404", "no_route"},
		{"GET / HTTP/1.1\r\nHost: empty.example\r\n", "HTTP/1.1 503", "no_backend"},
		{"CONNECT a.example:80 HTTP/1.1\r\nHost: a.example:80\r\n", "HTTP/1.1 405", "method"},
		{"OPTIONS * HTTP/1.1\r\nHost: b.example\r\n", "HTTP/1.1 200", ""},
		{"GET * HTTP/1.1\r\nHost: a.example\r\n", "HTTP/1.1 400", "bad_request"},
		{"GET ftp://a.example/ HTTP/1.1\r\nHost: a.example\r\n", "HTTP/1.1 400", "bad_request"},
		{"GET /x#y HTTP/1.1\r\nHost: a.example\r\n", "HTTP/1.1 400", "bad_request"},
		{"GET / HTTP/1.1\r\nHost:\r\n", "HTTP/1.1 400", "bad_request"},
		{"POST / HTTP/1.1\r\nHost: b.example\r\nContent-Length: 1000000\r\n", "HTTP/1.1 404", "no_route"},
	}
	for _, test := range tests {
		before := counts.get("reject " + test.reason)
		got := talk(t, url, test.head+"Connection: close\r\n\r\n")
		if len(got) < len(test.want) || got[:len(test.want)] != test.want {
			t.Errorf("%q: got %q, want %s", test.head, got, test.want)
		}
		if now := counts.get("reject " + test.reason); test.reason != "" && now != before+1 {
			t.Errorf("%q: got %d rejections counted as %s, want 1", test.head, now-before, test.reason)
		}
	}
	eventually(t, "connections are counted out", func() bool { return counts.get("connections http") <= 1 })
}

func TestDistribution(t *testing.T) {
	for requests, weights := range map[int][]int{3000: {1, 1, 1}, 480: {3, 2, 1}} {
		t.Run(fmt.Sprint(weights), func(t *testing.T) {
			var servers []*server
			var backends []state.Backend
			total := 0
			for i, w := range weights {
				servers = append(servers, startServer(t, string(rune('a'+i)), nil))
				b := servers[i].backend()
				b.Weight = w
				backends, total = append(backends, b), total+w
			}
			_, url := startProxy(t, Config{Rank: func() int { return 2 }}, backends...)
			const workers = 8
			web := client(t)
			var running sync.WaitGroup
			for range workers {
				running.Go(func() {
					for range requests / workers {
						if code, _, err := get(web, url); err != nil || code != http.StatusOK {
							t.Errorf("got %d, %v; want 200", code, err)
						}
					}
				})
			}
			running.Wait()
			for i, s := range servers {
				got, want := int(s.hits.Load()), requests*weights[i]/total
				if got < want-1 || got > want+1 {
					t.Errorf("%s got %d requests, want %d ± 1", s.name, got, want)
				}
			}
		})
	}
}

func TestNodesDoNotPickInStep(t *testing.T) {
	a, b, c := startServer(t, "a", nil), startServer(t, "b", nil), startServer(t, "c", nil)
	seen := map[string]bool{}
	for rank := range 3 {
		_, url := startProxy(t, Config{Rank: func() int { return rank }}, a.backend(), b.backend(), c.backend())
		seen[mustGet(t, client(t), url, http.StatusOK)] = true
	}
	if len(seen) != 3 {
		t.Errorf("three nodes began with the backends %v, want three different", seen)
	}
}

// answering gives which backends answer 12 requests.
func answering(t *testing.T, url string) map[string]int {
	t.Helper()
	got := map[string]int{}
	web := client(t)
	for range 12 {
		code, body, err := get(web, url)
		if err != nil {
			t.Fatal(err)
		}
		if code != http.StatusOK {
			body = http.StatusText(code)
		}
		got[body]++
	}
	return got
}

func TestEligibility(t *testing.T) {
	a, b, c := startServer(t, "a", nil), startServer(t, "b", nil), startServer(t, "c", nil)
	const none = "Service Unavailable"
	type backends = [3]state.Backend
	tests := map[string]struct {
		change   func(b *backends)
		failOpen bool
		find     func(p *Proxy)
		want     map[string]int
	}{
		"all":               {want: map[string]int{"a": 4, "b": 4, "c": 4}},
		"drain":             {change: func(b *backends) { b[0].Admin = state.Drain }, want: map[string]int{"b": 6, "c": 6}},
		"maint":             {change: func(b *backends) { b[0].Admin = state.Maint }, want: map[string]int{"b": 6, "c": 6}},
		"unhealthy":         {change: func(b *backends) { b[1].Health = state.Unhealthy }, want: map[string]int{"a": 6, "c": 6}},
		"starting":          {change: func(b *backends) { b[1].Health = state.Starting }, want: map[string]int{"a": 6, "c": 6}},
		"unreachable":       {find: func(p *Proxy) { p.SetReachable("id-c", false) }, want: map[string]int{"a": 6, "b": 6}},
		"reachable again":   {find: func(p *Proxy) { p.SetReachable("id-c", false); p.SetReachable("id-c", true) }, want: map[string]int{"a": 4, "b": 4, "c": 4}},
		"unknown":           {find: func(p *Proxy) { p.SetReachable("who", false); p.SetOpinion("who", false) }, want: map[string]int{"a": 4, "b": 4, "c": 4}},
		"all down":          {change: allDown, want: map[string]int{none: 12}},
		"fail open":         {change: allDown, failOpen: true, want: map[string]int{"a": 4, "b": 4, "c": 4}},
		"fail open, drain":  {change: func(b *backends) { allDown(b); b[2].Admin = state.Drain }, failOpen: true, want: map[string]int{"a": 6, "b": 6}},
		"opinion":           {find: func(p *Proxy) { p.SetOpinion("id-a", false) }, want: map[string]int{"a": 4, "b": 4, "c": 4}},
		"own opinion: down": {find: func(p *Proxy) { p.SetOpinion("id-a", false); p.SetAutonomous(true) }, want: map[string]int{"b": 6, "c": 6}},
		"own opinion: up": {change: allDown, find: func(p *Proxy) { p.SetAutonomous(true); p.SetOpinion("id-a", true) },
			want: map[string]int{"a": 12}},
		"no longer autonomous": {find: func(p *Proxy) { p.SetOpinion("id-a", false); p.SetAutonomous(true); p.SetAutonomous(false) },
			want: map[string]int{"a": 4, "b": 4, "c": 4}},
		"own opinion changes": {find: func(p *Proxy) { p.SetAutonomous(true); p.SetOpinion("id-a", false); p.SetOpinion("id-a", true) },
			want: map[string]int{"a": 4, "b": 4, "c": 4}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			list := backends{a.backend(), b.backend(), c.backend()}
			if test.change != nil {
				test.change(&list)
			}
			pool := poolOf(state.DefaultPool, list[:]...)
			if test.failOpen {
				pool.WhenAllDown = state.FailOpen
			}
			p, url := startProxyWith(t, Config{}, viewOf(nil, pool))
			if test.find != nil {
				test.find(p)
			}
			if got := answering(t, url); !maps.Equal(got, test.want) {
				t.Errorf("got answers %v, want %v", got, test.want)
			}
		})
	}
}

func allDown(b *[3]state.Backend) {
	for i := range b {
		b[i].Health = state.Unhealthy
	}
}

func TestFindingsAreForgottenWithTheAddress(t *testing.T) {
	a, b, moved := startServer(t, "a", nil), startServer(t, "b", nil), startServer(t, "moved", nil)
	p, url := startProxy(t, Config{}, a.backend(), b.backend())
	p.SetAutonomous(true)
	p.SetOpinion("id-a", false)
	p.SetReachable("id-a", false)

	weighted := a.backend()
	weighted.Weight = 2
	p.SetView(viewOf(nil, poolOf(state.DefaultPool, weighted, b.backend())))
	if got, want := answering(t, url), map[string]int{"b": 12}; !maps.Equal(got, want) {
		t.Errorf("with another weight: got answers %v, want %v", got, want)
	}
	elsewhere := moved.backend()
	elsewhere.ID, elsewhere.Name = "id-a", "a"
	stale := p.table.Load().pools[state.DefaultPool].targets[0]
	p.SetView(viewOf(nil, poolOf(state.DefaultPool, elsewhere, b.backend())))
	p.found(stale.ID, stale.Local, http.ErrServerClosed) // a late failure at the old address
	if got, want := answering(t, url), map[string]int{"moved": 6, "b": 6}; !maps.Equal(got, want) {
		t.Errorf("at another address: got answers %v, want %v", got, want)
	}
	p.SetOpinion("id-a", false)
	p.SetView(viewOf(nil, poolOf(state.DefaultPool, b.backend())))
	if got := len(p.InFlight()); got != 1 {
		t.Errorf("got %d backends known, want the 1 of the view", got)
	}
	p.SetView(viewOf(nil, poolOf(state.DefaultPool, a.backend(), b.backend())))
	if got, want := answering(t, url), map[string]int{"a": 6, "b": 6}; !maps.Equal(got, want) {
		t.Errorf("back again: got answers %v, want %v", got, want)
	}
}

func TestReachableAgainThroughTraffic(t *testing.T) {
	a, sick := startServer(t, "a", nil), startServer(t, "sick", nil)
	unhealthy := sick.backend()
	unhealthy.Health = state.Unhealthy
	p, url := startProxy(t, Config{}, a.backend(), unhealthy)
	p.SetReachable("id-a", false)
	if got := mustGet(t, client(t), url, http.StatusOK); got != "a" {
		t.Errorf("got an answer from %s, want the only healthy backend to be tried", got)
	}
	if p.findings["id-a"].local.Unreachable.Load() {
		t.Error("got unreachable after a connection was made, want reachable")
	}
}

func TestUntouchedPoolIsLeftAlone(t *testing.T) {
	a, b := startServer(t, "a", nil), startServer(t, "b", nil)
	routes := []state.Route{{Path: "/", Pool: "kept"}}
	kept := poolOf("kept", a.backend(), b.backend())
	p, url := startProxyWith(t, Config{}, viewOf(routes, kept))
	compiled := p.table.Load().pools["kept"]
	web := client(t)
	for i := range 10 {
		if got, want := mustGet(t, web, url, http.StatusOK), string(rune('a'+i%2)); got != want {
			t.Fatalf("request %d went to %s, want %s", i, got, want)
		}
		other := a.backend()
		other.ID = "id-other"
		p.SetView(viewOf(routes, kept, poolOf("other", other)))
	}
	if p.table.Load().pools["kept"] != compiled {
		t.Error("the untouched pool was compiled again")
	}
	// A pool that did change keeps its turn as well.
	for i := range 10 {
		if got, want := mustGet(t, web, url, http.StatusOK), string(rune('a'+i%2)); got != want {
			t.Fatalf("request %d after changes went to %s, want %s", i, got, want)
		}
		p.SetView(viewOf(routes, poolOf("kept", a.backend(), b.backend())))
	}
}

func TestUnknownStrategyStillServes(t *testing.T) {
	a := startServer(t, "a", nil)
	pool := poolOf(state.DefaultPool, a.backend())
	pool.Strategy = "of_the_future"
	_, url := startProxyWith(t, Config{}, viewOf(nil, pool))
	mustGet(t, client(t), url, http.StatusOK)
}

func TestDrainLetsRequestsFinish(t *testing.T) {
	entered, leave := make(chan bool), make(chan bool)
	slow := startServer(t, "slow", func(w http.ResponseWriter, _ *http.Request) {
		entered <- true
		<-leave
		w.Write([]byte("finished"))
	})
	p, url := startProxy(t, Config{}, slow.backend())
	answer := make(chan string)
	web := client(t)
	go func() {
		_, body, err := get(web, url)
		if err != nil {
			body = err.Error()
		}
		answer <- body
	}()
	<-entered
	if got := p.InFlight()["id-slow"]; got != 1 {
		t.Errorf("got %d in flight, want 1", got)
	}
	draining := slow.backend()
	draining.Admin = state.Maint
	p.SetView(viewOf(nil, poolOf(state.DefaultPool, draining)))
	mustGet(t, web, url, http.StatusServiceUnavailable)
	if got := p.InFlight()["id-slow"]; got != 1 {
		t.Errorf("got %d in flight while draining, want 1", got)
	}
	close(leave)
	if got := <-answer; got != "finished" {
		t.Errorf("got %q from the request under way, want it finished", got)
	}
	eventually(t, "nothing is in flight", func() bool { return p.InFlight()["id-slow"] == 0 })
}

func TestChangesUnderLoad(t *testing.T) {
	a, b, c := startServer(t, "a", nil), startServer(t, "b", nil), startServer(t, "c", nil)
	p, url := startProxy(t, Config{}, a.backend(), b.backend(), c.backend())
	var done atomic.Int64
	var stop atomic.Bool
	var running sync.WaitGroup
	web := client(t)
	for range 8 {
		running.Go(func() {
			for !stop.Load() {
				if code, _, err := get(web, url); err != nil || code != http.StatusOK {
					t.Errorf("got %d, %v; want 200", code, err)
					return
				}
				done.Add(1)
			}
		})
	}
	for i := 0; done.Load() < 500 && !t.Failed(); i++ {
		list := []state.Backend{a.backend(), b.backend(), c.backend()}
		list[i%3].Admin = state.Drain
		list[(i+1)%3].Weight = 1 + i%4
		p.SetView(viewOf(nil, poolOf(state.DefaultPool, list[i%2:]...)))
		p.SetReachable("id-a", i%2 == 0)
		p.SetOpinion("id-b", i%3 != 0)
		p.SetAutonomous(i%5 == 0)
		p.InFlight()
	}
	stop.Store(true)
	running.Wait()
}

func TestMeter(t *testing.T) {
	var m meter
	now := time.Unix(1_000_000, 0)
	for second := range 20 {
		at := now.Add(time.Duration(second) * time.Second)
		if want := float64(min(second, 5)) * 100 / 5; m.rate(at) != want {
			t.Errorf("second %d: got %v requests per second, want %v", second, m.rate(at), want)
		}
		for range 100 {
			m.count(at)
		}
	}
	if got := m.rate(now.Add(time.Minute)); got != 0 {
		t.Errorf("got %v after a quiet minute, want 0", got)
	}
}
