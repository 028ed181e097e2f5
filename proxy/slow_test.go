package proxy

import (
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"runtime/metrics"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"lbnode/state"
)

var long = flag.Bool("long", false, "run the long forms")

// slowLimit is each of the times that a client may take; more than a second, after
// which the engine treats an idle connection differently.
const slowLimit = 1200 * time.Millisecond

// slowKind is a way to hold a connection without using it.
type slowKind struct {
	name    string
	send    string // at once
	trickle string // this again and again, faster than any timeout
	memory  uint64 // bytes that one may cost
}

// TestSlowClients: however a client holds a connection, it loses it in time, pays for
// little memory, and is in nobody's way.
func TestSlowClients(t *testing.T) {
	count := 100
	if *long {
		count = 1000
	}
	for _, kind := range []slowKind{
		{"silent", "", "", 16 << 10},
		{"slow header", "GET / HTTP/1.1\r\nHost: slow\r\nX: ", "x", 48 << 10},
		{"slow header, many lines", "GET / HTTP/1.1\r\nHost: slow\r\n", "X: y\r\n", 48 << 10},
		{"slow body", "POST / HTTP/1.1\r\nHost: slow\r\nContent-Length: 1000000\r\n\r\nbegins", "", 160 << 10},
		{"slow chunks", "POST / HTTP/1.1\r\nHost: slow\r\nTransfer-Encoding: chunked\r\n\r\n100\r\nbegins", "", 160 << 10},
		{"slow reading", "GET / HTTP/1.1\r\nHost: slow\r\n\r\n", "", 160 << 10},
	} {
		t.Run(kind.name, func(t *testing.T) { testSlow(t, kind, count) })
	}
}

func testSlow(t *testing.T, kind slowKind, count int) {
	counts := newTally()
	p, url := startSlowProxy(t, counts)
	asking := askOnAndOn(t, url)
	eventually(t, "others are served", func() bool { return asking.served.Load() > 10 })
	eventually(t, "they have their connections", func() bool { return counts.get("connections http") == others })
	before := memoryInUse()
	asking.latencies() // while everything was made ready
	<-time.After(slowLimit)
	alone := asking.latencies()

	began := time.Now()
	conns := make([]net.Conn, count)
	for i := range conns {
		conns[i] = dialNarrow(t, url)
		io.WriteString(conns[i], kind.send)
	}
	opened := time.Now()
	ended := make(chan struct{})
	go trickle(conns, kind.trickle, ended)
	defer close(ended)
	eventually(t, "all slow ones are there", func() bool { return counts.get("connections http") == others+count })
	asking.latencies() // while so many connections were opened
	if cost := (max(memoryInUse(), before) - before) / uint64(count); cost > kind.memory {
		t.Errorf("one costs %d bytes, want %d at most", cost, kind.memory)
	} else {
		t.Logf("one costs %d bytes", cost)
	}
	eventually(t, "all slow ones are gone", func() bool { return counts.get("connections http") <= others })
	first, last := time.Since(began), time.Since(opened)
	t.Logf("p99 of others: %s before, %s meanwhile", p99(alone), p99(asking.latencies()))
	t.Logf("the last was closed %s after it was opened", last.Round(time.Millisecond))
	// How late is for the long form to say, on a machine with nothing else to do.
	if *long && last > slowLimit+time.Second || first < slowLimit-2*tickOfServer {
		t.Errorf("the last was closed %s after the first was opened and %s after the last, want %s", first, last, slowLimit)
	}
	asking.stop()
	if failed := asking.failed.Load(); failed > 0 {
		t.Errorf("%d of %d requests of others failed: %v", failed, asking.served.Load()+failed, asking.cause.Load())
	}
	t.Logf("%d requests of others were served meanwhile", asking.served.Load())
	eventually(t, "no exchange is under way", func() bool { return p.server.Active() == 0 })
}

// tickOfServer is how coarse the engine's clock is.
const tickOfServer = 100 * time.Millisecond

