package proxy

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"syscall"
)

// errGivenUp is a wait that ended because the conversation has failed elsewhere.
var errGivenUp = errors.New("given up")

// send sends a message in its pieces, each once the one before has come through. prefix
// goes with the first of them. If held is to be, the last is returned instead.
func (c *conversation) send(conn net.Conn, w *wire, come *int, prefix []byte, hold bool) (held []byte, err error) {
	if w.bytes {
		return nil, sendBytes(conn, prefix, w.all)
	}
	at := 0
	for _, cut := range w.cuts {
		if _, err := conn.Write(append(prefix, w.all[at:cut]...)); err != nil {
			return nil, err
		}
		need := w.arrives(cut)
		if !c.await(func() bool { return *come >= need }) {
			return nil, errGivenUp
		}
		prefix, at = nil, cut
	}
	last := append(prefix, w.all[at:]...)
	if hold {
		return last, nil
	}
	_, err = conn.Write(last)
	return nil, err
}

func sendBytes(conn net.Conn, prefix, all []byte) error {
	if _, err := conn.Write(prefix); err != nil {
		return err
	}
	for i := range all {
		if _, err := conn.Write(all[i : i+1]); err != nil {
			return err
		}
	}
	return nil
}

// client makes a client's requests, over as many connections as that takes.
func (c *conversation) client(trades []*trade) {
	for len(trades) > 0 && !c.hasFailed() {
		n := 1
		for n < len(trades) && !trades[n-1].endsClient() {
			n++
		}
		if err := c.visit(trades[:n]); err != nil {
			c.failf("%v", err)
		}
		c.await(func() bool { return trades[n-1].done })
		trades = trades[n:]
	}
}

// visit makes the requests that go over one connection.
func (c *conversation) visit(trades []*trade) error {
	dialer := net.Dialer{Control: c.narrowly}
	conn, err := dialer.Dial("tcp", c.addr)
	if err != nil {
		return err
	}
	defer reset(conn)
	c.opened(conn)
	if c.feature == toldOf {
		io.WriteString(conn, "PROXY TCP4 192.0.2.1 192.0.2.2 1000 80\r\n")
	}
	var asking sync.WaitGroup
	asking.Go(func() {
		if err := c.ask(conn, trades); err != nil && !errors.Is(err, errGivenUp) {
			c.failf("a request cannot be sent: %v", err)
		}
	})
	err = c.hear(conn, trades)
	if err != nil {
		c.failf("%v", err) // which ends what asks, too
	}
	asking.Wait()
	return err
}

