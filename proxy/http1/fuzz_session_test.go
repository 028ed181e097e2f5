package http1

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// rig is a server before a backend that changes from case to case.
type rig struct {
	addr    string
	backend atomic.Pointer[Backend]
}

func startRig(t testing.TB, limits Limits) *rig {
	t.Helper()
	return startRigOn(t, limits, listen(t))
}

func listen(t testing.TB) net.Listener {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return listener
}

func startRigOn(t testing.TB, limits Limits, listener net.Listener) *rig {
	t.Helper()
	r := &rig{}
	server := NewServer(Config{
		Handler: r, Limits: limits, Header: 300 * time.Millisecond, Idle: time.Second, Log: slog.New(slog.DiscardHandler),
	})
	r.addr = listener.Addr().String()
	var serving sync.WaitGroup
	serving.Go(func() { server.Serve(listener) })
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		server.Shutdown(ctx)
		serving.Wait()
	})
	return r
}

// Handle implements Handler as a proxy does that has one backend.
func (r *rig) Handle(x *Exchange) {
	switch {
	case x.Last():
		x.Reply()
	case string(x.Method()) == http.MethodConnect:
		x.Refuse(http.StatusMethodNotAllowed, "")
	case bytes.HasPrefix(x.Path(), []byte("/unknown")):
		x.Refuse(http.StatusNotFound, "")
	default:
		err := x.Forward(context.Background(), r.backend.Load(), Patience{Try: 2 * time.Second, Progress: 2 * time.Second})
		if err == nil || x.Status() > 0 || errors.Is(err, ErrClientLeft) {
			return
		}
		var fault *Fault
		if errors.As(err, &fault) && !errors.Is(err, ErrBadAnswer) {
			x.Refuse(fault.Status, fault.what)
			return
		}
		x.Refuse(http.StatusBadGateway, "")
	}
}

func (r *rig) Refused(*Exchange, *Fault) {}
func (r *rig) Rejected(Rejection)        {}
func (r *rig) Connections(int)           {}

// use makes a listener's connections, given to serve, the backend of one case. Once
// finish returns, they are all over.
func (r *rig) use(t testing.TB, serve func(conn net.Conn, number int)) (finish func()) {
	t.Helper()
	listener := listen(t)
	backend := NewBackend(BackendConfig{Addr: listener.Addr().String(), Connect: time.Second})
	r.backend.Store(backend)
	var accepting, conns sync.WaitGroup
	accepting.Go(func() {
		for number := 1; ; number++ {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			conn.SetDeadline(time.Now().Add(5 * time.Second))
			conns.Go(func() {
				defer conn.Close()
				serve(conn, number)
			})
		}
	})
	return func() {
		backend.Close()
		listener.Close()
		accepting.Wait()
		conns.Wait()
	}
}

// talk sends data, so many bytes at a time, and the end if it is to. It returns what
// comes back, and whether that broke off.
func (r *rig) talk(t testing.TB, data []byte, step int, ends bool) (got []byte, broken bool) {
	t.Helper()
	conn, err := net.Dial("tcp", r.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer reset(conn)
	conn.SetDeadline(time.Now().Add(5 * time.Second))
	for rest := data; len(rest) > 0; rest = rest[min(step, len(rest)):] {
		conn.Write(rest[:min(step, len(rest))])
	}
	if ends {
		conn.(*net.TCPConn).CloseWrite()
	}
	got, err = io.ReadAll(conn)
	if err != nil && !errors.Is(err, syscall.ECONNRESET) {
		t.Fatalf("the connection did not end: %v; sent %q, got %q", err, data, got)
	}
	return got, err != nil
}

// reset closes a connection that has ended so that nothing is left of it. Otherwise
// many cases would soon use up the ports.
func reset(conn net.Conn) {
	conn.(*net.TCPConn).SetLinger(0)
	conn.Close()
}

// message is what is compared of a request, as http.ReadRequest finds it.
type message struct {
	method, target, host, body string
}

// origin is the origin form of a target.
func origin(target string) string {
	if _, rest, ok := strings.Cut(target, "://"); ok && target[0] != '/' {
		target = strings.TrimLeftFunc(rest, func(c rune) bool { return c != '/' && c != '?' })
		if target == "" || target[0] == '?' {
			return "/" + target
		}
	}
	return target
}

// messagesIn gives the requests in a client's bytes, as far as they can be read: those
// that are whole, and the methods of all, the last of which may have no whole body.
func messagesIn(data []byte) (whole []message, methods []string) {
	r := bufio.NewReaderSize(bytes.NewReader(data), 64<<10)
	for {
		for next, _ := r.Peek(2); string(next) == "\r\n"; next, _ = r.Peek(2) {
			r.Discard(2)
		}
		req, err := http.ReadRequest(r)
		if err != nil {
			return whole, methods
		}
		methods = append(methods, req.Method)
		body, err := io.ReadAll(req.Body)
		if err != nil {
			return whole, methods
		}
		whole = append(whole, message{req.Method, origin(req.RequestURI), req.Host, string(body)})
	}
}

// observer is a backend that reads with http.ReadRequest.
type observer struct {
	mu    sync.Mutex
	whole []message
	wrong []string
}

func (o *observer) serve(conn net.Conn, _ int) {
	defer reset(conn)
	var all bytes.Buffer
	r := bufio.NewReader(io.TeeReader(conn, &all))
	for {
		if _, err := r.Peek(1); err != nil {
			return
		}
		req, err := http.ReadRequest(r)
		if err != nil {
			o.note(nil, fmt.Sprintf("%v: %q", err, all.Bytes()))
			return
		}
		if req.Header.Get("Expect") != "" {
			io.WriteString(conn, "HTTP/1.1 100 Continue\r\n\r\n")
		}
		body, err := io.ReadAll(req.Body)
		if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) {
			return // cut short, and nothing comes behind it
		}
		o.check(req, err, all.Bytes())
		o.note(&message{req.Method, req.RequestURI, req.Host, string(body)}, "")
		io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
	}
}