// startSlowProxy starts a proxy with short times. Requests for the host slow go to a
// backend that reads and writes without end.
func startSlowProxy(t *testing.T, counts *tally) (*Proxy, string) {
	t.Helper()
	endless, _ := startRaw(t, "endless", func(conn net.Conn, head string) {
		conn.(*net.TCPConn).SetWriteBuffer(16 << 10)
		if head[0] == 'G' {
			io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
			io.Copy(conn, zeros{})
		}
		io.Copy(io.Discard, conn)
	})
	slow, quick := poolOf("slow", endless), poolOf(state.DefaultPool, startServer(t, "quick", nil).backend())
	slow.Timeouts.Request, quick.Timeouts.Request = state.Duration(slowLimit), state.Duration(slowLimit)
	routes := []state.Route{{Host: "slow", Path: "/", Pool: "slow"}, {Path: "/", Pool: state.DefaultPool}}
	config := Config{Recorder: counts, HeaderTimeout: slowLimit, IdleTimeout: slowLimit}
	return startProxyWith(t, config, viewOf(routes, slow, quick))
}

// dialNarrow connects with the smallest window that the system gives, which keeps what
// it holds for the connection small on both sides.
func dialNarrow(t *testing.T, url string) net.Conn {
	t.Helper()
	dialer := net.Dialer{Control: func(_, _ string, raw syscall.RawConn) error {
		return raw.Control(func(fd uintptr) {
			syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, 1)
			syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_MAXSEG, 1400)
		})
	}}
	conn, err := dialer.Dial("tcp", url[len("http://"):])
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// trickle sends a little on all connections several times a second, on some at a time,
// so that others are not kept waiting by the clients. It reads nothing.
func trickle(conns []net.Conn, text string, ended <-chan struct{}) {
	const some = 20
	ticker := time.NewTicker(slowLimit / 8 * some / time.Duration(len(conns)))
	defer ticker.Stop()
	for next := 0; text != ""; next = (next + some) % len(conns) {
		select {
		case <-ended:
			return
		case <-ticker.C:
		}
		for _, conn := range conns[next : next+some] {
			conn.SetWriteDeadline(time.Now().Add(time.Millisecond))
			io.WriteString(conn, text)
		}
	}
}

// memoryInUse is what live objects and stacks take.
func memoryInUse() uint64 {
	runtime.GC()
	runtime.GC() // what pools have set aside goes at the second
	samples := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}, {Name: "/memory/classes/heap/stacks:bytes"}}
	metrics.Read(samples)
	return samples[0].Value.Uint64() + samples[1].Value.Uint64()
}

// others is how many clients there are besides, which send one request after the other,
// with a pause, because what is to be seen is how long they wait for the slow ones and
// not for each other.
const (
	others      = 4
	othersPause = 2 * time.Millisecond
)

// asking is those clients.
type asking struct {
	served, failed atomic.Int64
	cause          atomic.Value
	running        sync.WaitGroup
	ended          atomic.Bool

	mu   sync.Mutex
	took []time.Duration
}

// latencies gives how long the requests took since the last call.
func (a *asking) latencies() []time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	took := a.took
	a.took = nil
	return took
}

func p99(took []time.Duration) time.Duration {
	if len(took) == 0 {
		return 0
	}
	slices.Sort(took)
	return took[len(took)*99/100]
}

func askOnAndOn(t *testing.T, url string) *asking {
	a, c := &asking{}, client(t)
	c.Transport.(*http.Transport).MaxConnsPerHost = others
	for range others {
		a.running.Go(func() {
			for !a.ended.Load() {
				<-time.After(othersPause)
				began := time.Now()
				code, _, err := get(c, url)
				if err != nil || code != http.StatusOK {
					a.cause.Store(fmt.Sprint(code, err))
					a.failed.Add(1)
					continue
				}
				a.served.Add(1)
				a.mu.Lock()
				a.took = append(a.took, time.Since(began))
				a.mu.Unlock()
			}
		})
	}
	t.Cleanup(a.stop)
	return a
}

func (a *asking) stop() {
	a.ended.Store(true)
	a.running.Wait()
}
