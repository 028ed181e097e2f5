package state

import (
	"slices"
	"strconv"
	"testing"
)

// opCase applies one operation to the fixture.
type opCase struct {
	name    string
	op      Op
	touched []string // pools that differ afterwards
	code    Code     // of the failure, empty for success
	field   string
	check   func(t *testing.T, v *View)
}

func runOps(t *testing.T, cases []opCase) {
	for _, c := range cases {
		t.Run(c.op.kind()+"/"+c.name, func(t *testing.T) {
			r := newFixture(t)
			before := r.View()
			result := r.commit(t, Command{At: someTime + 1, Op: c.op})
			if c.code != "" {
				checkFailure(t, result, c)
				if result.Index != before.Index {
					t.Errorf("got index %d, want that of the view, %d", result.Index, before.Index)
				}
				if r.View() != before {
					t.Errorf("a failed command made a new view: %s", toJSON(r.View()))
				}
				return
			}
			if result.Err != nil {
				t.Fatalf("got %v, want success", result.Err)
			}
			if want := before.Index + 1; result.Index != want || r.View().Index != want {
				t.Errorf("got index %d in the result and %d in the view, want %d", result.Index, r.View().Index, want)
			}
			checkUntouched(t, before, r.View(), c.touched)
			checkInvariants(t, r.View())
			r.checkViews(t)
			if c.check != nil {
				c.check(t, r.View())
			}
		})
	}
}

func checkFailure(t *testing.T, result Result, want opCase) {
	t.Helper()
	switch err := result.Err; {
	case err == nil:
		t.Fatalf("got success, want %s of field %q", want.code, want.field)
	case err.Code != want.code || err.Field != want.field:
		t.Errorf("got %s of field %q (%v), want %s of field %q", err.Code, err.Field, err, want.code, want.field)
	case err.Message == "":
		t.Error("got no message")
	}
}

// equals checks one value of the view against its JSON-comparable want.
func equals[T any](get func(v *View) T, want T) func(*testing.T, *View) {
	return func(t *testing.T, v *View) {
		t.Helper()
		if got := get(v); toJSON(got) != toJSON(want) {
			t.Errorf("got  %s\nwant %s", toJSON(got), toJSON(want))
		}
	}
}

func getBackend(pool, name string) func(*View) *Backend {
	return func(v *View) *Backend { return v.Pool(pool).Backend(name) }
}

func getBackendNames(pool string) func(*View) []string {
	return func(v *View) (names []string) {
		for _, b := range v.Pool(pool).Backends {
			names = append(names, b.Name)
		}
		return names
	}
}

func getPoolNames(v *View) (names []string) {
	for _, p := range v.Pools {
		names = append(names, p.Name)
	}
	return names
}

func getRoutes(v *View) []Route { return v.Routes }

// newBackend is backend(n) after it was added, but for what edit changes.
func newBackend(n int, edit func(b *Backend)) *Backend {
	b := backend(n)
	b.Protocol, b.Weight, b.Admin, b.Health, b.Since = "http", 1, Ready, Starting, someTime
	edit(&b)
	return &b
}

func TestClusterOps(t *testing.T) {
	runOps(t, []opCase{
		{name: "same id", op: &InitCluster{ClusterID: "c1"}, check: equals(func(v *View) string { return v.ClusterID }, "c1")},
		{name: "other id", op: &InitCluster{ClusterID: "c2"}, code: Conflict, field: "cluster_id"},
		{name: "no id", op: &InitCluster{}, code: Invalid, field: "cluster_id"},
		{name: "pools exist", op: &Seed{Backends: []Backend{backend(9)}}, check: equals(getPoolNames, []string{"api", "empty", "web"})},
	})
}

