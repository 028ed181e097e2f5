//go:build linux

package main

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"syscall"
	"time"
)

// An open loop sends requests when they are due, whether or not earlier ones have
// been answered, as independent users do. Latency counts from when a request was
// due, not from when a connection was free to send it: otherwise a proxy that
// stalls would stall the measurement with it, and look well (coordinated omission).

//
// The backend makes it, between its own answers. Two processes on one core would
// wait for each other's time slices, milliseconds each, and all of that would
// count as the proxy's.

// openLoopOrder says what a run is to do.
type openLoopOrder struct {
	Address     string        `json:"address"` // to send to
	Rate        float64       `json:"rate"`    // requests a second
	Time        time.Duration `json:"time"`
	Connections int           `json:"connections"`
}

// openLoopReport is what came out.
type openLoopReport struct {
	Requests int     `json:"requests"`
	Errors   int     `json:"errors"`
	Detail   string  `json:"detail,omitempty"`
	Rate     float64 `json:"rate"` // answers a second
	P50      int64   `json:"p50"`  // nanoseconds, as the others
	P99      int64   `json:"p99"`
	P999     int64   `json:"p999"`
}

// newOpenLoop connects to the address and has the epoll tell of answers.
func newOpenLoop(epoll int, o openLoopOrder) (*openLoop, error) {
	g := &openLoop{
		request: []byte("GET " + pathSmall + " HTTP/1.1\r\nHost: bench\r\n\r\n"), buffer: make([]byte, 64<<10),
		epoll: epoll, length: int64(o.Time), due: schedule(o.Rate, o.Time),
	}
	g.latencies = make([]int64, 0, len(g.due))
	if err := g.dial(o.Address, o.Connections); err != nil {
		g.close()
		return nil, err
	}
	g.start = time.Now()
	return g, nil
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

// openLoop is one run. It takes its turns in the backend's loop.
type openLoop struct {
	request   []byte
	buffer    []byte
	epoll     int
	exchanges map[int]*exchange
	free      []int   // connections without a request
	due       []int64 // when the requests that have not been sent are due
	length    int64   // how long requests are sent, in nanoseconds
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
	g.exchanges = make(map[int]*exchange, connections)
	for range connections {
		fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
		if err != nil {
			return err
		}
		g.exchanges[fd] = &exchange{}
		g.free = append(g.free, fd)
		if err := g.connect(fd, &syscall.SockaddrInet4{Port: to.Port, Addr: [4]byte(to.IP.To4())}); err != nil {
			return fmt.Errorf("%s: %w", address, err)
		}
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

// grace is how long, in nanoseconds, the last answers are waited for.
const grace = int64(500 * time.Millisecond)

// advance sends the requests that are due by now, each as soon as a connection is
// free. It returns how many nanoseconds it wants to wait for answers at most, or
// less than nothing when all is done.
func (g *openLoop) advance() int64 {
	now := g.now()
	if now >= g.length {
		return g.waitForLast(now)
	}
	for len(g.due) > 0 && g.due[0] <= now && len(g.free) > 0 {
		g.send(g.due[0])
		g.due = g.due[1:]
	}
	switch {
	case len(g.exchanges) == 0:
		return -1
	case len(g.due) == 0 || len(g.free) == 0:
		return g.length - now
	}
	return max(0, g.due[0]-g.now())
}

func (g *openLoop) waitForLast(now int64) int64 {
	if len(g.free) == len(g.exchanges) {
		return -1
	}
	return g.length + grace - now
}

func (g *openLoop) now() int64 { return int64(time.Since(g.start)) }

func (g *openLoop) send(due int64) {
	fd := g.free[len(g.free)-1]
	g.free = g.free[:len(g.free)-1]
	x := g.exchanges[fd]
	x.due = due
	if n, errno := writeNow(fd, g.request); errno != 0 || n != len(g.request) {
		g.fail(fd, fmt.Sprintf("cannot send: %v", errno))
	}
}

func (g *openLoop) receive(fd int, x *exchange) {
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
func (g *openLoop) settle() {
	now := g.now()
	for fd, x := range g.exchanges {
		if !slices.Contains(g.free, fd) {
			g.latencies = append(g.latencies, now-x.due)
			g.unsent++
		}
	}
	for _, due := range g.due {
		g.latencies = append(g.latencies, now-due)
	}
	g.unsent += len(g.due)
}

// close closes all connections.
func (g *openLoop) close() {
	for fd := range g.exchanges {
		_ = syscall.Close(fd)
	}
}

func (g *openLoop) report() openLoopReport {
	g.settle()
	slices.Sort(g.latencies)
	return openLoopReport{
		Requests: len(g.latencies), Errors: g.errors, Detail: g.detail,
		Rate: float64(len(g.latencies)-g.unsent) / time.Duration(g.length).Seconds(),
		P50:  percentile(g.latencies, 0.50), P99: percentile(g.latencies, 0.99), P999: percentile(g.latencies, 0.999),
	}
}
