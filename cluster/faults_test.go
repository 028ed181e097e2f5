package cluster

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"lbnode/state"
)

var (
	faultSeed = flag.Uint64("fault-seed", 0, "draws the faults; 0 is a new one for each run")
	longFor   = flag.Duration("long-for", time.Hour, "no round of faults of the long form begins later than this")
)

// Whatever befalls the nodes, clients see what one machine that never fails could
// have shown them, and afterwards all nodes have the same.
func TestLinearizableUnderFaults(t *testing.T) {
	rounds, operations := 4, int64(400)
	if *long {
		rounds, operations = 100, 600
	}
	for _, size := range []int{3, 5} {
		t.Run(fmt.Sprintf("%d nodes", size), func(t *testing.T) {
			t.Parallel()
			s := newSuite(t, size)
			began := time.Now()
			for round := 0; round < rounds && time.Since(began) < *longFor; round++ {
				if err := s.round(operations, s.trouble); err != nil {
					t.Fatal(s.describe(err))
				}
			}
			t.Log(s.figures())
		})
	}
}

// suite is a cluster under faults and load.
type suite struct {
	t       testing.TB
	size    int
	rand    *rand.Rand // draws the faults; of the test's goroutine
	network *network
	disks   map[string]*sickDisk // by data directory
	crew    *crew

	mu    sync.RWMutex
	nodes []*node // those that run; only the test's goroutine changes it

	leaving     []string // data directories of nodes that are to leave
	rounds      int
	times       map[string]int // how often each fault was
	heals       []time.Duration
	snapshotted int
}

func newSuite(t testing.TB, size int) *suite {
	seed := cmp.Or(*faultSeed, rand.Uint64())
	t.Logf("the faults of %d nodes are drawn with -fault-seed %d", size, seed)
	s := &suite{
		t: t, size: size, rand: rand.New(rand.NewPCG(seed, uint64(size))),
		network: newNetwork(), disks: map[string]*sickDisk{}, times: map[string]int{},
	}
	t.Cleanup(s.network.close)
	s.nodes = startCluster(t, size, s.hook)
	t.Cleanup(func() { stopAll(s.nodes) })
	if result := propose(t, s.nodes[0], makeRegisters()); result.Err != nil {
		t.Fatal(result.Err)
	}
	for _, n := range s.nodes {
		s.network.attach(n)
		s.shortenLog(n)
	}
	s.crew = newCrew(t, newHistory(), s.pick)
	return s
}

// hook puts the suite between a node and its network and disk.
func (s *suite) hook(cfg *Config) {
	disk := &sickDisk{}
	s.disks[cfg.DataDir] = disk
	cfg.hooks = hooks{dialed: s.network.dialed(cfg.Raft), logs: disk.wrap}
}

// shortenLog makes a node that was away for long in need of a snapshot.
func (s *suite) shortenLog(n *node) {
	settings := n.raft().ReloadableConfig()
	settings.TrailingLogs = 32
	if err := n.raft().ReloadConfig(settings); err != nil {
		s.t.Fatal(err)
	}
}

// pick returns a random node that runs.
func (s *suite) pick() *node {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.nodes[rand.IntN(len(s.nodes))]
}

// enter adds a node to those that run.
func (s *suite) enter(n *node) {
	s.network.attach(n)
	s.shortenLog(n)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.nodes = append(s.nodes, n)
}

// exit takes a node from those that run.
func (s *suite) exit(gone *node) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.nodes = slices.DeleteFunc(slices.Clone(s.nodes), func(n *node) bool { return n == gone })
}

// round has clients work through the trouble and after it, until they have had so
// many answers. Then it waits for agreement and judges what they saw; the error is
// history's.
func (s *suite) round(operations int64, trouble func() string) error {
	began, before := time.Now(), s.crew.done.answers()
	stop := s.crew.start()
	defer stop()
	names := trouble()
	healing := time.Now()
	s.await("every node answers after "+names, s.answers)
	healed := time.Since(healing)
	s.await("clients get answers", func() bool { return s.crew.done.answers()-before >= operations })
	stop()
	s.await("all nodes agree after "+names, s.agree)
	var view *state.View
	s.await("a last read", func() bool { view = s.crew.readAll(0); return view != nil })
	s.rounds++
	s.heals = append(s.heals, healed)
	s.t.Logf("round %d: %s; every node answered after %s; %d operations in %s", s.rounds, names,
		healed.Round(time.Millisecond), s.crew.done.answers()-before, time.Since(began).Round(time.Millisecond))
	return s.crew.history.check(view)
}

