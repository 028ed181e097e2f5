package state

import (
	"encoding/json"
	"fmt"
	"slices"
	"testing"
	"time"
)

// someTime is the proposer's clock in tests, in milliseconds since 1970.
const someTime = 1_700_000_000_000

// replica is a machine, the index of its last log entry and every view it ever
// had, with the JSON of each one's content at the time.
type replica struct {
	*Machine
	index uint64
	seen  []seenView
}

type seenView struct {
	view  *View
	index uint64
	json  string
}

func newReplica() *replica {
	r := &replica{Machine: NewMachine()}
	r.look()
	return r
}

// look keeps the present view for checkViews.
func (r *replica) look() {
	if n := len(r.seen); n > 0 && r.seen[n-1].view == r.View() {
		return
	}
	r.seen = append(r.seen, seenView{r.View(), r.View().Index, toJSON(r.View().content)})
}

// commit applies the command as the next log entry.
func (r *replica) commit(t testing.TB, cmd Command) Result {
	t.Helper()
	r.index++
	return r.applyData(t, r.index, encode(t, cmd))
}

func (r *replica) applyData(t testing.TB, index uint64, data []byte) Result {
	t.Helper()
	result, err := r.Apply(index, data)
	if err != nil {
		t.Fatalf("Apply(%d, %s): %v", index, data, err)
	}
	r.look()
	return result
}

// do applies an operation, under a request id of its own, that must succeed.
func (r *replica) do(t testing.TB, ops ...Op) {
	t.Helper()
	for _, op := range ops {
		cmd := Command{ID: fmt.Sprintf("do-%d", r.index+1), At: someTime, Op: op}
		if result := r.commit(t, cmd); result.Err != nil {
			t.Fatalf("%s %s: %v", op.kind(), toJSON(op), result.Err)
		}
	}
}

// checkViews fails the test if a view is not what it was when it was new.
func (r *replica) checkViews(t testing.TB) {
	t.Helper()
	for _, s := range r.seen {
		if got := toJSON(s.view.content); got != s.json || s.view.Index != s.index {
			t.Fatalf("the view of index %d changed after it was handed out\n got %d %s\nwant %s", s.index, s.view.Index, got, s.json)
		}
	}
}

// newFixture returns a cluster with the pools api (1 backend) and web (2), one
// route to each, and an empty pool without routes.
func newFixture(t testing.TB) *replica {
	t.Helper()
	r := newReplica()
	r.do(t,
		&InitCluster{ClusterID: "c1"},
		&CreatePool{Pool: Pool{Name: "web", Backends: pointers([]Backend{backend(1), backend(2)})}},
		&CreatePool{Pool: Pool{Name: "api", Backends: pointers([]Backend{backend(3)})}},
		&CreatePool{Pool: Pool{Name: "empty"}},
		&PutRoute{Route: Route{Host: "example.com", Path: "/api", Pool: "api"}},
		&PutRoute{Route: Route{Pool: "web"}},
	)
	return r
}

// backend makes backend n as a request names it: without defaults or health.
func backend(n int) Backend {
	return Backend{ID: fmt.Sprintf("id-%d", n), Name: fmt.Sprintf("b%d", n), Host: fmt.Sprintf("10.0.0.%d", n), Port: 8080}
}

func seconds(n int) Duration { return Duration(time.Duration(n) * time.Second) }

func toJSON(value any) string {
	data, err := json.Marshal(value)
	if err != nil {
		panic(err)
	}
	return string(data)
}

func encode(t testing.TB, cmd Command) []byte {
	t.Helper()
	data, err := cmd.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func snapshotBytes(t testing.TB, m *Machine) []byte {
	t.Helper()
	data, err := m.Snapshot().Encode()
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func restore(t testing.TB, data []byte) *Machine {
	t.Helper()
	m, err := Restore(data)
	if err != nil {
		t.Fatalf("Restore: %v\n%s", err, data)
	}
	return m
}

// checkInvariants fails the test unless the view is sorted, names everything
// once and has no route into nothing.
func checkInvariants(t testing.TB, v *View) {
	t.Helper()
	if err := v.check(); err != nil {
		t.Fatal(err)
	}
	ids := map[string]bool{}
	for _, p := range v.Pools {
		names, addrs := map[string]bool{}, map[string]bool{}
		for _, b := range p.Backends {
			if ids[b.ID] || names[b.Name] || addrs[b.Addr()] {
				t.Fatalf("backend %s of pool %s is there twice by id, name or address: %s", b.Name, p.Name, toJSON(v))
			}
			ids[b.ID], names[b.Name], addrs[b.Addr()] = true, true, true
			if err := b.validate(); err != nil {
				t.Fatalf("pool %s has an invalid backend: %v", p.Name, err)
			}
		}
		if err := p.validate(); err != nil {
			t.Fatalf("pool %s is invalid: %v", p.Name, err)
		}
	}
	for _, route := range v.Routes {
		if v.Pool(route.Pool) == nil {
			t.Fatalf("route %s%s leads to no pool: %s", route.Host, route.Path, toJSON(v))
		}
	}
}

// checkUntouched fails the test unless exactly the named pools differ in the two
// views; the others must be the same pointers.
func checkUntouched(t testing.TB, before, after *View, touched []string) {
	t.Helper()
	names := map[string]bool{}
	for _, p := range slices.Concat(before.Pools, after.Pools) {
		names[p.Name] = true
	}
	for name := range names {
		same := before.Pool(name) == after.Pool(name)
		if want := !slices.Contains(touched, name); same != want {
			t.Errorf("pool %s is the same pointer in both views: got %v, want %v", name, same, want)
		}
	}
}
