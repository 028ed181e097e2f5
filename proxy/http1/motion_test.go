package http1

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"testing"
	"time"
)

// slowly does something several times, so seldom that all of it takes longer than the
// patience of TestSlowButSteadyBodies.
func slowly(do func()) {
	for range 10 {
		<-time.After(steadyPatience / 7)
		do()
	}
}

const steadyPatience = 1500 * time.Millisecond

// readSome takes so much from a connection at a time, and then all the rest.
func readSome(r io.Reader, size int64) (n int64, err error) {
	if size > 0 {
		slowly(func() {
			got, _ := io.CopyN(io.Discard, r, size)
			n += got
		})
	}
	rest, err := io.Copy(io.Discard, r)
	return n + rest, err
}

// writeSome sends little at a time, and then all the rest.
func writeSome(w io.Writer, data []byte) {
	slowly(func() {
		w.Write(data[:2000])
		data = data[2000:]
	})
	w.Write(data)
}

// A body may take longer than timeouts allow for as long as something of it moves, however
// little, at whichever end it is slow.
func TestSlowButSteadyBodies(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("only Linux tells what moves in the kernel")
	}
	const size = 12 << 20
	body := bytes.Repeat([]byte("0123456789abcde\n"), size/16)
	length := fmt.Sprintf("Content-Length: %d\r\n\r\n", size)
	chunks := fmt.Sprintf("Transfer-Encoding: chunked\r\n\r\n%x\r\n", size)
	quickly := func(w io.Writer, data []byte) { w.Write(data) }
	// Windows open by whole buffers of the kernel, which are larger within one machine, so what
	// is read at a time is not too little.
	for name, test := range map[string]struct {
		request, answer string // from their framing on
		asks, answers   func(io.Writer, []byte)
		client, backend int64 // what it reads at a time; 0: all
	}{
		"backend, with a length": {answer: length, answers: writeSome},
		"backend, in chunks":     {answer: chunks, answers: writeSome},
		"backend, until close":   {answer: "Connection: close\r\n\r\n", answers: writeSome},
		"client takes a length":  {answer: length, answers: quickly, client: 4 << 10},
		"client takes chunks":    {answer: chunks, answers: quickly, client: 4 << 10},
		"client sends a length":  {request: length, asks: writeSome},
		"client sends chunks":    {request: chunks, asks: writeSome},
		"backend takes a length": {request: length, asks: quickly, backend: 20 << 10},
		"backend takes chunks":   {request: chunks, asks: quickly, backend: 20 << 10},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := startCarrier(t, steadyPatience)
			taken := make(chan int64, 1)
			finish := c.use(t, func(conn net.Conn, _ int) {
				conn.SetDeadline(time.Now().Add(time.Minute))
				req, err := http.ReadRequest(bufio.NewReader(conn))
				if err != nil {
					return
				}
				n, _ := readSome(req.Body, test.backend)
				taken <- n
				if test.answer == "" {
					io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
					return
				}
				io.WriteString(conn, "HTTP/1.1 200 OK\r\n"+test.answer)
				test.answers(conn, body)
				io.WriteString(conn, endOf(test.answer))
			})
			defer finish()
			conn := c.dialNarrow(t)
			if test.request == "" {
				io.WriteString(conn, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
			} else {
				io.WriteString(conn, "POST / HTTP/1.1\r\nHost: a\r\n"+test.request)
				test.asks(conn, body)
				io.WriteString(conn, endOf(test.request))
			}
			res, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil {
				t.Fatal(err)
			}
			got, err := readSome(res.Body, test.client)
			asked := <-taken
			if err != nil || test.answer != "" && got != size || test.request != "" && asked != size {
				t.Errorf("the client got %d bytes and %v, the backend %d; want all %d", got, err, asked, size)
			}
			if err := <-c.ends; err != nil {
				t.Errorf("the exchange ended with %v", err)
			}
		})
	}
}

func endOf(head string) string {
	if bytes.Contains([]byte(head), []byte("chunked")) {
		return "\r\n0\r\n\r\n"
	}
	return ""
}

// pair is both ends of a connection.
func pair(t *testing.T) (near, far *net.TCPConn) {
	t.Helper()
	listener := listen(t)
	defer listener.Close()
	conn, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	other, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(); other.Close() })
	return conn.(*net.TCPConn), other.(*net.TCPConn)
}

// watched is a session in an exchange that waits, and what may move meanwhile, which is
// looked at by a clock of the test's.
type watched struct {
	t               *testing.T
	session         *session
	client, backend *net.TCPConn // the far ends
	from            *upstream
	now             int64
}

func newWatched(t *testing.T, flow uint32, limit time.Duration) *watched {
	t.Helper()
	server := &Server{config: Config{Handler: &rig{}, Limits: DefaultLimits(), Idle: time.Minute}}
	near, client := pair(t)
	w := &watched{t: t, session: newSession(server, near, addrOf(near.RemoteAddr()), 0), client: client}
	near, w.backend = pair(t)
	w.from = newUpstream(near, NewBackend(BackendConfig{}))
	w.session.upstream.Store(w.from)
	w.session.arm(limit)
	w.session.flow.Store(flow)
	chunk := make([]byte, 64<<10)
	for _, in := range []*inlet{&w.session.in, &w.from.inlet} { // each has more for its other end than that takes
		in.raw.Write(func(fd uintptr) bool {
			for n := 1; n > 0; {
				n, _ = send(fd, chunk)
			}
			return true
		})
	}
	return w
}

