package state

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// fieldsOf gives every field that commands and snapshots of a version have, 1 or 4. The
// files are never written anew: what is not in them came later.
func fieldsOf(t *testing.T, version int) []string {
	t.Helper()
	return strings.Fields(string(readGolden(t, fmt.Sprintf("../testdata/snapshots/v%d-fields.txt", version))))
}

// versioned says in which version it must be written.
type versioned interface{ version() int }

// wholeSnapshot is a snapshot whose version is that of its content.
type wholeSnapshot snapshotFile

func (s *wholeSnapshot) version() int { return s.Content.version() }

// eachField visits every field below v that holds a plain value. Lists get one
// element to have fields.
func eachField(path string, v reflect.Value, visit func(path string, field reflect.Value)) {
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		eachField(path, v.Elem(), visit)
		v.SetZero()
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		eachField(path+"[]", v.Index(0), visit)
		v.SetZero()
	case reflect.Struct:
		for i := range v.NumField() {
			name, _, _ := strings.Cut(v.Type().Field(i).Tag.Get("json"), ",")
			if name != "" { // else its fields stand with those around it
				name = "." + name
			}
			eachField(path+name, v.Field(i), visit)
		}
	default:
		visit(path, v)
	}
}

// give puts any value but zero into a field.
func give(field reflect.Value) {
	switch {
	case field.CanInt():
		field.SetInt(1)
	case field.CanUint():
		field.SetUint(1)
	case field.Kind() == reflect.Bool:
		field.SetBool(true)
	case field.Kind() == reflect.String:
		field.SetString("x")
	case field.Type() == reflect.TypeFor[map[string]string]():
		field.Set(reflect.ValueOf(map[string]string{"X": "x"}))
	default:
		panic("this test cannot fill a " + field.Type().String())
	}
}

// unversioned returns the fields of value that are not among those that a version has,
// and that value would be written with in that version all the same.
func unversioned(name string, value versioned, version int, known []string) (wrong []string) {
	eachField(name, reflect.ValueOf(value).Elem(), func(path string, field reflect.Value) {
		if slices.Contains(known, path) {
			return
		}
		give(field)
		if value.version() <= version {
			wrong = append(wrong, path)
		}
		field.SetZero()
	})
	return wrong
}

// An old binary that meets a field it does not know stops. So whatever has a field
// that came later must be written in a later version, which is held back.
func TestNewFieldsNeedANewVersion(t *testing.T) {
	values := map[string]versioned{"snapshot": &wholeSnapshot{}, "replace": &Replace{}}
	for _, cmd := range goldenCommands() {
		values[cmd.Op.kind()] = newOp(cmd.Op.kind())
	}
	for _, version := range []int{1, 4} {
		known := fieldsOf(t, version)
		for name, value := range values {
			for _, path := range unversioned(name, value, version, known) {
				t.Errorf("%s came after version %d: where it is set, the version method must say in which version", path, version)
			}
		}
	}
	if got := unversioned("delete_pool", &DeletePool{}, 1, nil); !slices.Equal(got, []string{"delete_pool.name"}) {
		t.Errorf("got %q, want a field that is not of version 1 found out", got)
	}
}

// renamePool stands for an operation that got a field in version 2.
type renamePool struct {
	UpdatePool
	To string `json:"to,omitempty"`
}

func (op *renamePool) version() int {
	if op.To != "" {
		return 2
	}
	return 1
}

func TestCommandsAreWrittenInTheLowestVersion(t *testing.T) {
	for to, want := range map[string]int{"": 1, "shop": 2} {
		data := encode(t, Command{ID: "r1", Op: &renamePool{To: to}})
		if !strings.HasPrefix(string(data), fmt.Sprintf(`{"v":%d,`, want)) {
			t.Errorf("got %s, want version %d", data, want)
		}
	}
}

func TestCommandVersion(t *testing.T) {
	for _, test := range []struct {
		data    string
		want    int
		refused bool
	}{
		{`{"v":1,"op":"delete_pool","body":{"name":"web"}}`, 1, false},
		{`{"v":2,"op":"delete_pool","body":{"name":"web"}}`, 2, false},
		{`{"v":9,"op":"explode","body":{"with":"force"}}`, 9, false},
		{`{"v":1,"op":"explode","body":{}}`, 1, true},
		{`{"v":1,"op":"delete_pool","body":{"name":"web","force":true}}`, 1, true},
		{`{"op":"delete_pool","body":{"name":"web"}}`, 0, true},
		{`{"v":`, 0, true},
	} {
		got, err := CommandVersion([]byte(test.data))
		if got != test.want || (err != nil) != test.refused {
			t.Errorf("%s: got %d, %v, want %d and refused %v", test.data, got, err, test.want, test.refused)
		}
	}
}

