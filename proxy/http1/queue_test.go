package http1

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// busyBackend has all its connections in use, so that nothing needs to be dialled.
func busyBackend(config BackendConfig) (*Backend, []*upstream) {
	b := NewBackend(config)
	var used []*upstream
	for b.reserve() {
		here, _ := net.Pipe()
		used = append(used, newUpstream(here, b))
	}
	return b, used
}

type got struct {
	who int
	u   *upstream
	err error
}

// queueUp has so many wait for a connection, one behind the other.
func queueUp(ctx context.Context, b *Backend, from, count int, results chan<- got) {
	for who := from; who < from+count; who++ {
		go func() {
			u, err := b.get(ctx, who, nil)
			results <- got{who, u, err}
		}()
		synctest.Wait() // until it stands in the queue
	}
}

func TestTurnsAreInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, used := busyBackend(BackendConfig{Conns: 2, Waiting: 5, Connect: time.Minute})
		results := make(chan got)
		queueUp(t.Context(), b, 0, 5, results)
		var order []int
		u := used[0]
		for range 5 {
			b.put(u, 0, 0)
			g := <-results
			if g.err != nil {
				t.Fatal(g.err)
			}
			order, u = append(order, g.who), g.u
		}
		if want := []int{0, 1, 2, 3, 4}; !slices.Equal(order, want) {
			t.Errorf("got turns %v, want %v", order, want)
		}
	})
}

// Who has just given a connection back must not get it again before those that wait.
func TestNobodyOvertakes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, used := busyBackend(BackendConfig{Conns: 1, Waiting: 2, Connect: time.Minute})
		results := make(chan got)
		queueUp(t.Context(), b, 0, 1, results)
		b.put(used[0], 0, 0)
		if u := b.idle(0); u != nil {
			t.Error("got the connection that was somebody else's turn")
		}
		if g := <-results; g.u != used[0] {
			t.Errorf("got %v, %v; want the connection", g.u, g.err)
		}
	})
}

func TestFullQueueRefuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, used := busyBackend(BackendConfig{Conns: 1, Waiting: 2, Connect: time.Minute})
		results := make(chan got)
		queueUp(t.Context(), b, 0, 2, results)
		began := time.Now()
		if _, err := b.get(t.Context(), 0, nil); err != ErrFull || time.Since(began) > 0 {
			t.Errorf("got %v after %s, want ErrFull at once", err, time.Since(began))
		}
		b.put(used[0], 0, 0)
		g := <-results
		queueUp(t.Context(), b, 2, 1, results) // there is room again
		b.put(g.u, 0, 0)
		g = <-results
		b.put(g.u, 0, 0)
		if g = <-results; g.who != 2 || g.err != nil {
			t.Errorf("got %+v, want the last one to have its turn", g)
		}
	})
}

func TestNoQueueRefuses(t *testing.T) {
	b, _ := busyBackend(BackendConfig{Conns: 1, Connect: time.Minute})
	if _, err := b.get(t.Context(), 0, nil); err != ErrFull {
		t.Errorf("got %v, want ErrFull", err)
	}
}

func TestWaitingEndsInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, used := busyBackend(BackendConfig{Conns: 1, Waiting: 2, Connect: 3 * time.Second})
		results := make(chan got)
		began := time.Now()
		queueUp(t.Context(), b, 0, 2, results)
		for range 2 {
			if g := <-results; g.err != ErrFull || time.Since(began) != 3*time.Second {
				t.Errorf("got %v after %s, want ErrFull after 3s", g.err, time.Since(began))
			}
		}
		b.put(used[0], 0, 0) // nobody waits any more
		if u, err := b.get(t.Context(), 0, nil); u != used[0] || err != nil {
			t.Errorf("got %v, %v; want the connection that was put back", u, err)
		}
	})
}

func TestWhoLeavesTakesNoTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, used := busyBackend(BackendConfig{Conns: 1, Waiting: 3, Connect: time.Minute})
		results := make(chan got)
		queueUp(t.Context(), b, 0, 1, results)
		ctx, cancel := context.WithCancel(t.Context())
		queueUp(ctx, b, 1, 1, results)
		queueUp(t.Context(), b, 2, 1, results)
		cancel()
		if g := <-results; g.who != 1 || g.err == nil {
			t.Errorf("got %+v, want the second one to leave", g)
		}
		u := used[0]
		for _, want := range []int{0, 2} {
			b.put(u, 0, 0)
			g := <-results
			if g.who != want || g.err != nil {
				t.Errorf("got %+v, want the turn of %d", g, want)
			}
			u = g.u
		}
	})
}