func TestPoolOps(t *testing.T) {
	full := Pool{
		Name: "full", Settings: Settings{Strategy: RoundRobin, WhenAllDown: FailOpen,
			HealthCheck: HealthCheck{Type: "tcp", Path: "/up", Interval: seconds(5), Timeout: seconds(3), Rise: 4, Fall: 7},
			Timeouts:    Timeouts{Connect: seconds(1), Request: seconds(9)},
		},
	}
	plain := Pool{
		Name: "m", Settings: Settings{Strategy: RoundRobin, WhenAllDown: Reject,
			HealthCheck: DefaultHealthCheck(), Timeouts: DefaultTimeouts(),
		},
	}
	web := func(edit func(p *Pool)) *Pool {
		p := plain
		p.Name = "web"
		p.Backends = pointers([]Backend{*newBackend(1, func(*Backend) {}), *newBackend(2, func(*Backend) {})})
		edit(&p)
		return &p
	}
	twins := pointers([]Backend{backend(8), backend(8)})
	runOps(t, []opCase{
		{name: "defaults", op: &CreatePool{Pool: Pool{Name: "m"}}, touched: []string{"m"},
			check: equals(func(v *View) *Pool { return v.Pool("m") }, &plain)},
		{name: "sorted in", op: &CreatePool{Pool: Pool{Name: "m"}}, touched: []string{"m"},
			check: equals(getPoolNames, []string{"api", "empty", "m", "web"})},
		{name: "all given", op: &CreatePool{Pool: full}, touched: []string{"full"},
			check: equals(func(v *View) *Pool { return v.Pool("full") }, &full)},
		{name: "with backends", op: &CreatePool{Pool: Pool{Name: "m", Backends: pointers([]Backend{backend(8), backend(7)})}}, touched: []string{"m"},
			check: equals(getBackendNames("m"), []string{"b8", "b7"})},
		{name: "health is not the operator's",
			op:      &CreatePool{Pool: Pool{Name: "m", Backends: pointers([]Backend{{ID: "x", Name: "x", Host: "h", Port: 1, Health: Healthy, Since: 5}})}},
			touched: []string{"m"},
			check:   equals(func(v *View) Health { return v.Pool("m").Backend("x").Health }, Starting)},
		{name: "exists", op: &CreatePool{Pool: Pool{Name: "web"}}, code: Exists, field: "name"},
		{name: "no name", op: &CreatePool{}, code: Invalid, field: "name"},
		{name: "backend twice", op: &CreatePool{Pool: Pool{Name: "m", Backends: twins}}, code: Exists, field: "backends[1].name"},
		{name: "backend id of another pool", op: &CreatePool{Pool: Pool{Name: "m", Backends: pointers([]Backend{backend(1)})}}, code: Exists, field: "backends[0].id"},
		{name: "bad backend", op: &CreatePool{Pool: Pool{Name: "m", Backends: pointers([]Backend{{ID: "x", Name: "x", Host: "h"}})}}, code: Invalid, field: "backends[0].port"},

		{name: "nothing named", op: &UpdatePool{Pool: Pool{Name: "web"}}, touched: []string{"web"},
			check: equals(func(v *View) *Pool { return v.Pool("web") }, web(func(*Pool) {}))},
		{name: "one thing named", op: &UpdatePool{Pool: Pool{Name: "web", Settings: Settings{HealthCheck: HealthCheck{Interval: seconds(7)}}}}, touched: []string{"web"},
			check: equals(func(v *View) *Pool { return v.Pool("web") }, web(func(p *Pool) { p.HealthCheck.Interval = seconds(7) }))},
		{name: "backends stay", op: &UpdatePool{Pool: Pool{Name: "web", Settings: Settings{WhenAllDown: FailOpen}, Backends: pointers([]Backend{backend(9)})}}, touched: []string{"web"},
			check: equals(func(v *View) *Pool { return v.Pool("web") }, web(func(p *Pool) { p.WhenAllDown = FailOpen }))},
		{name: "unknown", op: &UpdatePool{Pool: Pool{Name: "nope"}}, code: NotFound, field: "pool"},
		{name: "timeout beyond the old interval", op: &UpdatePool{Pool: Pool{Name: "web", Settings: Settings{HealthCheck: HealthCheck{Timeout: seconds(3)}}}},
			code: Invalid, field: "health_check.timeout"},

		{name: "unused", op: &DeletePool{Name: "empty"}, touched: []string{"empty"}, check: equals(getPoolNames, []string{"api", "web"})},
		{name: "in use by a route", op: &DeletePool{Name: "web"}, code: Conflict, field: "name"},
		{name: "unknown", op: &DeletePool{Name: "nope"}, code: NotFound, field: "pool"},
	})
}

