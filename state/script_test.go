package state

import (
	"fmt"
	"testing"
)

// script turns any bytes into a log: a few bytes each for the next command, from
// a world so small that commands meet one another. Bytes that have run out are 0.
type script struct {
	bytes []byte
	index uint64
}

// entry is one command in the log.
type entry struct {
	index uint64
	kind  string
	data  []byte
}

// maxEntries bounds one log, so that a long input costs no more than it shows.
const maxEntries = 64

func readScript(t testing.TB, data []byte) []entry {
	t.Helper()
	s := &script{bytes: data}
	log := s.start(t)
	for len(s.bytes) > 0 && len(log) < maxEntries {
		cmd := s.command()
		log = append(log, entry{s.index, cmd.Op.kind(), encode(t, cmd)})
	}
	return log
}

// start gives half of all logs a few backends to begin with.
func (s *script) start(t testing.TB) []entry {
	t.Helper()
	if s.next()%2 == 0 {
		return nil
	}
	s.index++
	seed := &Seed{}
	for n := range 4 {
		seed.Backends = append(seed.Backends, scriptBackend(n, n))
	}
	return []entry{{s.index, seed.kind(), encode(t, Command{ID: "seed", Op: seed})}}
}

func (s *script) next() int {
	if len(s.bytes) == 0 {
		return 0
	}
	b := s.bytes[0]
	s.bytes = s.bytes[1:]
	return int(b)
}

// pick takes one of the choices.
func pick[T any](s *script, choices ...T) T { return choices[s.next()%len(choices)] }

// command makes the next command: mostly new and unconditional, now and then one
// that came before, has no id, or depends on the index.
func (s *script) command() Command {
	how := s.next()
	s.index++
	if how&1 != 0 { // the log has entries that are no commands
		s.index += 2
	}
	cmd := Command{ID: fmt.Sprintf("r%d", s.index), At: int64(how), Op: s.op()}
	switch how >> 1 & 7 {
	case 0:
		cmd.ID = fmt.Sprintf("r%d", s.next()%8)
	case 1:
		cmd.ID = ""
	}
	switch how >> 4 {
	case 0:
		cmd.IfIndex = s.index - 1
	case 1:
		cmd.IfIndex = uint64(s.next())
	}
	return cmd
}

func (s *script) op() Op {
	ops := []func() Op{
		func() Op { return &InitCluster{ClusterID: pick(s, "c1", "c1", "c2", "")} },
		func() Op { return &Seed{Backends: values(s.backends())} },
		func() Op { return &CreatePool{Pool: s.pool()} },
		func() Op { return &CreatePool{Pool: Pool{Name: s.poolName()}} },
		func() Op { return &UpdatePool{Pool: pick(s, s.part, s.part, s.pool)()} },
		func() Op { return &DeletePool{Name: s.poolName()} },
		func() Op { return &AddBackend{Pool: s.poolName(), Backend: s.backend()} },
		func() Op { return &AddBackend{Pool: DefaultPool, Backend: s.backend()} },
		func() Op { return &UpdateBackend{Pool: s.poolName(), Name: s.backendName(), Patch: s.patch()} },
		func() Op {
			return &UpdateBackend{Pool: DefaultPool, Name: s.backendName(), Patch: s.patch(), Primary: pick(s, false, false, true)}
		},
		func() Op { return &RemoveBackend{Pool: s.poolName(), Name: s.backendName()} },
		func() Op { return &PutRoute{Route: Route{Host: s.host(), Path: s.path(), Pool: s.poolName()}} },
		func() Op { return &RemoveRoute{Host: s.host(), Path: s.path()} },
		func() Op { return &SetHealth{Verdicts: s.verdicts()} },
		func() Op { return &SetHealth{Verdicts: s.verdicts()} },
		func() Op { return s.replace() },
	}
	return pick(s, ops...)()
}

func (s *script) replace() *Replace {
	op := &Replace{}
	for range s.next() % 3 {
		op.Pools = append(op.Pools, s.pool())
	}
	for range s.next() % 3 {
		op.Routes = append(op.Routes, Route{Host: s.host(), Path: s.path(), Pool: s.poolName()})
	}
	return op
}

func (s *script) poolName() string {
	return pick(s, "default", "default", "default", "web", "api", "no good")
}
func (s *script) backendName() string { return pick(s, "b0", "b1", "b2", "b3", "B1", "-") }
func (s *script) host() string {
	return pick(s, "", "", "", "a.com", "A.com", "0::1", "a.com:80", "\xff")
}
func (s *script) path() string { return pick(s, "", "/", "/", "/<&\u2028>", "api", "/\xff") }