// Once a command of version 2 went in, no binary of version 1 can follow the log,
// whatever became of the command and whatever is in the view.
func TestMachineRemembersTheNewestVersion(t *testing.T) {
	r := newFixture(t)
	if got := r.Version(); got != 1 {
		t.Fatalf("got version %d, want 1", got)
	}
	r.applyData(t, 7, []byte(`{"v":2,"id":"new","op":"delete_pool","body":{"name":"none"}}`))
	r.applyData(t, 8, []byte(`{"v":1,"id":"old","op":"delete_pool","body":{"name":"none"}}`))
	if got := r.Version(); got != 2 {
		t.Errorf("got version %d, want 2", got)
	}
	data := snapshotBytes(t, r.Machine)
	if !strings.Contains(string(data), `"version": 2`) {
		t.Errorf("got %s, want a snapshot of version 2", data)
	}
	if got := restore(t, data).Version(); got != 2 {
		t.Errorf("got version %d after a restart, want 2", got)
	}
	view, err := r.View().Snapshot().Encode()
	if err != nil || !strings.Contains(string(view), `"version": 1`) {
		t.Errorf("got %s, %v, want the view in version 1, which can say all of it", view, err)
	}
}

func TestTooNewIsToldFromDamaged(t *testing.T) {
	for data, want := range map[string]bool{`{"v":99,"op":"explode"}`: true, `{"v":1,"op":"explode"}`: false, `{`: false} {
		if _, err := NewMachine().Apply(1, []byte(data)); err == nil || errors.Is(err, ErrTooNew) != want {
			t.Errorf("%s: got %v, want ErrTooNew: %v", data, err, want)
		}
	}
}

// An older binary knows one strategy only.
func TestStrategiesNeedVersion4(t *testing.T) {
	for _, test := range []struct {
		op   versioned
		want int
	}{
		{&CreatePool{Pool: Pool{Name: "web", Settings: Settings{Strategy: RoundRobin}}}, 1},
		{&CreatePool{Pool: Pool{Name: "web", Settings: Settings{Strategy: "no such"}}}, 1}, // which is refused all the same
		{&CreatePool{Pool: Pool{Name: "web", Settings: Settings{Strategy: LeastTime}}}, 4},
		{&UpdatePool{Pool: Pool{Name: "web", Settings: Settings{Strategy: Hash}}}, 4},
		{&UpdatePool{Pool: Pool{Name: "web", Settings: Settings{HashOn: HashClient}}}, 4},
		{&UpdatePool{Pool: Pool{Name: "web", Settings: Settings{Sticky: Sticky{Cookie: StickyNone}}}}, 4},
		{&CreatePool{Pool: Pool{Name: "web", Settings: Settings{Sticky: Sticky{Cookie: "lb"}}}}, 4},
		{&Replace{Pools: []Pool{{Name: "web", Settings: Settings{Strategy: Random}}}}, 4},
		{&content{Pools: []*Pool{{Name: "api"}, {Name: "web", Settings: Settings{Strategy: P2C}}}}, 4},
	} {
		if got := test.op.version(); got != test.want {
			t.Errorf("%+v: got version %d, want %d", test.op, got, test.want)
		}
	}
}

