package cluster

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"lbnode/state"
)

// clients is how many work at once.
const clients = 12

// crew is the clients of a cluster under test: each reads and writes registers
// through a random node, one operation after the other.
type crew struct {
	history *history
	pick    func() *node // any that runs
	done    tally
	// wrong is told of what is wrong by itself, whatever else happened.
	wrong    func(format string, args ...any)
	previous [clients]answered // each client's own

	// How a client reads and writes. Tests of the checker put wrong ways here.
	read  func(context.Context, *node) (*state.View, error)
	write func(context.Context, *node, Write) (state.Result, error)
}

// answered is a write and what came of it.
type answered struct {
	write  Write
	result state.Result
}

// tally counts operations by what became of them.
type tally struct {
	reads, writes, exchanges atomic.Int64 // answered
	stale                    atomic.Int64 // exchanges that came too late
	repeated                 atomic.Int64 // writes that were sent again although they were answered
	refused, unknown         atomic.Int64
}

// answers is how many operations have had an effect or a result.
func (t *tally) answers() int64 {
	return t.reads.Load() + t.writes.Load() + t.exchanges.Load() + t.stale.Load()
}

func newCrew(t testing.TB, h *history, pick func() *node) *crew {
	return &crew{
		history: h, pick: pick, wrong: t.Errorf, read: readConsistently,
		write: func(ctx context.Context, n *node, w Write) (state.Result, error) {
			return n.Propose(ctx, w)
		},
	}
}

// readConsistently is the right way to read.
func readConsistently(ctx context.Context, n *node) (*state.View, error) {
	if err := n.Barrier(ctx); err != nil {
		return nil, err
	}
	return n.View(), nil
}

// start lets clients work until stop is called, which waits for the operations
// under way.
func (c *crew) start() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var working sync.WaitGroup
	for id := range clients {
		working.Go(func() { c.work(ctx, id) })
	}
	return func() {
		cancel()
		working.Wait()
	}
}

func (c *crew) work(ctx context.Context, id int) {
	for pause(ctx, rand.N(20*time.Millisecond)) {
		switch rand.IntN(8) {
		case 0, 1, 2:
			c.readAll(id)
		case 3:
			c.exchange(id)
		default:
			c.set(id)
		}
	}
}

// patience is for how long a client waits for an answer: most give up long before
// the node does, which makes unknown outcomes.
func patience() (context.Context, context.CancelFunc) {
	if rand.IntN(10) == 0 {
		return context.WithCancel(context.Background())
	}
	return context.WithTimeout(context.Background(), 50*time.Millisecond+rand.N(time.Second))
}

// readAll reads all registers, and returns the view, nil if there was no answer.
func (c *crew) readAll(id int) *state.View {
	ctx, cancel := patience()
	defer cancel()
	call := c.history.now()
	view, err := c.read(ctx, c.pick())
	switch {
	case errors.Is(err, ErrNoLeader):
		c.done.refused.Add(1)
		return nil
	case err != nil:
		c.wrong("got %v from a read, want ErrNoLeader", err)
		return nil
	}
	c.history.noteView(view, timed{id, call, c.history.now()})
	c.done.reads.Add(1)
	return view
}

// set writes one register.
func (c *crew) set(id int) {
	key := rand.IntN(registers)
	value := c.history.fresh(key)
	call := c.history.now()
	w := Write{Op: setRegister(key, value), RequestID: NewID()}
	result, err := c.send(w)
	if c.settle(key, access{kind: writes, value: value}, timed{id, call, c.history.now()}, result, err) {
		c.done.writes.Add(1)
		c.repeat(id, answered{w, result})
	}
}

// exchange writes one register on condition that nothing has changed since it was
// read. If that succeeds, the register held the value that was read.
func (c *crew) exchange(id int) {
	view := c.readAll(id)
	if view == nil {
		return
	}
	key := rand.IntN(registers)
	a := access{kind: exchanges, value: c.history.fresh(key), seen: registerIn(view, key)}
	call := c.history.now()
	w := Write{Op: setRegister(key, a.value), IfIndex: view.Index, RequestID: NewID()}
	result, err := c.send(w)
	if err == nil && result.Err != nil && result.Err.Code == state.Stale {
		if result.Index == view.Index {
			c.wrong("a write on condition of index %d was refused although the view is at that index", view.Index)
		}
		c.done.stale.Add(1)
		return
	}
	if c.settle(key, a, timed{id, call, c.history.now()}, result, err) {
		c.done.exchanges.Add(1)
		c.repeat(id, answered{w, result})
	}
}

// send has a write made, as an anxious client does: while the outcome is unknown
// it sends the same request again, through another node.
func (c *crew) send(w Write) (result state.Result, err error) {
	unknown := false
	for range 1 + rand.IntN(3) {
		if result, err = c.sendOnce(w); err == nil {
			return result, nil
		}
		unknown = unknown || errors.Is(err, ErrUnknownOutcome)
	}
	if unknown {
		err = ErrUnknownOutcome
	}
	return result, err
}

// repeat sometimes sends the client's request before this one again, as if its answer
// had been lost on the way. It must not take effect again.
func (c *crew) repeat(id int, now answered) {
	before := c.previous[id]
	c.previous[id] = now
	if before.write.Op == nil || rand.IntN(4) > 0 {
		return
	}
	c.done.repeated.Add(1)
	if again, err := c.sendOnce(before.write); err == nil && again.Index != before.result.Index {
		c.wrong("got index %d for a request that was answered before with %d", again.Index, before.result.Index)
	}
}

func (c *crew) sendOnce(w Write) (state.Result, error) {
	ctx, cancel := patience()
	defer cancel()
	return c.write(ctx, c.pick(), w)
}

// settle records what became of a write, and says whether it was made.
func (c *crew) settle(key int, a access, when timed, result state.Result, err error) bool {
	switch {
	case errors.Is(err, ErrUnknownOutcome):
		when.ended = never
		c.done.unknown.Add(1)
	case errors.Is(err, ErrNoLeader):
		c.done.refused.Add(1)
		return false
	case err != nil:
		c.wrong("got %v from a write, want ErrNoLeader or ErrUnknownOutcome", err)
		return false
	case result.Err != nil:
		c.wrong("got %v from a write of a register", result.Err)
		return false
	}
	c.history.note(key, a, when)
	return err == nil
}