// describe tells where a picture of an illegal history is.
func (s *suite) describe(err error) error {
	var bad *illegal
	if !errors.As(err, &bad) {
		return err
	}
	path, drawing := bad.draw()
	return errors.Join(fmt.Errorf("%w; see %s", err, path), drawing)
}

// trouble makes one or two faults, lets them last for a while and ends them. It
// returns what they were.
func (s *suite) trouble() string {
	var names []string
	var ends []func()
	for _, i := range s.rand.Perm(len(faults))[:1+s.rand.IntN(2)] {
		s.wait(300 * time.Millisecond)
		name, end := faults[i](s)
		names, ends = append(names, name), append(ends, end)
		s.times[name]++
	}
	s.wait(time.Second)
	s.snapshots()
	s.wait(2 * time.Second)
	if *long && s.rand.IntN(8) == 0 { // longer than any patience that the nodes have
		pause(s.t.Context(), storeWithin+2*time.Second)
	}
	slices.Reverse(ends)
	for _, end := range ends {
		end()
	}
	s.await("a node leaves", func() bool { return s.leave(officeWithin) })
	return strings.Join(names, " and ")
}

// wait lets up to d pass.
func (s *suite) wait(d time.Duration) {
	pause(s.t.Context(), time.Duration(s.rand.Int64N(int64(d))))
}

// await polls until ok holds. If that takes too long, it logs what every node says.
func (s *suite) await(what string, ok func() bool) {
	s.t.Helper()
	inTime := false
	defer func() {
		if inTime {
			return
		}
		for _, n := range s.nodes {
			s.t.Logf("%s: %v, %+v", n.cfg.Name, n.servers(), n.Status(context.Background()))
		}
	}()
	eventually(s.t, 2*time.Minute, what, ok)
	inTime = true
}

// snapshots has some nodes take a snapshot and drop the log before it.
func (s *suite) snapshots() {
	for _, n := range s.nodes {
		if s.rand.IntN(2) == 0 {
			continue
		}
		ctx, cancel := context.WithTimeout(s.t.Context(), time.Second) // its disk may hang
		if err := await(ctx, n.raft().Snapshot()); err == nil {
			s.snapshotted++
		}
		cancel()
	}
}

// answers says whether every node serves a consistent read.
func (s *suite) answers() bool {
	return !slices.ContainsFunc(s.nodes, func(n *node) bool { return n.Barrier(s.t.Context()) != nil })
}

// agree says whether all nodes have one view and find nothing wrong.
func (s *suite) agree() bool {
	digest := s.nodes[0].View().Digest()
	return !slices.ContainsFunc(s.nodes, func(n *node) bool {
		return n.View().Digest() != digest || n.views.stale.Load() ||
			voters(n.servers()) != s.size || !n.Status(s.t.Context()).Healthy
	})
}

// figures is the outcome in one line.
func (s *suite) figures() string {
	d := &s.crew.done
	slices.Sort(s.heals)
	return fmt.Sprintf("%d nodes, %d rounds, %d operations (%d reads, %d writes, %d exchanges, %d exchanges too late), 0 illegal; "+
		"%d of unknown outcome, %d refused, %d sent again after the answer; %d snapshots; every node answered after p50 %s, p99 %s, at most %s; faults: %v",
		s.size, s.rounds, d.answers(), d.reads.Load(), d.writes.Load(), d.exchanges.Load(), d.stale.Load(),
		d.unknown.Load(), d.refused.Load(), d.repeated.Load(), s.snapshotted,
		percentile(s.heals, 50), percentile(s.heals, 99), percentile(s.heals, 100), s.times)
}

// percentile of sorted times.
func percentile(sorted []time.Duration, percent int) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[(len(sorted)*percent+99)/100-1].Round(time.Millisecond)
}
