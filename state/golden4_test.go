package state

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"
)

// fullPool4 has something in every field that a pool and a backend of version 4 have.
func fullPool4() Pool {
	spare, claims := backend(2), backend(3)
	spare.Backup = true
	claims.Reason, claims.Falls, claims.Agent = "it says so", 2, Wish{Admin: Maint, Weight: "1%"} // which counts for nothing
	return Pool{
		Name: "full", Settings: Settings{Strategy: Hash, HashOn: "cookie:session", WhenAllDown: FailOpen,
			HealthCheck: HealthCheck{
				Type: CheckAgent, Path: "/up", Interval: seconds(5), Timeout: seconds(4), Rise: 4, Fall: 5,
				UnhealthyInterval: Duration(500 * time.Millisecond), Method: "POST", Host: "up.example.com", Status: "200-299,401", Body: "<é> ok",
				TLS: TLSInsecure, Port: 8081, Service: "shop.Cart", Headers: map[string]string{"X-Check": "1", "Accept": "text/plain"},
			},
			Timeouts:  Timeouts{Connect: seconds(1), Request: seconds(20), Try: seconds(2), Hedge: seconds(1)},
			Limits:    Limits{Connections: 100, Pending: 50, Failures: 5, Open: seconds(7)},
			Sticky:    Sticky{Cookie: "lb", Drain: StickyMove},
			Outlier:   Outlier{Consecutive: 5, SuccessRate: 30, Time: seconds(15), MaxShare: 40},
			Panic:     60,
			SlowStart: seconds(30), ProxyProtocol: ProxyV2,
		},
		Backends: pointers([]Backend{backend(1), spare, claims}),
	}
}

// goldenCommands4 say all that came with versions 2 to 4, and take some of it away again.
func goldenCommands4() []Command {
	gone, spare := fullPool4(), backend(8)
	gone.Name, gone.Backends, spare.Backup = "gone", pointers([]Backend{backend(7), spare}), true
	pool := func(name, strategy string, check HealthCheck) *CreatePool {
		return &CreatePool{Pool: Pool{Name: name, Settings: Settings{Strategy: strategy, HealthCheck: check}}}
	}
	verdict := func(n int, v Verdict) Verdict {
		b := backend(n).withDefaults()
		v.BackendID, v.URL = b.ID, b.URL()
		return v
	}
	ops := []Op{
		&InitCluster{ClusterID: "c4"},
		&Seed{Backends: []Backend{backend(6), spare}},
		&Replace{Pools: []Pool{fullPool4()}, Routes: []Route{{Path: "/", Pool: "full"}}},
		&CreatePool{Pool: gone},
		pool("grpc", LeastTime, HealthCheck{Type: CheckGRPC, Service: "x", TLS: TLSOn}),
		pool("tcp", P2C, HealthCheck{Type: CheckTCP, TLS: TLSOff}),
		pool("random", Random, HealthCheck{Method: "HEAD"}),
		pool("least", LeastConnections, HealthCheck{}),
		&UpdatePool{Pool: Pool{
			Name: "gone", Settings: Settings{Strategy: RoundRobin, ProxyProtocol: ProxyNone, Panic: NoLimit, SlowStart: NoDuration,
				HealthCheck: HealthCheck{
					Type: CheckHTTP, UnhealthyInterval: NoDuration, Method: "GET", Host: CheckNone, Status: "200-399", Body: CheckNone,
					TLS: TLSAuto, Port: NoLimit, Service: CheckNone, Headers: map[string]string{"X-Check": "", "Accept": ""},
				},
				Timeouts: Timeouts{Try: NoDuration, Hedge: NoDuration},
				Limits:   Limits{Connections: NoLimit, Pending: NoLimit, Failures: NoLimit, Open: NoDuration},
				Sticky:   Sticky{Cookie: StickyNone},
				Outlier:  Outlier{Consecutive: NoLimit, SuccessRate: NoLimit, Time: NoDuration, MaxShare: NoLimit},
			},
		}},
		&UpdatePool{Pool: Pool{Name: "random", Settings: Settings{HealthCheck: HealthCheck{Headers: map[string]string{"X-Check": "2"}}, Outlier: Outlier{SuccessRate: 20}}}},
		&UpdateBackend{Pool: "gone", Name: "b8", Primary: true},
		&UpdateBackend{Pool: "gone", Name: "b7", Patch: Backend{Backup: true}},
		&AddBackend{Pool: "least", Backend: Backend{ID: "id-9", Name: "b9", Host: "10.0.0.9", Port: 80, Backup: true}},
		&SetHealth{Verdicts: []Verdict{
			verdict(1, Verdict{Health: Healthy, Agent: &Wish{Admin: Drain, Weight: "50%"}}),
			verdict(2, Verdict{Health: Healthy}),
			verdict(3, Verdict{Health: Healthy}),
		}},
		&SetHealth{Verdicts: []Verdict{
			verdict(1, Verdict{Health: Unhealthy, Reason: "lb1: 503 Service Unavailable in 12 ms", Falls: 3}),
			verdict(2, Verdict{Health: Unhealthy, Reason: "ejected by lb1, lb2", Falls: 1}),
			verdict(3, Verdict{Agent: &Wish{Weight: "0%"}}),
		}},
		&UpdatePool{Pool: Pool{Name: "full", Settings: Settings{Panic: 101}}}, // fails
	}
	commands := make([]Command, len(ops))
	for i, op := range ops {
		commands[i] = Command{ID: op.kind() + string(rune('a'+i)), At: someTime + int64(i), Op: op}
	}
	return commands
}

// paths adds every path of keys in a value to all, lists as eachField writes them.
func paths(path string, value any, all map[string]bool) {
	all[path] = true
	switch value := value.(type) {
	case map[string]any:
		for key, inner := range value {
			paths(path+"."+key, inner, all)
		}
	case []any:
		for _, inner := range value {
			paths(path+"[]", inner, all)
		}
	}
}

// The golden files of version 4 have every field in them that there was.
func TestGoldenFilesHaveEveryField(t *testing.T) {
	g, have := goldens()[1], map[string]bool{}
	var snapshot any
	if err := json.Unmarshal(readGolden(t, g.snapshot), &snapshot); err != nil {
		t.Fatal(err)
	}
	paths("snapshot", snapshot, have)
	for _, line := range g.lines(t) {
		var command struct {
			Op   string
			Body any
		}
		if err := json.Unmarshal(line, &command); err != nil {
			t.Fatal(err)
		}
		paths(command.Op, command.Body, have)
	}
	for _, field := range fieldsOf(t, 4) {
		kind, _, _ := strings.Cut(field, ".")
		if slices.Contains([]string{"snapshot", "set_health", "replace"}, kind) && !have[field] {
			t.Errorf("%s is nowhere in the golden files of version 4", field)
		}
	}
}
