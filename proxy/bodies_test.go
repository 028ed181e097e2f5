package proxy

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"lbnode/state"
)

var (
	bodiesFor  = flag.Duration("bodies", 3*time.Second, "how much CPU time conversations with random bodies get; 30m is the long form")
	bodiesSeed = flag.Uint64("bodies-seed", 0, "draws the only conversation with random bodies; 0 is new ones for each run")
)

// stuckAfter is how long a conversation in which nothing moves is waited for: much longer
// than it takes on a busy machine, and much shorter than any limit of the proxy.
const (
	stuckAfter   = 8 * time.Second
	farFromStuck = time.Minute
)

// Whatever the framing, the size and the way in which a body comes, it goes through as it
// is, ends when it ends, leaves connections as they should be, and is counted right.
func TestBodies(t *testing.T) {
	if *bodiesSeed != 0 {
		var all bodyCounts
		c := converse(t, *bodiesSeed)
		all.add(c)
		t.Logf("%s\n%s", &all, c)
		return
	}
	began, next := cpuTime(), atomic.Uint64{}
	next.Store(rand.Uint64() >> 1)
	t.Logf("conversations are drawn from %d on", next.Load())
	var all bodyCounts
	var running sync.WaitGroup
	for range 4 {
		running.Go(func() {
			for !t.Failed() && cpuTime()-began < *bodiesFor {
				all.add(converse(t, next.Add(1)))
			}
		})
	}
	running.Wait()
	t.Logf("%s in %s of CPU time", &all, (cpuTime() - began).Round(time.Second))
}

// cpuTime is what this process has used.
func cpuTime() time.Duration {
	var usage syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &usage)
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// bodyCounts is what was tried.
type bodyCounts struct {
	mu                    sync.Mutex
	conversations, trades int
	again, cut            int // of the trades: took two attempts, were broken off
	bytes                 int64
	slowest               time.Duration
	slowestSeed           uint64
}

func (b *bodyCounts) add(c *conversation) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.conversations++
	for _, t := range c.trades {
		b.trades++
		if t.attempts > 1 {
			b.again++
		}
		if t.breaks != never {
			b.cut++
		}
		b.bytes += int64(len(t.request.body) + len(t.answer.body))
	}
	if c.slowest > b.slowest {
		b.slowest, b.slowestSeed = c.slowest, c.seed
	}
}

func (b *bodyCounts) String() string {
	return fmt.Sprintf("%d exchanges, %d of them in two attempts and %d broken off, with %d MiB of bodies in %d conversations, the slowest exchange in %s (-bodies-seed %d)",
		b.trades, b.again, b.cut, b.bytes>>20, b.conversations, b.slowest.Round(time.Millisecond), b.slowestSeed)
}

// conversation is one proxy with backends and clients of its own, so that it goes the same
// way again with the same seed.
type conversation struct {
	t       *testing.T
	seed    uint64
	feature feature
	narrow  bool // who is not the proxy takes little at once
	clients [][]*trade
	trades  map[string]*trade // by path
	addr    string            // of the proxy
	proxy   *Proxy
	lines   bytes.Buffer // of the access log
	running sync.WaitGroup

	mu      sync.Mutex
	cond    *sync.Cond
	failed  bool
	ended   bool
	conns   int // ever
	closers []io.Closer
	moved   time.Time // when an exchange last ended
	slowest time.Duration
	stuck   *time.Timer
}

// converse holds the conversation of that seed.
func converse(t *testing.T, seed uint64) *conversation {
	c := &conversation{t: t, seed: seed, trades: map[string]*trade{}, moved: time.Now()}
	c.cond = sync.NewCond(&c.mu)
	d := draw{rand.New(rand.NewPCG(seed, 0))}
	c.feature = pick(d, plain, plain, plain, plain, hedging, retrying, telling1, telling2, toldOf, bounded, encrypted)
	c.narrow = d.one(6)
	clients := 1
	if c.feature == bounded {
		clients = 3
	}
	for range clients {
		trades := c.drawTrades(d, 1+d.IntN(6))
		c.clients = append(c.clients, trades)
		for _, trade := range trades {
			c.trades[trade.path] = trade
		}
	}
	c.stuck = time.AfterFunc(stuckAfter, func() { c.failf("nothing has moved for %s", stuckAfter) })
	c.hold()
	return c
}

// hold starts all parties, and looks at what is left when they are through.
func (c *conversation) hold() {
	log := c.start()
	var clients sync.WaitGroup
	for _, trades := range c.clients {
		clients.Go(func() { c.client(trades) })
	}
	clients.Wait()
	ctx, cancel := context.WithTimeout(context.Background(), stuckAfter)
	defer cancel()
	if err := c.proxy.Shutdown(ctx); err != nil {
		c.failf("shutdown: %v", err)
	}
	if err := log.Close(ctx); err != nil {
		c.failf("%v", err)
	}
	c.end()
	c.running.Wait()
	if !c.hasFailed() {
		c.checkConnections()
		c.checkLines()
	}
}

