package state

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"testing"
)

// asOp gives the operation that puts a view's configuration in place, as whoever
// kept the view would write it.
func asOp(v *View) *Replace {
	op := &Replace{Routes: v.Routes}
	for _, p := range v.Pools {
		op.Pools = append(op.Pools, *p)
	}
	return op
}

func TestReplace(t *testing.T) {
	pool := func(name string, backends ...Backend) Pool { return Pool{Name: name, Backends: pointers(backends)} }
	pools := func(pools ...Pool) *Replace { return &Replace{Pools: pools} }
	route := func(host, path, pool string) Route { return Route{Host: host, Path: path, Pool: pool} }
	everything := []string{"api", "empty", "web"}
	tooMany := make([]Backend, maxBackends+1)
	runOps(t, []opCase{
		{name: "the same", op: asOp(newFixture(t).View()), check: equals(func(v *View) string { return v.Digest() }, newFixture(t).View().Digest())},
		{name: "nothing", op: &Replace{}, touched: everything, check: equals(func(v *View) content { return v.content }, content{ClusterID: "c1", HadPools: true})},
		{name: "sorted", op: pools(pool("b"), pool("c"), pool("a")), touched: append(everything, "a", "b", "c"),
			check: equals(getPoolNames, []string{"a", "b", "c"})},
		{name: "defaults", op: pools(pool("web", backend(9))), touched: everything,
			check: equals(getBackend("web", "b9"), newBackend(9, func(b *Backend) { b.Since++ }))},
		{name: "one pool changes", op: func() Op {
			op := asOp(newFixture(t).View())
			op.Pools[0].WhenAllDown = FailOpen
			return op
		}(), touched: []string{"api"}},
		{name: "backends in their order", op: pools(pool("web", backend(2), backend(0), backend(1))), touched: everything,
			check: equals(getBackendNames("web"), []string{"b2", "b0", "b1"})},
		{name: "routes sorted and in one spelling", touched: append(everything, "a"),
			op:    &Replace{Pools: []Pool{pool("a")}, Routes: []Route{route("B.com.", "/x/", "a"), route("", "", "a"), route("a.com", "/", "a")}},
			check: equals(getRoutes, []Route{route("", "/", "a"), route("a.com", "/", "a"), route("b.com", "/x", "a")})},

		{name: "pool twice", op: pools(pool("a"), pool("b"), pool("a")), code: Exists, field: "pools"},
		{name: "bad pool", op: pools(pool("a"), pool("-")), code: Invalid, field: "pools[1].name"},
		{name: "bad backend", op: pools(pool("a", backend(1), Backend{ID: "x", Name: "x"})), code: Invalid, field: "pools[0].backends[1].host"},
		{name: "backend without id", op: pools(pool("a", Backend{Name: "x", Host: "h", Port: 1})), code: Invalid, field: "pools[0].backends[0].id"},
		{name: "name twice in a pool", op: pools(pool("a", backend(1), *newBackend(2, func(b *Backend) { b.Name = "b1" }))), code: Exists, field: "pools[0].backends[1].name"},
		{name: "address twice in a pool", op: pools(pool("a", backend(1), *newBackend(2, func(b *Backend) { b.Host = "10.0.0.1" }))), code: Exists, field: "pools[0].backends[1].url"},
		{name: "id twice in the cluster", op: pools(pool("a", backend(1)), pool("b", backend(1))), code: Exists, field: "pools[1].backends[0].id"},
		{name: "too many backends", op: pools(pool("a", tooMany...)), code: Invalid, field: fmt.Sprintf("pools[0].backends[%d].name", maxBackends)},
		{name: "route twice", code: Exists, field: "routes",
			op: &Replace{Pools: []Pool{pool("a"), pool("b")}, Routes: []Route{route("x.com", "/", "a"), route("X.com", "", "b")}}},
		{name: "route to a pool that goes", op: &Replace{Pools: []Pool{pool("a")}, Routes: []Route{route("", "/", "web")}}, code: NotFound, field: "routes[0].pool"},
		{name: "bad route", op: &Replace{Pools: []Pool{pool("a")}, Routes: []Route{route("", "/", "a"), route("", "api", "a")}}, code: Invalid, field: "routes[1].path"},
	})
}

// goldenReplaceFile is a log that goes on where the golden log ends.
const goldenReplaceFile = "../testdata/snapshots/replace.jsonl"

