//go:build linux

package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// The backend shares its core with the load, so it is made to cost little: one
// thread, one epoll, answers that are ready to send. It reads just enough of a
// request to know where it ends. On request it also makes an open loop.

const (
	pathSmall  = "/small"  // 100 bytes
	pathMedium = "/medium" // 16 KiB
	pathLarge  = "/large"  // 1 MiB

	pathOpenLoop = "/open-loop?" // an order follows, as escaped JSON
)

// bodySize returns how long the answer to a path is; others are as small.
func bodySize(path string) int {
	switch path {
	case pathMedium:
		return 16 << 10
	case pathLarge:
		return 1 << 20
	}
	return 100
}

// answers are whole responses, ready to be sent.
type answers struct{ small, medium, large, refusal []byte }

func newAnswers() answers {
	ok := func(path string) []byte {
		size := bodySize(path)
		return fmt.Appendf(nil, "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n%s", size, strings.Repeat("x", size))
	}
	return answers{
		small: ok(pathSmall), medium: ok(pathMedium), large: ok(pathLarge),
		refusal: []byte("HTTP/1.1 501 Not Implemented\r\nContent-Length: 0\r\n\r\n"),
	}
}

// pick returns the answer to the request with this head.
func (a *answers) pick(head []byte) []byte {
	_, target, _ := bytes.Cut(head[:min(len(head), 64)], []byte(" "))
	switch {
	case bytes.HasPrefix(target, []byte(pathMedium)):
		return a.medium
	case bytes.HasPrefix(target, []byte(pathLarge)):
		return a.large
	}
	return a.small
}

// talk is the state of one connection.
type talk struct {
	head []byte // the beginning of a request whose head has not all come
	skip int    // bytes of a request's body that have not come
	next []byte // the answer that is due when skip is 0
	out  []byte // what could not be sent yet

	blocked bool // we wait until more of out can be sent
}

// feed takes what was received and calls answer for each request that is whole.
func (t *talk) feed(data []byte, a *answers, answer func([]byte)) {
	for len(data) > 0 {
		if t.skip > 0 {
			n := min(t.skip, len(data))
			t.skip, data = t.skip-n, data[n:]
		} else {
			whole := data
			if len(t.head) > 0 {
				whole = append(t.head, data...)
			}
			end := bytes.Index(whole, []byte("\r\n\r\n"))
			if end < 0 {
				t.head = bytes.Clone(whole)
				return
			}
			data, t.head = whole[end+4:], nil
			t.next, t.skip = a.pick(whole[:end]), 0
			t.measure(whole[:end+2], a)
		}
		if t.skip == 0 {
			answer(t.next)
		}
	}
}

// measure finds out how long the body of the request with this head is. Chunked
// bodies are refused: no load here makes them, so a proxy must not either.
func (t *talk) measure(head []byte, a *answers) {
	if !bytes.HasPrefix(head, []byte("POST ")) {
		return
	}
	length, ok := contentLength(head)
	if !ok {
		t.next = a.refusal
		return
	}
	t.skip = length
}

// contentLength returns the value of that header; the head ends with a line end.
func contentLength(head []byte) (int, bool) {
	for line := range bytes.Lines(head) {
		name, value, found := bytes.Cut(line, []byte(":"))
		if found && bytes.EqualFold(name, []byte("Content-Length")) {
			n, err := strconv.Atoi(string(bytes.TrimSpace(value)))
			return n, err == nil && n >= 0
		}
	}
	return 0, false
}

// runBackend serves until the process is told to end.
func runBackend(args []string, stdout io.Writer) error {
	fs := flag.NewFlagSet("part-backend", flag.ContinueOnError)
	port := fs.Int("port", 0, "port on 127.0.0.1")
	if err := fs.Parse(args); err != nil {
		return err
	}
	runtime.LockOSThread()
	sharpenTimer()
	s := newBackendServer()
	if err := s.listen(*port); err != nil {
		return fmt.Errorf("cannot serve as backend: %w", err)
	}
	for {
		if err := s.turn(); err != nil {
			return err
		}
	}
}

// sharpenTimer has the kernel end this thread's waits when they are over, not
// 50 µs later.
func sharpenTimer() {
	const setTimerSlack = 29
	_, _, _ = syscall.RawSyscall(syscall.SYS_PRCTL, setTimerSlack, 1, 0)
}

// backendServer answers all connections from one thread.
type backendServer struct {
	answers         answers
	epoll, listener int
	talks           map[int]*talk
	buffer          []byte
	events          []syscall.EpollEvent

	loop    *openLoop // nil: none runs
	ordered int       // the connection on which it was ordered
}

func newBackendServer() *backendServer {
	return &backendServer{
		answers: newAnswers(), talks: map[int]*talk{}, buffer: make([]byte, 256<<10), events: make([]syscall.EpollEvent, 256),
	}
}

func (s *backendServer) listen(port int) error {
	var err error
	if s.listener, err = syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_NONBLOCK, 0); err != nil {
		return err
	}
	if err := syscall.SetsockoptInt(s.listener, syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1); err != nil {
		return err
	}
	if err := syscall.Bind(s.listener, &syscall.SockaddrInet4{Port: port, Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		return err
	}
	if err := syscall.Listen(s.listener, 4096); err != nil {
		return err
	}
	if s.epoll, err = syscall.EpollCreate1(0); err != nil {
		return err
	}
	return s.watch(syscall.EPOLL_CTL_ADD, s.listener, syscall.EPOLLIN)
}

