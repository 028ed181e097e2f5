//go:build linux

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"runtime"
	"slices"
	"syscall"
	"time"
)

// An open loop sends requests when they are due, whether or not earlier ones have
// been answered, as independent users do. Latency counts from when a request was
// due, not from when a connection was free to send it: otherwise a proxy that
// stalls would stall the measurement with it, and look well (coordinated omission).

// openLoopReport is what the part prints.
type openLoopReport struct {
	Requests int     `json:"requests"`
	Errors   int     `json:"errors"`
	Detail   string  `json:"detail,omitempty"`
	Rate     float64 `json:"rate"` // answers a second
	P50      int64   `json:"p50"`  // nanoseconds, as the others
	P99      int64   `json:"p99"`
	P999     int64   `json:"p999"`
}

func runOpenLoop(args []string, stdout io.Writer) error {
	fs := flag.NewFlagSet("part-openloop", flag.ContinueOnError)
	address := fs.String("address", "", "address to send to")
	rate := fs.Float64("rate", 1000, "requests a second")
	length := fs.Duration("time", time.Second, "how long")
	connections := fs.Int("connections", 256, "number of connections")
	if err := fs.Parse(args); err != nil {
		return err
	}
	runtime.LockOSThread()
	sharpenTimer()
	g := &openLoop{request: []byte("GET " + pathSmall + " HTTP/1.1\r\nHost: bench\r\n\r\n"), buffer: make([]byte, 64<<10)}
	if err := g.dial(*address, *connections); err != nil {
		return fmt.Errorf("cannot make an open loop: %w", err)
	}
	if err := g.run(schedule(*rate, *length), *length); err != nil {
		return fmt.Errorf("cannot make an open loop: %w", err)
	}
	return json.NewEncoder(stdout).Encode(g.report(*length))
}

// sharpenTimer has the kernel end this thread's waits when they are over, not
// 50 µs later.
func sharpenTimer() {
	const setTimerSlack = 29
	_, _, _ = syscall.RawSyscall(syscall.SYS_PRCTL, setTimerSlack, 1, 0)
}

// schedule returns when requests are due, in nanoseconds from the start: as often
// as the rate says, at random and independently. It is the same for every proxy.
func schedule(rate float64, length time.Duration) []int64 {
	random := rand.New(rand.NewPCG(1, 2))
	var due []int64
	for at := random.ExpFloat64() / rate; at < length.Seconds(); at += random.ExpFloat64() / rate {
		due = append(due, int64(at*1e9))
	}
	return due
}

// exchange is one connection and the request that is on it.
type exchange struct {
	due int64 // when the request was due
	got []byte
}

// openLoop is one run. All of it happens on one thread.
type openLoop struct {
	request   []byte
	buffer    []byte
	epoll     int
	exchanges map[int]*exchange
	free      []int // connections without a request
	start     time.Time
	latencies []int64
	unsent    int
	errors    int
	detail    string
}

func (g *openLoop) dial(address string, connections int) error {
	to, err := net.ResolveTCPAddr("tcp4", address)
	if err != nil {
		return err
	}
	if g.epoll, err = syscall.EpollCreate1(0); err != nil {
		return err
	}
	g.exchanges = make(map[int]*exchange, connections)
	for range connections {
		fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
		if err != nil {
			return err
		}
		if err := g.connect(fd, &syscall.SockaddrInet4{Port: to.Port, Addr: [4]byte(to.IP.To4())}); err != nil {
			return fmt.Errorf("%s: %w", address, err)
		}
		g.exchanges[fd] = &exchange{}
		g.free = append(g.free, fd)
	}
	return nil
}

func (g *openLoop) connect(fd int, to syscall.Sockaddr) error {
	if err := syscall.Connect(fd, to); err != nil {
		return err
	}
	if err := syscall.SetsockoptInt(fd, syscall.IPPROTO_TCP, syscall.TCP_NODELAY, 1); err != nil {
		return err
	}
	if err := syscall.SetNonblock(fd, true); err != nil {
		return err
	}
	return syscall.EpollCtl(g.epoll, syscall.EPOLL_CTL_ADD, fd, &syscall.EpollEvent{Events: syscall.EPOLLIN, Fd: int32(fd)})
}