func TestBackendOps(t *testing.T) {
	moved := func(n int, edit func(b *Backend)) *Backend {
		return newBackend(n, func(b *Backend) { b.Since++; edit(b) })
	}
	runOps(t, []opCase{
		{name: "at the end", op: &AddBackend{Pool: "web", Backend: backend(0)}, touched: []string{"web"},
			check: equals(getBackendNames("web"), []string{"b1", "b2", "b0"})},
		{name: "defaults", op: &AddBackend{Pool: "web", Backend: backend(9)}, touched: []string{"web"},
			check: equals(getBackend("web", "b9"), moved(9, func(*Backend) {}))},
		{name: "into an empty pool", op: &AddBackend{Pool: "empty", Backend: backend(9)}, touched: []string{"empty"}},
		{name: "makes the default pool", op: &AddBackend{Pool: "default", Backend: backend(9)}, touched: []string{"default"},
			check: equals(getPoolNames, []string{"api", "default", "empty", "web"})},
		{name: "makes no other pool", op: &AddBackend{Pool: "nope", Backend: backend(9)}, code: NotFound, field: "pool"},
		{name: "name and address of another pool", touched: []string{"web"},
			op: &AddBackend{Pool: "web", Backend: *newBackend(3, func(b *Backend) { b.ID = "new" })}},
		{name: "name taken", op: &AddBackend{Pool: "web", Backend: *newBackend(9, func(b *Backend) { b.Name = "b1" })}, code: Exists, field: "name"},
		{name: "address taken", op: &AddBackend{Pool: "web", Backend: *newBackend(9, func(b *Backend) { b.Host = "10.0.0.1" })}, code: Exists, field: "url"},
		{name: "address taken in another spelling", op: &AddBackend{Pool: "web", Backend: *newBackend(9, func(b *Backend) { b.Host = "::ffff:10.0.0.1" })},
			code: Exists, field: "url"},
		{name: "address taken under another protocol", code: Exists, field: "url",
			op: &AddBackend{Pool: "web", Backend: *newBackend(9, func(b *Backend) { b.Protocol, b.Host = "https", "10.0.0.1" })}},
		{name: "id taken in another pool", op: &AddBackend{Pool: "web", Backend: *newBackend(9, func(b *Backend) { b.ID = "id-3" })}, code: Exists, field: "id"},
		{name: "invalid, no default pool made", op: &AddBackend{Pool: "default", Backend: Backend{ID: "x"}}, code: Invalid, field: "name"},

		{name: "nothing named", op: &UpdateBackend{Pool: "web", Name: "b1"}, touched: []string{"web"},
			check: equals(getBackend("web", "b1"), newBackend(1, func(*Backend) {}))},
		{name: "admin and weight", op: &UpdateBackend{Pool: "web", Name: "b1", Patch: Backend{Admin: Drain, Weight: 7}}, touched: []string{"web"},
			check: equals(getBackend("web", "b1"), newBackend(1, func(b *Backend) { b.Admin, b.Weight = Drain, 7 }))},
		{name: "identity and health stay", touched: []string{"web"},
			op:    &UpdateBackend{Pool: "web", Name: "b1", Patch: Backend{ID: "x", Name: "y", Health: Healthy, Since: 1}},
			check: equals(getBackend("web", "b1"), newBackend(1, func(*Backend) {}))},
		{name: "moved, starting again", op: &UpdateBackend{Pool: "web", Name: "b2", Patch: Backend{Port: 99}}, touched: []string{"web"},
			check: equals(getBackend("web", "b2"), moved(2, func(b *Backend) { b.Port = 99 }))},
		{name: "other protocol, starting again", op: &UpdateBackend{Pool: "web", Name: "b2", Patch: Backend{Protocol: "https"}}, touched: []string{"web"},
			check: equals(getBackend("web", "b2"), moved(2, func(b *Backend) { b.Protocol = "https" }))},
		{name: "onto another's address", op: &UpdateBackend{Pool: "web", Name: "b2", Patch: Backend{Host: "10.0.0.1"}}, code: Exists, field: "url"},
		{name: "onto another's address in another spelling", code: Exists, field: "url",
			op: &UpdateBackend{Pool: "web", Name: "b2", Patch: Backend{Host: "::ffff:10.0.0.1"}}},
		{name: "unknown pool", op: &UpdateBackend{Pool: "nope", Name: "b1"}, code: NotFound, field: "pool"},
		{name: "unknown backend", op: &UpdateBackend{Pool: "web", Name: "b3"}, code: NotFound, field: "backend"},
		{name: "invalid", op: &UpdateBackend{Pool: "web", Name: "b1", Patch: Backend{Weight: -1}}, code: Invalid, field: "weight"},

		{name: "first", op: &RemoveBackend{Pool: "web", Name: "b1"}, touched: []string{"web"}, check: equals(getBackendNames("web"), []string{"b2"})},
		{name: "last", op: &RemoveBackend{Pool: "api", Name: "b3"}, touched: []string{"api"}, check: equals(getBackendNames("api"), nil)},
		{name: "unknown pool", op: &RemoveBackend{Pool: "nope", Name: "b1"}, code: NotFound, field: "pool"},
		{name: "unknown backend", op: &RemoveBackend{Pool: "api", Name: "b1"}, code: NotFound, field: "backend"},
	})
}