func (o *observer) note(m *message, wrong string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if m != nil {
		o.whole = append(o.whole, *m)
	}
	if wrong != "" {
		o.wrong = append(o.wrong, wrong)
	}
}

// check sees that what only the proxy may say is said by it alone.
func (o *observer) check(req *http.Request, err error, all []byte) {
	h := req.Header
	switch {
	case err != nil:
		o.note(nil, fmt.Sprintf("%v: %q", err, all))
	case !slices.Equal(h["X-Forwarded-For"], []string{"127.0.0.1"}), len(h["X-Request-Id"]) != 1, len(h["X-Forwarded-Proto"]) != 1:
		o.note(nil, fmt.Sprintf("forwarding fields are not ours: %q", all))
	case req.Host == "" || h["Proxy"] != nil || h["X-Real-Ip"] != nil || h["Keep-Alive"] != nil || h["Http2-Settings"] != nil:
		o.note(nil, fmt.Sprintf("fields that are not for backends: %q", all))
	}
	for name := range h {
		if strings.HasPrefix(strings.ReplaceAll(strings.ToLower(name), "_", "-"), "x-forwarded") && strings.Contains(name, "_") {
			o.note(nil, fmt.Sprintf("a field that passes for one of ours: %q", all))
		}
	}
}

// FuzzRequestsAtBackend sends any bytes to a session, and sees that the requests that
// http.ReadRequest finds in what the backend got are those that it finds in the
// bytes, in order, each whole and none more; those answered on the way are left out.
func FuzzRequestsAtBackend(f *testing.F) {
	addInputs(f, "requests")
	for _, body := range []string{"Content-Length: 30\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\n1e\r\n"} {
		f.Add([]byte("POST /unknown HTTP/1.1\r\nHost: a\r\n" + body + "GET /known HTTP/1.1\r\nHost: a\r\n\r\n\r\n0\r\n\r\n"))
	}
	for _, fault := range []string{" HTTP/3.1\r\nHost: a\r\n\r\n", " HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", " HTTP/1.1\r\nHost: a\r\nExpect: x\r\n\r\n",
		" HTTP/1.1\nHost: a\r\n\r\n", "\r\n\r\n", strings.Repeat("x", 100000) + " HTTP/1.1\r\nHost: a\r\n\r\n"} {
		f.Add([]byte("HEAD /" + fault))
	}
	r := startRig(f, DefaultLimits())
	f.Fuzz(func(t *testing.T, data []byte) { r.checkRequests(t, data, len(data)) })
}

// checkRequests sends data, so many bytes at a time. Behind requests that are whole
// stands one more that ends the connection, which saves waiting.
func (r *rig) checkRequests(t *testing.T, data []byte, step int) {
	t.Helper()
	whole, methods := messagesIn(data)
	ends := len(whole) < len(methods) || len(whole) == 0
	if !ends {
		data = append(bytes.Clone(data), "OPTIONS * HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"...)
	}
	o := &observer{}
	finish := r.use(t, o.serve)
	answers, _ := r.talk(t, data, step, ends)
	finish()
	if len(o.wrong) > 0 {
		t.Fatalf("%q made the backend see %v", data, o.wrong)
	}
	want, methods := messagesIn(data)
	if !readElsewise(data) {
		checkOrder(t, data, o.whole, want)
		checkAnswers(t, data, answers, methods)
	}
}

