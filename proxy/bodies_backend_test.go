package proxy

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"time"

	"lbnode/state"
)

// testCertificate is one that httptest keeps, and what makes it trusted.
var testCertificate = sync.OnceValue(func() *httptest.Server {
	s := httptest.NewUnstartedServer(http.NotFoundHandler())
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	s.Close()
	return s
})

// listen starts a backend that carries trades out as they are planned.
func (c *conversation) listen(name string) state.Backend {
	listening := net.ListenConfig{Control: c.narrowly}
	listener, err := listening.Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		c.t.Fatal(err)
	}
	c.closers = append(c.closers, listener)
	c.running.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			number := c.opened(conn)
			c.running.Go(func() { c.serve(conn, number) })
		}
	})
	b := backendAt(name, listener.Addr())
	if c.feature == encrypted {
		b.Protocol = "https"
	}
	return b
}

// serve serves one connection of the proxy.
func (c *conversation) serve(conn net.Conn, number int) {
	defer conn.Close()
	if c.feature == encrypted {
		secure := tls.Server(conn, &tls.Config{Certificates: testCertificate().TLS.Certificates})
		defer secure.Close()
		conn = secure
	}
	in := bufio.NewReader(conn)
	if err := c.readPreface(in); err != nil {
		if err != io.EOF {
			c.failf("the PROXY header: %v", err)
		}
		return
	}
	for {
		r, err := http.ReadRequest(in)
		if err != nil {
			return // the proxy has ended it; what is missing is missed elsewhere
		}
		if r.Header.Get("Via") == "" {
			return // not by the proxy: a stranger, who looks for somebody that had this port before
		}
		t := c.trades[r.URL.Path]
		if t == nil {
			c.failf("a backend got %s %s, which nobody sent", r.Method, r.URL.Path)
			return
		}
		if !c.carry(t, conn, in, r, number) {
			return
		}
	}
}

// readPreface reads the PROXY header, if there must be one.
func (c *conversation) readPreface(in *bufio.Reader) error {
	switch c.feature {
	case telling1:
		line, err := in.ReadString('\n')
		if err == nil && !strings.HasPrefix(line, "PROXY TCP4 ") {
			err = fmt.Errorf("got %q", line)
		}
		return err
	case telling2:
		var head [16]byte
		if _, err := io.ReadFull(in, head[:]); err != nil {
			return err
		}
		_, err := in.Discard(int(binary.BigEndian.Uint16(head[14:])))
		return err
	}
	return nil
}

// carry takes a request and answers it. It says whether the connection goes on.
func (c *conversation) carry(t *trade, conn net.Conn, in *bufio.Reader, r *http.Request, number int) bool {
	attempt := 0
	c.note(func() { t.attempts++; attempt, t.asked = t.attempts, max(t.asked, 0) })
	if t.upgrades {
		return c.tunnel(t, conn, in, number)
	}
	if err := c.takeRequest(t, conn, r); err != nil {
		if !c.lost(t) {
			c.failf("%s at the backend: %v", t.path, err)
		}
		return false
	}
	if attempt == 1 && t.fails > 0 {
		breakOff(conn, t.fails)
		return false
	}
	if t.hangs {
		alone, ok := c.awaitSecond(t)
		if !ok {
			return false
		}
		if !alone && t.late != (attempt == 1) {
			io.Copy(io.Discard, in) // until the proxy gives this one up
			return false
		}
	}
	return c.reply(t, conn, number)
}

// awaitSecond waits for a second attempt. It says whether there was none for so long that
// there will be none: on a busy machine the other backend may seem out of reach.
func (c *conversation) awaitSecond(t *trade) (alone, ok bool) {
	patience := time.AfterFunc(stuckAfter/4, func() { c.note(func() { t.alone = t.attempts == 1 }) })
	defer patience.Stop()
	ok = c.await(func() bool { return t.attempts > 1 || t.alone })
	c.note(func() { alone = t.alone })
	return alone, ok
}

// lost says whether an attempt may come to nothing, since another one is there.
func (c *conversation) lost(t *trade) (may bool) {
	c.note(func() { may = c.feature == hedging && t.attempts > 1 })
	return may
}