// ask sends the requests, and after them one that ends the connection, unless the last
// of them does.
func (c *conversation) ask(conn net.Conn, trades []*trade) (err error) {
	var prefix []byte
	for i, t := range trades {
		if i > 0 && !t.behind {
			before := trades[i-1]
			if !c.await(func() bool { return before.delivered && before.done }) {
				return errGivenUp
			}
		}
		hold := i+1 < len(trades) && trades[i+1].behind
		if t.waits {
			err = c.askPatiently(conn, t, prefix)
			prefix = nil
		} else {
			prefix, err = c.send(conn, t.request, &t.asked, prefix, hold)
		}
		if err != nil {
			return err
		}
	}
	last := trades[len(trades)-1]
	if last.upgrades {
		if !c.await(func() bool { return last.asked == len(last.request.body) && last.answered == len(last.answer.body) }) {
			return errGivenUp
		}
		return conn.(*net.TCPConn).CloseWrite()
	}
	if !last.endsClient() {
		_, err = io.WriteString(conn, "OPTIONS * HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
	}
	return err
}

// askPatiently sends a head, and the body once the client was told to.
func (c *conversation) askPatiently(conn net.Conn, t *trade, prefix []byte) error {
	if _, err := conn.Write(append(prefix, t.request.all[:t.request.head]...)); err != nil {
		return err
	}
	if !c.await(func() bool { return t.told }) {
		return errGivenUp
	}
	_, err := conn.Write(t.request.all[t.request.head:])
	return err
}

// hear takes the answers, and the end of the connection.
func (c *conversation) hear(conn net.Conn, trades []*trade) error {
	in := bufio.NewReader(conn)
	for _, t := range trades {
		if err := c.takeAnswer(t, in); err != nil {
			return fmt.Errorf("%s at the client: %w", t.path, err)
		}
		c.progressed()
	}
	last := trades[len(trades)-1]
	if !last.endsClient() {
		res, err := http.ReadResponse(in, nil)
		if err != nil || res.StatusCode != http.StatusOK || res.ContentLength != 0 {
			return fmt.Errorf("behind %s: got %v, %v; want an answer to OPTIONS *", last.path, res, err)
		}
	}
	if n, err := io.Copy(io.Discard, in); n > 0 || err != nil && last.end() != syscall.ECONNRESET {
		return fmt.Errorf("behind %s: got %d bytes and %v, want the end", last.path, n, err)
	}
	return nil
}

// takeAnswer sees that an answer is the planned one.
func (c *conversation) takeAnswer(t *trade, in *bufio.Reader) error {
	res, err := c.takeHead(t, in)
	if err != nil {
		return err
	}
	out, length := t.outward(), ""
	switch {
	case out == counted:
		length = strconv.Itoa(t.answer.size)
	case t.announce >= 0:
		length = strconv.Itoa(t.announce)
	}
	switch {
	case res.StatusCode != t.status:
		return fmt.Errorf("got status %d, want %d", res.StatusCode, t.status)
	case t.upgrades:
	case res.Header.Get("Content-Length") != length:
		return fmt.Errorf("got a length of %q, want %q", res.Header.Get("Content-Length"), length)
	case (len(res.TransferEncoding) > 0) != (out == chunked):
		return fmt.Errorf("got encodings %v", res.TransferEncoding)
	case says(res, t.old) == t.endIsTold():
		return fmt.Errorf("got Connection: %q, want the connection to end %t", res.Header["Connection"], t.endIsTold())
	}
	c.note(func() { t.answered = max(t.answered, 0) })
	body := io.Reader(res.Body)
	if t.upgrades {
		body = in
	}
	if err := c.compare(body, t.answer.body, t.end(), &t.answered); err != nil {
		return err
	}
	if got := res.Trailer.Get("X-Sum"); got != t.answer.trailer && out == chunked {
		return fmt.Errorf("got a trailer %q, want %q", got, t.answer.trailer)
	}
	c.note(func() { t.delivered = true })
	return nil
}

// end is what stands behind the answer's body for a client that can tell its length.
func (t *trade) end() error {
	switch {
	case t.breaks == never:
		return io.EOF
	case t.outward() == untilClose:
		return syscall.ECONNRESET
	}
	return io.ErrUnexpectedEOF
}

// says says whether an answer has the connection go on.
func says(res *http.Response, old bool) bool {
	if old {
		return res.Header.Get("Connection") == "keep-alive"
	}
	return !res.Close
}

// takeHead reads the head of the final answer.
func (c *conversation) takeHead(t *trade, in *bufio.Reader) (*http.Response, error) {
	for told := false; ; told = true {
		res, err := http.ReadResponse(in, &http.Request{Method: t.method})
		if err != nil || res.StatusCode != http.StatusContinue {
			if told != t.expects && err == nil {
				err = fmt.Errorf("got 100 Continue %t, want %t", told, t.expects)
			}
			return res, err
		}
		if told {
			return nil, errors.New("got 100 Continue twice")
		}
		c.note(func() { t.told = true })
	}
}

// narrowly makes a socket take little at once, in small segments, if the conversation is a
// narrow one: so the proxy's writes are partial ones.
func (c *conversation) narrowly(_, _ string, raw syscall.RawConn) error {
	if !c.narrow {
		return nil
	}
	return raw.Control(func(fd uintptr) {
		syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, 16<<10)
		syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_MAXSEG, 1400)
	})
}