// run sends every request when it is due or, if no connection is free then, as
// soon as one is. When the time is over it waits a little for the last answers.
func (g *openLoop) run(due []int64, length time.Duration) error {
	const grace = 500 * time.Millisecond
	g.start = time.Now()
	g.latencies = make([]int64, 0, len(due))
	next, events := 0, make([]syscall.EpollEvent, 512)
	for {
		now := g.now()
		for next < len(due) && due[next] <= now && len(g.free) > 0 && now < int64(length) {
			g.send(due[next])
			next++
		}
		pending := due[next:]
		if now >= int64(length) {
			pending = nil // it will not be sent any more
		}
		wait := g.wait(pending, now, int64(length+grace))
		if wait < 0 {
			break
		}
		n, errno := epollWaitFor(g.epoll, events, wait)
		if errno != 0 && !errors.Is(errno, syscall.EINTR) {
			return fmt.Errorf("cannot wait: %w", errno)
		}
		for _, e := range events[:max(0, n)] {
			g.receive(int(e.Fd))
		}
	}
	g.settle(due[next:])
	return nil
}

func (g *openLoop) now() int64 { return int64(time.Since(g.start)) }

// wait says how long to wait for answers: until the next request is due, if it
// could be sent then; negative when all is done.
func (g *openLoop) wait(due []int64, now, end int64) int64 {
	idle := len(g.free) == len(g.exchanges)
	switch {
	case len(g.exchanges) == 0, now >= end, idle && len(due) == 0:
		return -1
	case len(due) > 0 && len(g.free) > 0:
		return min(max(0, due[0]-now), end-now)
	}
	return end - now
}

func (g *openLoop) send(due int64) {
	fd := g.free[len(g.free)-1]
	g.free = g.free[:len(g.free)-1]
	x := g.exchanges[fd]
	x.due = due
	if n, errno := writeNow(fd, g.request); errno != 0 || n != len(g.request) {
		g.fail(fd, fmt.Sprintf("cannot send: %v", errno))
	}
}

func (g *openLoop) receive(fd int) {
	x := g.exchanges[fd]
	n, errno := readNow(fd, g.buffer)
	if errno == syscall.EAGAIN {
		return
	}
	if errno != 0 || n == 0 {
		g.fail(fd, "connection closed")
		return
	}
	data := g.buffer[:n]
	if len(x.got) > 0 {
		x.got = append(x.got, data...)
		data = x.got
	}
	whole, err := responseIsWhole(data)
	switch {
	case err != nil:
		g.fail(fd, err.Error())
	case !whole:
		x.got = append(x.got[:0], data...)
	default:
		x.got = x.got[:0]
		g.latencies = append(g.latencies, g.now()-x.due)
		g.free = append(g.free, fd)
	}
}

// responseIsWhole says whether data is a whole response. One with another status
// than 200 or without a length is an error.
func responseIsWhole(data []byte) (bool, error) {
	head, body, found := bytes.Cut(data, []byte("\r\n\r\n"))
	if !found {
		return false, nil
	}
	if !bytes.HasPrefix(head, []byte("HTTP/1.1 200")) {
		return false, fmt.Errorf("answer %q", head[:min(len(head), 40)])
	}
	length, ok := contentLength(append(head[:len(head):len(head)], '\r', '\n'))
	if !ok {
		return false, errors.New("answer without Content-Length")
	}
	if len(body) > length {
		return false, fmt.Errorf("answer of %d bytes more than announced", len(body)-length)
	}
	return len(body) == length, nil
}

// fail counts an error and gives up its connection.
func (g *openLoop) fail(fd int, why string) {
	g.errors++
	g.detail = why
	delete(g.exchanges, fd)
	_ = syscall.Close(fd)
}

// settle counts what was due but has no answer with the time it has waited so
// far. To leave it out would be kind to those who fall behind.
func (g *openLoop) settle(unsent []int64) {
	now := g.now()
	for fd, x := range g.exchanges {
		if !slices.Contains(g.free, fd) {
			g.latencies = append(g.latencies, now-x.due)
			g.unsent++
		}
	}
	for _, due := range unsent {
		g.latencies = append(g.latencies, now-due)
	}
	g.unsent += len(unsent)
}

func (g *openLoop) report(length time.Duration) openLoopReport {
	slices.Sort(g.latencies)
	return openLoopReport{
		Requests: len(g.latencies), Errors: g.errors, Detail: g.detail,
		Rate: float64(len(g.latencies)-g.unsent) / length.Seconds(),
		P50:  percentile(g.latencies, 0.50), P99: percentile(g.latencies, 0.99), P999: percentile(g.latencies, 0.999),
	}
}