func TestRouteOps(t *testing.T) {
	api, all := Route{Host: "example.com", Path: "/api", Pool: "api"}, Route{Path: "/", Pool: "web"}
	put := func(host, path, pool string) Op { return &PutRoute{Route: Route{Host: host, Path: path, Pool: pool}} }
	runOps(t, []opCase{
		{name: "same again", op: put("example.com", "/api", "api"), check: equals(getRoutes, []Route{all, api})},
		{name: "to another pool", op: put("EXAMPLE.com", "/api", "web"),
			check: equals(getRoutes, []Route{all, {Host: "example.com", Path: "/api", Pool: "web"}})},
		{name: "sorted in", op: put("a.com", "", "web"),
			check: equals(getRoutes, []Route{all, {Host: "a.com", Path: "/", Pool: "web"}, api})},
		{name: "unknown pool", op: put("a.com", "/", "nope"), code: NotFound, field: "pool"},
		{name: "no pool", op: put("a.com", "/", ""), code: Invalid, field: "pool"},
		{name: "bad host", op: put("a.com:80", "/", "web"), code: Invalid, field: "host"},
		{name: "bad path", op: put("a.com", "api", "web"), code: Invalid, field: "path"},

		{name: "one", op: &RemoveRoute{Host: "Example.COM", Path: "/api"}, check: equals(getRoutes, []Route{all})},
		{name: "path left out", op: &RemoveRoute{}, check: equals(getRoutes, []Route{api})},
		{name: "unknown", op: &RemoveRoute{Host: "example.com"}, code: NotFound, field: "route"},
	})
}

func TestSetHealth(t *testing.T) {
	verdict := func(n int, h Health) Verdict {
		b := newBackend(n, func(*Backend) {})
		return Verdict{BackendID: b.ID, URL: b.URL(), Health: h}
	}
	set := func(verdicts ...Verdict) Op { return &SetHealth{Verdicts: verdicts} }
	late := verdict(1, Healthy)
	late.URL = "http://10.0.0.1:1"
	runOps(t, []opCase{
		{name: "one", op: set(verdict(2, Healthy)), touched: []string{"web"},
			check: equals(getBackend("web", "b2"), newBackend(2, func(b *Backend) { b.Health, b.Since = Healthy, someTime+1 }))},
		{name: "others of the pool stay", op: set(verdict(2, Healthy)), touched: []string{"web"},
			check: equals(getBackend("web", "b1"), newBackend(1, func(*Backend) {}))},
		{name: "two pools", op: set(verdict(1, Unhealthy), verdict(3, Healthy)), touched: []string{"api", "web"}},
		{name: "none", op: set()},
		{name: "gone backend", op: set(verdict(9, Healthy)), touched: nil},
		{name: "moved backend", op: set(late), touched: nil},
		{name: "starting is no verdict", op: set(verdict(1, Healthy), verdict(2, Starting)), code: Invalid, field: "health"},
		{name: "unknown health", op: set(verdict(1, "well")), code: Invalid, field: "health"},
	})
}