func (s *backendServer) watch(operation, fd int, events uint32) error {
	return syscall.EpollCtl(s.epoll, operation, fd, &syscall.EpollEvent{Events: events, Fd: int32(fd)})
}

// turn waits until something happens, and handles it.
func (s *backendServer) turn() error {
	wait := s.advance()
	n, errno := epollWaitFor(s.epoll, s.events, wait)
	if errno != 0 && errno != syscall.EINTR {
		return fmt.Errorf("cannot wait for requests: %w", errno)
	}
	for _, e := range s.events[:max(0, n)] {
		if s.loop == nil {
			s.handle(int(e.Fd), e.Events)
			continue
		}
		if x := s.loop.exchanges[int(e.Fd)]; x != nil {
			s.loop.receive(int(e.Fd), x)
		} else {
			s.handle(int(e.Fd), e.Events)
		}
		s.advance() // many events must not delay what is due meanwhile
	}
	return nil
}

// advance lets the open loop go on, and reports what came out if it has ended. It
// returns how many nanoseconds there is nothing else to do.
func (s *backendServer) advance() int64 {
	const long = int64(time.Hour)
	if s.loop == nil {
		return long
	}
	if wait := s.loop.advance(); wait >= 0 {
		return wait
	}
	report := s.loop.report()
	s.loop.close()
	s.loop = nil
	s.reply(s.ordered, http.StatusOK, report)
	return long
}

// order begins the open loop that a request target asks for.
func (s *backendServer) order(fd int, target string) {
	if s.loop != nil {
		s.reply(fd, http.StatusConflict, "an open loop runs")
		return
	}
	var o openLoopOrder
	text, err := url.QueryUnescape(target)
	if err == nil {
		err = json.Unmarshal([]byte(text), &o)
	}
	if err == nil {
		s.loop, err = newOpenLoop(s.epoll, o)
	}
	if err != nil {
		s.reply(fd, http.StatusBadRequest, err.Error())
		return
	}
	s.ordered = fd
}

// reply answers an order with a value as JSON.
func (s *backendServer) reply(fd, status int, value any) {
	body, err := json.Marshal(value)
	t := s.talks[fd]
	if t == nil || err != nil {
		return
	}
	s.send(fd, t, fmt.Appendf(nil, "HTTP/1.1 %d -\r\nContent-Length: %d\r\n\r\n%s", status, len(body), body))
}

func (s *backendServer) handle(fd int, events uint32) {
	if fd == s.listener {
		s.accept()
		return
	}
	t := s.talks[fd]
	if t == nil {
		return // closed by what came before in this turn
	}
	if events&syscall.EPOLLOUT != 0 {
		s.flush(fd, t)
		return
	}
	n, err := readNow(fd, s.buffer)
	if err == syscall.EAGAIN {
		return
	}
	if err != 0 || n == 0 {
		s.close(fd)
		return
	}
	if target, ok := bytes.CutPrefix(s.buffer[:n], []byte("GET "+pathOpenLoop)); ok {
		target, _, _ = bytes.Cut(target, []byte(" "))
		s.order(fd, string(target))
		return
	}
	t.feed(s.buffer[:n], &s.answers, func(answer []byte) { s.send(fd, t, answer) })
}

func (s *backendServer) accept() {
	for {
		fd, _, err := syscall.Accept4(s.listener, syscall.SOCK_NONBLOCK)
		if err != nil {
			return // none is waiting, or it is gone; epoll tells of the next
		}
		_ = syscall.SetsockoptInt(fd, syscall.IPPROTO_TCP, syscall.TCP_NODELAY, 1)
		s.talks[fd] = &talk{}
		if err := s.watch(syscall.EPOLL_CTL_ADD, fd, syscall.EPOLLIN); err != nil {
			s.close(fd)
		}
	}
}

// send sends an answer, or keeps what the connection does not take.
func (s *backendServer) send(fd int, t *talk, answer []byte) {
	if len(t.out) > 0 {
		t.out = append(t.out[:len(t.out):len(t.out)], answer...) // out may be a part of an answer
		return
	}
	t.out = answer
	s.flush(fd, t)
}

// flush sends what is left. While something is, nothing is read.
func (s *backendServer) flush(fd int, t *talk) {
	n, err := writeNow(fd, t.out)
	if err != 0 && err != syscall.EAGAIN {
		s.close(fd)
		return
	}
	if err == 0 {
		t.out = t.out[n:]
	}
	if blocked := len(t.out) > 0; blocked != t.blocked {
		t.blocked = blocked
		events := uint32(syscall.EPOLLIN)
		if blocked {
			events = syscall.EPOLLOUT
		}
		if s.watch(syscall.EPOLL_CTL_MOD, fd, events) != nil {
			s.close(fd)
		}
	}
}

func (s *backendServer) close(fd int) {
	delete(s.talks, fd)
	_ = syscall.Close(fd)
}