// lasts lets time pass, and says how much of it the exchange was let go on.
func (w *watched) lasts(d time.Duration) time.Duration {
	began := w.now
	for end := w.now + d.Milliseconds(); w.now < end && !w.session.watch.hasExpired(); w.now += tick.Milliseconds() {
		w.session.server.now.Store(w.now)
		w.session.sweep(w.now, false)
	}
	return time.Duration(w.now-began) * time.Millisecond
}

// take has a far end take a little, and waits until the near one knows.
func (w *watched) take(far net.Conn, near *inlet) {
	before := acked(near.raw)
	deadline := time.Now().Add(time.Minute)
	far.SetReadDeadline(deadline)
	for now := before; now == before; now = acked(near.raw) {
		if _, err := io.CopyN(io.Discard, far, 1000); err != nil || time.Now().After(deadline) {
			w.t.Fatalf("nothing was taken: %v", err)
		}
	}
}

// What moves lets an exchange go on; what does not, be it that more only waits to be read,
// ends it within a second of its limit.
func TestOnlyWhatMovesIsProgress(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("only Linux tells what moves in the kernel")
	}
	takes := func(w *watched) { w.take(w.client, &w.session.in) }
	receives := func(w *watched) { w.take(w.backend, &w.from.inlet) }
	sends := func(w *watched) {
		if _, err := w.backend.Write([]byte("x")); err != nil {
			w.t.Fatal(err)
		}
	}
	passes := func(w *watched) {
		sends(w)
		if err := w.from.fill(); err != nil {
			w.t.Fatal(err)
		}
	}
	for name, test := range map[string]struct {
		flow uint32
		does func(*watched)
		want bool
	}{
		"nothing":                        {flowsUp | flowsDown | flowsSpliced, func(*watched) {}, false},
		"the client takes":               {flowsDown, takes, true},
		"the client takes no answer":     {flowsUp, takes, false},
		"the backend takes":              {flowsUp, receives, true},
		"the backend takes no body":      {flowsDown | flowsSpliced, receives, false},
		"the backend sends":              {flowsDown | flowsSpliced, passes, true},
		"it sends, and is not heard":     {flowsDown | flowsSpliced, sends, false},
		"it sends what is no answer yet": {flowsUp, passes, false},
		"before anything flows":          {0, func(w *watched) { takes(w); passes(w); receives(w) }, false},
	} {
		for _, limit := range []time.Duration{400 * time.Millisecond, 10 * time.Second} {
			t.Run(fmt.Sprint(name, "/", limit), func(t *testing.T) {
				w := newWatched(t, test.flow, limit)
				most := limit + time.Second
				for range 8 {
					test.does(w)
					if pause := limit * 9 / 10; w.lasts(pause) < pause {
						most = 0
						break
					}
				}
				if lasted := most > 0; lasted != test.want {
					t.Fatalf("got it going on: %t, want %t", lasted, test.want)
				}
				if test.want && w.lasts(2*most) > most {
					t.Errorf("went on for more than %s when nothing moved any more", most)
				}
			})
		}
	}
}

// A stalled exchange is laid to who stalled, also if its bytes are on the way between.
func TestStallIsLaidToWhoStalled(t *testing.T) {
	for name, test := range map[string]struct {
		sends int // by the backend, of what it has announced
		reads bool
		want  error
	}{
		"the client reads nothing":         {12 << 20, false, ErrClientStalled},
		"the backend sends no more":        {3 << 20, true, ErrBackendStalled},
		"the backend sends no more, early": {10, true, ErrBackendStalled},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := startCarrier(t, time.Second)
			finish := c.use(t, func(conn net.Conn, _ int) {
				conn.SetDeadline(time.Now().Add(time.Minute))
				in := bufio.NewReader(conn)
				if _, err := http.ReadRequest(in); err == nil {
					io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 12582912\r\n\r\n")
					conn.Write(make([]byte, test.sends))
					io.Copy(io.Discard, in)
				}
			})
			conn := c.dialNarrow(t)
			io.WriteString(conn, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
			if test.reads {
				res, err := http.ReadResponse(bufio.NewReader(conn), nil)
				if err != nil {
					t.Fatal(err)
				}
				if n, err := io.Copy(io.Discard, res.Body); int(n) != test.sends || !errors.Is(err, io.ErrUnexpectedEOF) {
					t.Errorf("the client got %d bytes and %v, want %d and their end", n, err, test.sends)
				}
			}
			if err := <-c.ends; !errors.Is(err, test.want) {
				t.Errorf("the exchange ended with %v, want %v", err, test.want)
			}
			conn.Close()
			finish()
		})
	}
}