func TestSetHealthKeepsSinceOfAnEqualVerdict(t *testing.T) {
	r := newFixture(t)
	b := r.View().Pool("web").Backend("b1")
	judge := func(at int64, h Health) {
		r.commit(t, Command{At: at, Op: &SetHealth{Verdicts: []Verdict{{BackendID: b.ID, URL: b.URL(), Health: h}}}})
	}
	judge(100, Healthy)
	pool := r.View().Pool("web")
	judge(200, Healthy)
	if got := r.View().Pool("web"); got != pool {
		t.Errorf("an equal verdict changed the pool: %s", toJSON(got))
	}
	judge(300, Unhealthy)
	if got := r.View().Pool("web").Backend("b1"); got.Since != 300 || got.Healthy() {
		t.Errorf("got %s since %d, want unhealthy since 300", got.Health, got.Since)
	}
	if !pool.Backend("b1").Healthy() {
		t.Error("an older view changed")
	}
}

func TestSeed(t *testing.T) {
	r := newReplica()
	result := r.commit(t, Command{Op: &Seed{Backends: []Backend{backend(1), {ID: "x", Name: "b1"}}}})
	if result.Err == nil || len(r.View().Pools) != 0 {
		t.Fatalf("got %v and %d pools, want a failure that leaves nothing", result.Err, len(r.View().Pools))
	}
	r.do(t, &Seed{}, &Seed{Backends: []Backend{backend(1), backend(2)}}, &Seed{Backends: []Backend{backend(3)}})
	if got := getBackendNames(DefaultPool)(r.View()); !slices.Equal(got, []string{"b1", "b2"}) {
		t.Errorf("got backends %v, want b1 and b2", got)
	}
	r.do(t, &DeletePool{Name: DefaultPool}, &Seed{Backends: []Backend{backend(1)}})
	if got := len(r.View().Pools); got != 0 {
		t.Errorf("got %d pools, want a cluster that was emptied left empty", got)
	}
	r.checkViews(t)
}

// The way to a set of facts must not show in them, but for whether there was ever
// a pool.
func TestEmptiedIsLikeNew(t *testing.T) {
	r, fresh := newFixture(t), newReplica()
	r.do(t,
		&RemoveRoute{}, &RemoveRoute{Host: "example.com", Path: "/api"},
		&DeletePool{Name: "api"}, &DeletePool{Name: "empty"},
		&RemoveBackend{Pool: "web", Name: "b1"}, &RemoveBackend{Pool: "web", Name: "b2"},
	)
	fresh.do(t, &InitCluster{ClusterID: "c1"}, &CreatePool{Pool: Pool{Name: "web"}})
	if got, want := toJSON(r.View().content), toJSON(fresh.View().content); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	r.do(t, &DeletePool{Name: "web"})
	fresh = newReplica()
	fresh.do(t, &InitCluster{ClusterID: "c1"}, &CreatePool{Pool: Pool{Name: "other"}}, &DeletePool{Name: "other"})
	if got, want := r.View().Digest(), fresh.View().Digest(); got != want {
		t.Errorf("got digest %s, want %s", got, want)
	}
}