// start starts the proxy and its backends.
func (c *conversation) start() *AccessLog {
	pool := poolOf(state.DefaultPool, c.listen("a"))
	config := Config{MaxConnections: 1000}
	switch c.feature {
	case hedging:
		pool.Timeouts.Hedge = state.Duration(20 * time.Millisecond)
		fallthrough
	case retrying:
		pool.Backends = append(pool.Backends, new(c.listen("b")))
	case telling1:
		pool.ProxyProtocol = state.ProxyV1
	case telling2:
		pool.ProxyProtocol = state.ProxyV2
	case toldOf:
		config.ProxyProtocol = loopback
	case bounded:
		pool.Limits.Connections, pool.Limits.Pending = 1, 10
	}
	pool.Timeouts.Request, pool.Timeouts.Connect = state.Duration(farFromStuck), state.Duration(farFromStuck)
	log, err := OpenAccessLog(AccessLogConfig{
		File: "-", Stdout: &c.lines, Node: "n", Log: slog.New(slog.DiscardHandler),
		Dropped: func(int) { c.failf("lines of the access log were dropped") },
	})
	if err != nil {
		c.t.Fatal(err)
	}
	config.AccessLog = log
	c.proxy = New(config)
	if c.feature == encrypted {
		c.proxy.tls.RootCAs = x509.NewCertPool()
		c.proxy.tls.RootCAs.AddCert(testCertificate().Certificate())
	}
	c.proxy.SetView(viewOf(nil, pool))
	addr, err := c.proxy.Listen("127.0.0.1:0")
	if err != nil {
		c.t.Fatal(err)
	}
	c.addr = addr.String()
	return log
}

// opened notes a connection, for the end. It gives its number.
func (c *conversation) opened(conn net.Conn) (number int) {
	c.note(func() {
		c.conns++
		number = c.conns
		c.closers = append(c.closers, conn)
	})
	if c.hasFailed() {
		conn.Close()
	}
	return number
}

// note changes what the parties see of one another.
func (c *conversation) note(change func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	change()
	c.cond.Broadcast()
	if !c.ended {
		c.stuck.Reset(stuckAfter)
	}
}

// await waits until something holds. It says whether it does: all waits end when the
// conversation fails.
func (c *conversation) await(holds func() bool) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for !holds() && !c.failed && !c.ended {
		c.cond.Wait()
	}
	return holds()
}

// progressed notes that an exchange has ended.
func (c *conversation) progressed() {
	c.note(func() {
		now := time.Now()
		c.slowest = max(c.slowest, now.Sub(c.moved))
		c.moved = now
	})
}

func (c *conversation) hasFailed() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.failed
}

// failf fails the test, once, and ends all.
func (c *conversation) failf(format string, args ...any) {
	c.mu.Lock()
	first := !c.failed && !c.ended
	c.failed = true
	c.mu.Unlock()
	if first {
		c.t.Errorf("-bodies-seed %d, %s, narrow %t: %s\n%s", c.seed, c.feature, c.narrow, fmt.Sprintf(format, args...), c)
		c.end()
	}
}

// end ends what still waits, and all connections.
func (c *conversation) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ended = true
	c.stuck.Stop()
	for _, closer := range c.closers {
		if conn, ok := closer.(*net.TCPConn); ok {
			conn.SetLinger(0)
		}
		closer.Close()
	}
	c.cond.Broadcast()
}

func (c *conversation) String() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var all strings.Builder
	for _, trades := range c.clients {
		for _, t := range trades {
			fmt.Fprintln(&all, t)
		}
	}
	return all.String()
}

// checkConnections sees that the proxy used its connection to the backend again where it
// could, and only there.
func (c *conversation) checkConnections() {
	if c.feature == bounded || c.feature == hedging || c.feature == retrying {
		return // which takes a connection that another has left
	}
	trades := c.clients[0]
	for i := 1; i < len(trades); i++ {
		before, t := trades[i-1], trades[i]
		own := c.feature == telling1 || c.feature == telling2
		want := before.reusable() && !(own && before.endsClient())
		if got := t.over == before.over; got != want {
			c.failf("%s took the connection of the one before: got %t, want %t", t.path, got, want)
		}
	}
}

// checkLines sees that the access log tells of all trades what they were.
func (c *conversation) checkLines() {
	type line struct {
		Path     string
		Status   int
		BytesIn  int `json:"bytes_in"`
		BytesOut int `json:"bytes_out"`
		Retries  int
		End      string
	}
	seen := 0
	for lines := json.NewDecoder(&c.lines); lines.More(); {
		var got line
		if err := lines.Decode(&got); err != nil {
			c.failf("the access log: %v", err)
			return
		}
		t := c.trades[got.Path]
		if t == nil {
			continue // the OPTIONS behind them
		}
		seen++
		want := line{t.path, t.status, len(t.request.body), len(t.answer.body), got.Retries, "ok"}
		if t.breaks != never {
			want.End = "cut"
		}
		if got != want || c.feature != hedging && got.Retries != t.attempts-1 {
			c.failf("%s in the access log: got %+v, want %+v after %d attempts", t.path, got, want, t.attempts)
		}
	}
	if seen != len(c.trades) {
		c.failf("got %d lines in the access log, want %d", seen, len(c.trades))
	}
}