// plain hides that a connection is the kernel's own, as TLS does.
type plain struct{ net.Conn }

func (p plain) CloseWrite() error { return p.Conn.(*net.TCPConn).CloseWrite() }

type plainListener struct{ net.Listener }

func (l plainListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return plain{conn}, nil
}

// All inputs, over connections of both kinds, at once and byte by byte.
func TestRequestsThroughSessions(t *testing.T) {
	inputs := readInputs(t, "requests")
	rigs := map[string]*rig{"tcp": startRig(t, DefaultLimits()), "plain": startRigOn(t, DefaultLimits(), listenPlain(t))}
	for kind, r := range rigs {
		for name, data := range inputs {
			t.Run(kind+"/"+name, func(t *testing.T) {
				r.checkRequests(t, data, len(data))
				if len(data) < 1000 {
					r.checkRequests(t, data, 1)
				}
			})
		}
	}
}

func listenPlain(t testing.TB) net.Listener { return plainListener{listen(t)} }

// readElsewise says whether net/http may refuse some of what is accepted here; see
// FuzzRequest and FuzzChunks.
func readElsewise(data []byte) bool {
	lower := bytes.ToLower(data)
	return bytes.Contains(lower, []byte("trailer")) || bytes.Contains(data, []byte("CONNECT")) ||
		bytes.Count(lower, []byte("content-length")) > 1 || chunksOfOurs.Match(data) || escapedHost.Match(lower)
}

var escapedHost = regexp.MustCompile("://[^/? ]*%")

// checkOrder sees that what arrived is what was sent, with nothing in between but
// requests that are answered without a backend.
func checkOrder(t *testing.T, data []byte, got, sent []message) {
	t.Helper()
	for _, m := range got {
		for len(sent) > 0 && !m.comesFrom(sent[0]) && sent[0].answeredHere() {
			sent = sent[1:]
		}
		if len(sent) == 0 || !m.comesFrom(sent[0]) {
			t.Fatalf("%q made the backend see %q, want %q", data, m, sent)
		}
		sent = sent[1:]
	}
}

func (m message) comesFrom(sent message) bool {
	return m.method == sent.method && m.target == sent.target && m.body == sent.body && (m.host == sent.host || sent.host == "")
}

func (m message) answeredHere() bool {
	return m.method == http.MethodOptions || strings.HasPrefix(m.target, "/unknown")
}

// checkAnswers sees that a client can tell the answers to its requests apart, and
// that there are no more of them, but one to what is no request.
func checkAnswers(t *testing.T, data, answers []byte, methods []string) {
	t.Helper()
	r := bufio.NewReaderSize(bytes.NewReader(answers), 64<<10)
	for final := 0; ; {
		if _, err := r.Peek(1); err != nil {
			return
		}
		method := http.MethodGet
		if final < len(methods) {
			method = methods[final]
		}
		res, err := http.ReadResponse(r, &http.Request{Method: method})
		n := int64(0)
		if err == nil {
			n, err = io.Copy(io.Discard, res.Body)
		}
		// The last answer may be to a HEAD that net/http does not take for a request.
		if headOnly := n == 0 && final == len(methods) && bytes.Contains(data, []byte("HEAD ")); err != nil && !headOnly {
			t.Fatalf("%q was answered %q, which cannot be read: %v", data, answers, err)
		}
		if res == nil || res.StatusCode >= 200 {
			final++
		}
		if final > len(methods)+1 {
			t.Fatalf("%q was answered %q, want no more than %d answers", data, answers, len(methods)+1)
		}
	}
}

// A head that comes too slowly is refused, however much of it has come.
func TestSlowHeadIsRefused(t *testing.T) {
	r := startRig(t, DefaultLimits())
	conn, err := net.Dial("tcp", r.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	began := time.Now()
	conn.SetDeadline(began.Add(5 * time.Second))
	io.WriteString(conn, "GET / HTTP/1.1\r\nX: ")
	over := make(chan bool)
	var dripping sync.WaitGroup
	dripping.Go(func() {
		for drip := time.NewTicker(20 * time.Millisecond); ; {
			select {
			case <-drip.C:
				io.WriteString(conn, "y")
			case <-over:
				drip.Stop()
				return
			}
		}
	})
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	close(over)
	dripping.Wait()
	if err != nil || res.StatusCode != http.StatusRequestTimeout || time.Since(began) > 1300*time.Millisecond {
		t.Errorf("got %v, %v after %s; want 408 within a second of the limit", res, err, time.Since(began))
	}
}