// Nobody probes a backend in maintenance, so it comes back as it first came.
func TestBackFromMaintenanceIsStarting(t *testing.T) {
	m := NewMachine()
	for i, step := range []struct {
		op   Op
		want Health
	}{
		{&AddBackend{Pool: DefaultPool, Backend: Backend{ID: "1", Name: "b", Host: "h", Port: 1}}, Starting},
		{&SetHealth{Verdicts: []Verdict{{BackendID: "1", URL: "http://h:1", Health: Healthy}}}, Healthy},
		{&UpdateBackend{Pool: DefaultPool, Name: "b", Patch: Backend{Admin: Drain}}, Healthy},
		{&UpdateBackend{Pool: DefaultPool, Name: "b", Patch: Backend{Admin: Ready}}, Healthy},
		{&UpdateBackend{Pool: DefaultPool, Name: "b", Patch: Backend{Admin: Maint}}, Healthy},
		{&UpdateBackend{Pool: DefaultPool, Name: "b", Patch: Backend{Admin: Ready}}, Starting},
	} {
		data, err := Command{Op: step.op}.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if result, err := m.Apply(uint64(i+1), data); err != nil || result.Err != nil {
			t.Fatalf("step %d: got %v, %v", i, result.Err, err)
		}
		if got := m.View().Pool(DefaultPool).Backend("b").Health; got != step.want {
			t.Errorf("step %d: got %s, want %s", i, got, step.want)
		}
	}
}

// Spellings that the proxy treats alike are one route.
func TestRouteHasOneSpelling(t *testing.T) {
	r := newReplica()
	r.do(t, &CreatePool{Pool: Pool{Name: "p"}},
		&PutRoute{Route: Route{Host: "Example.com.", Path: "/api/", Pool: "p"}},
		&PutRoute{Route: Route{Host: "example.com", Path: "/api", Pool: "p"}},
		&PutRoute{Route: Route{Path: "//", Pool: "p"}},
		&PutRoute{Route: Route{Pool: "p"}})
	want := []Route{{Path: "/", Pool: "p"}, {Host: "example.com", Path: "/api", Pool: "p"}}
	if got := r.View().Routes; !slices.Equal(got, want) {
		t.Errorf("got routes %v, want %v", got, want)
	}
	r.do(t, &RemoveRoute{Host: "EXAMPLE.com.", Path: "/api/"})
	if got := len(r.View().Routes); got != 1 {
		t.Errorf("got %d routes after removing one by another spelling, want 1", got)
	}
	for _, path := range []string{"/a?b", "/a#b", "/%zz", "a"} {
		if result := r.commit(t, Command{Op: &PutRoute{Route: Route{Path: path, Pool: "p"}}}); result.Err == nil || result.Err.Field != "path" {
			t.Errorf("path %q: got %v, want it refused", path, result.Err)
		}
	}
}

// Some resolvers take these for addresses, others for names.
func TestNumericHostsAreRefused(t *testing.T) {
	for _, host := range []string{"0", "127.1", "0x7f.1", "0x7f000001", "10.0.0.256", "a.1", "a.0x"} {
		if validHost(host) {
			t.Errorf("%q is accepted", host)
		}
	}
	for _, host := range []string{"10.0.0.1", "::1", "web1", "1a", "1.example.com", "a.x1"} {
		if !validHost(host) {
			t.Errorf("%q is refused", host)
		}
	}
}

// A pool of the most backends is made in one command without holding up the log,
// and not one more goes in.
func TestPoolOfMostBackends(t *testing.T) {
	var many []Backend
	for i := range maxBackends {
		id := "many-" + strconv.Itoa(i)
		many = append(many, Backend{ID: id, Name: id, Host: "h", Port: 1 + i})
	}
	r := newReplica()
	r.do(t, &CreatePool{Pool: Pool{Name: "p", Backends: pointers(many)}})
	if got := len(r.View().Pool("p").Backends); got != maxBackends {
		t.Errorf("got %d backends, want %d", got, maxBackends)
	}
	result := r.commit(t, Command{Op: &AddBackend{Pool: "p", Backend: Backend{ID: "x", Name: "x", Host: "x", Port: 1}}})
	if result.Err == nil || result.Err.Code != Invalid {
		t.Errorf("got %v, want one more refused", result.Err)
	}
}