// What a new kind of check, or a verdict with its reason, says is lost on an older
// binary; a plain one is still written for it.
func TestHealthNeedsVersion4(t *testing.T) {
	flapping := Backend{ID: "1", Health: Unhealthy, Falls: 3}
	for _, test := range []struct {
		op   versioned
		want int
	}{
		{&UpdatePool{Pool: Pool{Name: "web", Settings: Settings{HealthCheck: HealthCheck{Type: "tcp"}}}}, 1},
		{&UpdatePool{Pool: Pool{Name: "web", Settings: Settings{HealthCheck: HealthCheck{Type: "grpc"}}}}, 4},
		{&UpdatePool{Pool: Pool{Name: "web", Settings: Settings{HealthCheck: HealthCheck{Method: "GET"}}}}, 4},
		{&UpdatePool{Pool: Pool{Name: "web", Settings: Settings{HealthCheck: HealthCheck{Headers: map[string]string{"X-Probe": ""}}}}}, 4},
		{&CreatePool{Pool: Pool{Name: "web", Settings: Settings{Limits: Limits{Failures: 5}, HealthCheck: HealthCheck{Port: 8081}}}}, 4},
		{&SetHealth{Verdicts: []Verdict{{BackendID: "1", Health: Unhealthy}}}, 1},
		{&SetHealth{Verdicts: []Verdict{{BackendID: "1", Health: Unhealthy}, {BackendID: "2", Health: Unhealthy, Reason: "x"}}}, 4},
		{&SetHealth{Verdicts: []Verdict{{BackendID: "1", Health: Healthy, Falls: 1}}}, 4},
		{&SetHealth{Verdicts: []Verdict{{BackendID: "1", Agent: &Wish{}}}}, 4},
		{&UpdatePool{Pool: Pool{Name: "web", Settings: Settings{HealthCheck: HealthCheck{Type: "agent"}}}}, 4},
		{&content{Pools: []*Pool{{Name: "web", Backends: pointers([]Backend{{Agent: Wish{Weight: "50%"}}})}}}, 4},
		{&content{Pools: []*Pool{{Name: "web", Backends: pointers([]Backend{{}, flapping})}}}, 4},
	} {
		if got := test.op.version(); got != test.want {
			t.Errorf("%+v: got version %d, want %d", test.op, got, test.want)
		}
	}
}

// A pool with a limit, or without one any more, is written so that an older binary
// does not take it for another.
func TestLimitsNeedVersion3(t *testing.T) {
	limited := Pool{Name: "web", Settings: Settings{Limits: Limits{Failures: 5}}}
	for _, test := range []struct {
		op   versioned
		want int
	}{
		{&CreatePool{Pool: Pool{Name: "web"}}, 1},
		{&CreatePool{Pool: limited}, 3},
		{&UpdatePool{Pool: Pool{Name: "web", Settings: Settings{Limits: Limits{Failures: NoLimit}}}}, 3},
		{&UpdatePool{Pool: Pool{Name: "web", Settings: Settings{Timeouts: Timeouts{Try: seconds(1)}}}}, 3},
		{&UpdatePool{Pool: Pool{Name: "web", Settings: Settings{ProxyProtocol: ProxyNone}}}, 3},
		{&UpdatePool{Pool: Pool{Name: "web", Settings: Settings{Timeouts: Timeouts{Hedge: seconds(1)}}}}, 3},
		{&Replace{}, 2},
		{&Replace{Pools: []Pool{limited}}, 3},
		{&content{Pools: []*Pool{{Name: "api"}, &limited}}, 3},
	} {
		if got := test.op.version(); got != test.want {
			t.Errorf("%+v: got version %d, want %d", test.op, got, test.want)
		}
	}
}

// What came with passive ejection, in commands and in snapshots, and what takes times away.
func TestOutliersAndBackupsNeedVersion4(t *testing.T) {
	with := func(change func(*Pool)) Pool {
		p := Pool{Name: "web", Settings: Settings{Limits: Limits{Failures: 5}}}
		change(&p)
		return p
	}
	spare := backend(2)
	spare.Backup = true
	for _, op := range []versioned{
		&UpdatePool{Pool: with(func(p *Pool) { p.Timeouts.Try = NoDuration })},
		&UpdatePool{Pool: with(func(p *Pool) { p.Timeouts.Hedge = NoDuration })},
		&UpdatePool{Pool: with(func(p *Pool) { p.Limits.Open = NoDuration })},
		&UpdatePool{Pool: with(func(p *Pool) { p.Outlier.MaxShare = NoLimit })},
		&UpdatePool{Pool: with(func(p *Pool) { p.Panic = NoLimit })},
		&UpdatePool{Pool: with(func(p *Pool) { p.SlowStart = NoDuration })},
		&CreatePool{Pool: with(func(p *Pool) { p.Backends = pointers([]Backend{backend(1), spare}) })},
		&Replace{Pools: []Pool{with(func(p *Pool) { p.Backends = pointers([]Backend{spare}) })}},
		&content{Pools: []*Pool{{Name: "api", Backends: pointers([]Backend{spare})}}},
		&Seed{Backends: []Backend{spare}},
		&AddBackend{Backend: spare},
		&UpdateBackend{Patch: Backend{Backup: true}},
		&UpdateBackend{Primary: true},
	} {
		if got := op.version(); got != 4 {
			t.Errorf("%+v: got version %d, want 4", op, got)
		}
	}
	for _, op := range []versioned{&AddBackend{Backend: backend(1)}, &UpdateBackend{}, &Seed{}} {
		if got := op.version(); got != 1 {
			t.Errorf("%+v: got version %d, want 1", op, got)
		}
	}
}