// part is a pool of which little is given, so that it is more often possible.
func (s *script) part() Pool {
	all := s.pool()
	part := pick(s,
		Pool{Settings: Settings{Strategy: all.Strategy, HashOn: all.HashOn}},
		Pool{Settings: Settings{HealthCheck: all.HealthCheck}},
		Pool{Settings: Settings{Outlier: all.Outlier, Panic: all.Panic, SlowStart: all.SlowStart}},
		Pool{Settings: Settings{Sticky: pick(s, Sticky{Cookie: "lb"}, Sticky{Cookie: "lb", Drain: StickyMove}, Sticky{Drain: StickyStay}, Sticky{Cookie: StickyNone}, Sticky{Cookie: " "})}},
	)
	part.Name = all.Name
	return part
}

func (s *script) pool() Pool {
	return Pool{
		Name: s.poolName(),
		Settings: Settings{Strategy: pick(s, "", "", RoundRobin, Hash, "x"),
			HashOn:      pick(s, "", "", HashClient, HashPath, "query:a", "x"),
			WhenAllDown: pick(s, "", Reject, FailOpen, FailOpen, "x"),
			HealthCheck: HealthCheck{
				Type:     pick(s, "", "http", "tcp", "grpc", "agent", "x"),
				Path:     s.path(),
				Interval: pick(s, 0, 0, seconds(1), 1_234_567_891, -1),
				Rise:     pick(s, 0, 0, 5, 1000),
				Port:     pick(s, 0, 0, 81, 81, NoLimit),
				Headers:  pick(s, nil, nil, map[string]string{"x-a": "1", "X-A": "2"}, map[string]string{"X-A": "", "X-b": "\xff"}),
			},
			Timeouts:  Timeouts{Request: pick(s, 0, 0, seconds(3), 3)},
			Outlier:   pick(s, Outlier{}, Outlier{}, Outlier{Consecutive: 5}, Outlier{Consecutive: NoLimit, Time: NoDuration}, Outlier{MaxShare: 101}),
			Panic:     pick(s, 0, 0, 50, NoLimit, 101),
			SlowStart: pick(s, 0, 0, seconds(3), NoDuration, 3),
		},
		Backends: s.backends(),
	}
}

func (s *script) backends() []*Backend {
	backends := make([]*Backend, s.next()%4)
	for i := range backends {
		b := s.backend()
		backends[i] = &b
	}
	return backends
}

// backend is one that mostly may be added: its values go together.
func (s *script) backend() Backend {
	b := scriptBackend(s.next()%16, s.next()%6)
	if s.next()%8 == 0 {
		b = s.patch().over(b)
	}
	return b
}

func scriptBackend(id, n int) Backend {
	return Backend{ID: fmt.Sprintf("id-%d", id), Name: fmt.Sprintf("b%d", n), Host: fmt.Sprintf("h%d", n), Port: 80}
}

func (s *script) patch() Backend {
	return Backend{
		ID:       pick(s, "", "id-1"),
		Name:     s.backendName(),
		Protocol: pick(s, "", "", "", "http", "https", "x"),
		Host:     pick(s, "", "", "h0", "h1", "H2", "h3", "0::1", "a b"),
		Port:     pick(s, 0, 0, 0, 80, 80, 81, -1),
		Weight:   pick(s, 0, 0, 0, 1, 256, 257),
		Admin:    pick(s, "", "", "", Ready, Drain, Maint, "x"),
		Backup:   pick(s, false, false, true),
	}
}

func (s *script) verdicts() []Verdict {
	verdicts := make([]Verdict, s.next()%4)
	for i := range verdicts {
		verdicts[i] = Verdict{
			BackendID: fmt.Sprintf("id-%d", s.next()%16),
			URL:       fmt.Sprintf("http://h%d:80", s.next()%6),
			Health:    pick(s, Healthy, Healthy, Unhealthy, Unhealthy, Starting),
			Reason:    pick(s, "", "", "lb1: 503 <&\u2028>", "\xff"),
			Falls:     pick(s, 0, 0, 3, 8),
			Agent:     pick(s, nil, nil, &Wish{}, &Wish{Admin: Drain}, &Wish{Weight: "50%"}, &Wish{Weight: "050%"}),
		}
	}
	return verdicts
}

func values(backends []*Backend) (list []Backend) {
	for _, b := range backends {
		list = append(list, *b)
	}
	return list
}