// Who leaves at the very moment of his turn must pass it on, be it a connection or
// the right to open one.
func TestTurnIsPassedOn(t *testing.T) {
	for _, closes := range []bool{false, true} {
		b, used := busyBackend(BackendConfig{Conns: 1, Waiting: 2})
		_, first, _ := b.claim(0)
		_, second, _ := b.claim(0)
		var want *upstream
		if closes {
			used[0].close()
		} else {
			want = used[0]
			b.put(want, 0, 0)
		}
		b.leave(first, 0)
		select {
		case u := <-second:
			if u != want || b.open.Load() != 1 {
				t.Errorf("got %v with %d open, want %v with 1", u, b.open.Load(), want)
			}
		default:
			t.Error("got no turn, want that of the one who left")
		}
	}
}

// A backend must not be taken for unreachable because there was no time left to
// connect to it after the turn had come.
func TestWaitingTakesNoTimeFromConnecting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, used := busyBackend(BackendConfig{Addr: "127.0.0.1:1", Conns: 1, Waiting: 1, Connect: 3 * time.Second})
		left := make(chan time.Duration, 1)
		b.dialer.ControlContext = func(ctx context.Context, _, _ string, _ syscall.RawConn) error {
			until, _ := ctx.Deadline()
			left <- time.Until(until)
			return errors.New("it is not tried")
		}
		results := make(chan got, 1)
		queueUp(t.Context(), b, 0, 1, results)
		<-time.After(2 * time.Second)
		used[0].close()
		if got := <-left; got != 3*time.Second {
			t.Errorf("got %s to connect, want 3s", got)
		}
		<-results
	})
}

// crowd takes and gives back connections of a backend on loopback, in all ways at
// once.
type crowd struct {
	b          *Backend
	held, most atomic.Int64
	served     atomic.Int64
}

func (c *crowd) hold() {
	held := c.held.Add(1)
	for most := c.most.Load(); held > most && !c.most.CompareAndSwap(most, held); most = c.most.Load() {
	}
	c.served.Add(1)
}

// member asks so many times; some of them leave before their turn, and some close
// what they get.
func (c *crowd) member(t *testing.T, shard, times int) {
	for range times {
		ctx, cancel := context.WithCancel(t.Context())
		impatient := rand.N(4) == 0
		if impatient {
			go cancel()
		}
		u, err := c.b.get(ctx, shard, nil)
		cancel()
		var failed *ConnectError
		switch {
		case err == nil:
		case impatient && (err == ErrFull || errors.As(err, &failed)):
			continue
		default:
			t.Errorf("got %v, want a connection", err)
			return
		}
		c.hold()
		if open := c.b.open.Load(); open > int64(c.b.config.Conns) {
			t.Errorf("got %d connections open, want at most %d", open, c.b.config.Conns)
		}
		runtime.Gosched() // so that there are others meanwhile
		closes := rand.N(5) == 0
		c.held.Add(-1)
		if closes {
			u.close()
		} else {
			c.b.put(u, shard, 0)
		}
	}
}

func TestCrowd(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var accepting sync.WaitGroup
	accepting.Go(func() { acceptAll(listener) })
	t.Cleanup(func() { listener.Close(); accepting.Wait() })
	const conns, members, times = 3, 16, 150
	c := crowd{b: NewBackend(BackendConfig{Addr: listener.Addr().String(), Connect: 20 * time.Second, Conns: conns, Waiting: members})}
	var running sync.WaitGroup
	for shard := range members {
		running.Go(func() { c.member(t, shard, times) })
	}
	over := make(chan bool)
	go func() { running.Wait(); close(over) }()
	select {
	case <-over:
	case <-time.After(15 * time.Second):
		t.Fatalf("somebody waits for ever: %d connections open, %d served", c.b.open.Load(), c.served.Load())
	}
	if most := c.most.Load(); most > conns {
		t.Errorf("got up to %d in use at once, want no more than %d", most, conns)
	}
	c.b.Close()
	if open, waiting := c.b.open.Load(), len(c.b.waiting); open != 0 || waiting != 0 {
		t.Errorf("got %d connections open and %d waiting in the end, want 0", open, waiting)
	}
}

func acceptAll(listener net.Listener) {
	var conns sync.WaitGroup
	defer conns.Wait()
	for {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		conns.Go(func() {
			defer conn.Close()
			io.Copy(io.Discard, conn)
		})
	}
}