// breakOff ends a connection in one of three ways instead of answering.
func breakOff(conn net.Conn, how int) {
	switch how {
	case 1:
		reset(conn)
	case 2:
		io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Le")
	}
	conn.Close()
}

// takeRequest sees that the request is the planned one.
func (c *conversation) takeRequest(t *trade, conn net.Conn, r *http.Request) error {
	w := t.request
	length := map[framing]int64{noBody: 0, counted: int64(len(w.body)), chunked: -1}[w.framing]
	if r.Method != t.method || r.ContentLength != length || (len(r.TransferEncoding) > 0) != (w.framing == chunked) {
		return fmt.Errorf("got %s with length %d and encodings %v", r.Method, r.ContentLength, r.TransferEncoding)
	}
	if (r.Header.Get("Expect") != "") != t.expects {
		return fmt.Errorf("got Expect: %q", r.Header.Get("Expect"))
	}
	if t.expects {
		io.WriteString(conn, "HTTP/1.1 100 Continue\r\n\r\n")
	}
	if err := c.compare(r.Body, w.body, io.EOF, &t.asked); err != nil {
		return err
	}
	if got := r.Trailer.Get("X-Sum"); got != w.trailer {
		return fmt.Errorf("got a trailer %q, want %q", got, w.trailer)
	}
	return nil
}

// compare reads a body to its end, which must be the wanted one, and notes how far it is.
func (c *conversation) compare(r io.Reader, want []byte, end error, come *int) error {
	buf := make([]byte, 32<<10)
	at := 0
	for {
		n, err := r.Read(buf)
		if at+n > len(want) || !bytes.Equal(buf[:n], want[at:at+n]) {
			return fmt.Errorf("of the body %d bytes came as they were sent, and then others", at)
		}
		at += n
		if n > 0 {
			c.note(func() { *come = max(*come, at) })
		}
		switch {
		case err == nil:
		case at < len(want) || !errors.Is(err, end):
			return fmt.Errorf("after %d of %d bytes: %w, want %v", at, len(want), err, end)
		default:
			return nil
		}
	}
}

// reply answers as planned. It says whether the connection goes on.
func (c *conversation) reply(t *trade, conn net.Conn, number int) bool {
	_, err := c.send(conn, t.answer, &t.answered, nil, false)
	if t.surplus != "" && !errors.Is(err, errGivenUp) {
		err = nil // the proxy may have closed the connection before all of that was sent
	}
	if t.breaks >= breaksThen && !c.await(func() bool { return t.answered >= len(t.answer.body) }) {
		err = errGivenUp
	}
	ends := t.shuts || !t.persists
	switch {
	case t.breaks == breaksHard:
		c.reset(conn)
	case ends:
		conn.Close()
	}
	if err != nil {
		if !errors.Is(err, errGivenUp) && !c.lost(t) {
			c.failf("%s: the answer cannot be sent: %v", t.path, err)
		}
		return false
	}
	c.note(func() { t.done, t.over = true, number })
	return !ends
}

// reset resets a connection, be it below TLS.
func (c *conversation) reset(conn net.Conn) {
	if over, ok := conn.(*tls.Conn); ok {
		conn = over.NetConn()
	}
	reset(conn)
}

// tunnel carries out an upgrade: bytes in both directions, and then both ends.
func (c *conversation) tunnel(t *trade, conn net.Conn, in *bufio.Reader, number int) bool {
	var back sync.WaitGroup
	back.Go(func() {
		if _, err := c.send(conn, t.answer, &t.answered, nil, false); err != nil && !errors.Is(err, errGivenUp) && !c.lost(t) {
			c.failf("%s: the tunnel takes nothing from the backend: %v", t.path, err)
		}
	})
	err := c.compare(in, t.request.body, io.EOF, &t.asked)
	back.Wait()
	conn.Close()
	switch {
	case err == nil:
		c.note(func() { t.done, t.over = true, number })
	case !c.lost(t):
		c.failf("%s at the backend: %v", t.path, err)
	}
	return false
}