func TestGoldenReplace(t *testing.T) {
	op := asOp(restore(t, readGolden(t, goldenSnapshotFile)).View())
	op.Pools = append(op.Pools, Pool{Name: "new", Backends: pointers([]Backend{backend(4)})})
	want := append(encode(t, Command{ID: "replace", At: someTime, Op: op}), '\n')
	if *update {
		if err := os.WriteFile(goldenReplaceFile, want, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	data := readGolden(t, goldenReplaceFile)
	if !bytes.Equal(data, want) {
		t.Errorf("the command is now written otherwise:\n got %s\nwant %s", want, data)
	}
	r := &replica{Machine: restore(t, readGolden(t, goldenSnapshotFile)), index: 100}
	if result := r.applyData(t, 101, data); result.Err != nil {
		t.Fatal(result.Err)
	}
	if got, want := r.View().Digest(), "cbf628a1b1d842bbed29bc808cacc7a6"; got != want {
		t.Errorf("got digest %s, want %s", got, want)
	}
	checkRoundTrip(t, snapshotBytes(t, r.Machine))
}

// What was agreed of a backend holds for it as long as it is the same one at the
// same address and was probed; what a file says of its health counts for nothing.
func TestReplaceKeepsHealth(t *testing.T) {
	r := newFixture(t)
	judge := func(n int, h Health) {
		b := newBackend(n, func(*Backend) {})
		r.commit(t, Command{At: 50, Op: &SetHealth{Verdicts: []Verdict{{BackendID: b.ID, URL: b.URL(), Health: h}}}})
	}
	judge(1, Healthy)
	judge(2, Unhealthy)
	judge(3, Healthy)
	r.do(t, &UpdateBackend{Pool: "api", Name: "b3", Patch: Backend{Admin: Maint}})

	elsewhere, claims := backend(2), backend(7)
	elsewhere.Port++
	claims.Health, claims.Since = Healthy, 5
	for _, test := range []struct {
		name   string
		given  Backend
		health Health
		since  int64
	}{
		{"same", backend(1), Healthy, 50},
		{"same but for its weight", *newBackend(2, func(b *Backend) { b.Weight = 9 }), Unhealthy, 50},
		{"at another port", elsewhere, Starting, 99},
		{"back from maintenance", backend(3), Starting, 99},
		{"still in maintenance", *newBackend(3, func(b *Backend) { b.Admin = Maint }), Healthy, 50},
		{"new, and said to be healthy", claims, Starting, 99},
		{"another id at that address", *newBackend(1, func(b *Backend) { b.ID = "new" }), Starting, 99},
	} {
		m := restore(t, snapshotBytes(t, r.Machine))
		result, err := m.Apply(r.index+1, encode(t, Command{At: 99, Op: &Replace{Pools: []Pool{{Name: "other", Backends: pointers([]Backend{test.given})}}}}))
		if err != nil || result.Err != nil {
			t.Fatalf("%s: %v, %v", test.name, err, result.Err)
		}
		if got := m.View().Pools[0].Backends[0]; got.Health != test.health || got.Since != test.since {
			t.Errorf("%s: got %s since %d, want %s since %d", test.name, got.Health, got.Since, test.health, test.since)
		}
	}
}

// Any state can be put in place of any other, and is then the same but for the
// health of backends that were not there.
func TestReplaceGivesAnyState(t *testing.T) {
	for n := range uint64(draws / 10) {
		from, to := NewMachine(), NewMachine()
		play(t, from, readScript(t, makeSeed(n)), 0)
		play(t, to, readScript(t, makeSeed(n+1000)), 0)
		want := asOp(to.View())
		index := uint64(100_000)
		result, err := from.Apply(index, encode(t, Command{At: 7, Op: want}))
		if err != nil || result.Err != nil {
			t.Fatalf("%d: %v, %v", n, err, result.Err)
		}
		checkInvariants(t, from.View())
		got := asOp(from.View())
		for _, op := range []*Replace{got, want} {
			for i := range op.Pools {
				op.Pools[i].Backends = slices.Clone(op.Pools[i].Backends)
				for j := range op.Pools[i].Backends {
					op.Pools[i].Backends[j].begin(0)
				}
			}
		}
		if toJSON(got) != toJSON(want) {
			t.Fatalf("%d:\n got %s\nwant %s", n, toJSON(got), toJSON(want))
		}
		result, err = from.Apply(index+1, encode(t, Command{At: 8, Op: asOp(from.View())}))
		if err != nil || result.Err != nil {
			t.Fatalf("%d again: %v, %v", n, err, result.Err)
		}
	}
}

// BenchmarkReplace is of 1,000 pools with 10,000 backends in all, of which one
// backend differs.
func BenchmarkReplace(b *testing.B) {
	m := newLargeMachine(b, 1000)
	op := asOp(m.View())
	op.Pools[500].Backends = slices.Clone(op.Pools[500].Backends)
	op.Pools[500].Backends[3].Weight++
	data := encode(b, Command{Op: op})
	index := uint64(2)
	b.ReportAllocs()
	for b.Loop() {
		if result, err := m.Apply(index, data); err != nil || result.Err != nil {
			b.Fatal(err, result.Err)
		}
		index++
	}
}
