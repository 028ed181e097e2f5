package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// Three nodes are restarted one after the other, as an upgrade does, while clients
// that know all three send requests over connections that they keep, POST among them,
// and have WebSockets open. Nothing fails.
func TestRollingRestart(t *testing.T) {
	perSecond, rounds := 300, 1
	if *long {
		perSecond, rounds = 1000, 5
	}
	backend := httptest.NewServer(http.HandlerFunc(echoAll))
	defer backend.Close()
	nodes := newLBs(t, 3, "-backend", backend.URL)
	startAll(nodes)
	eventually(t, patience, "all serve", func() bool {
		return every(nodes, serves)
	})
	ctx, stop := context.WithCancel(t.Context())
	l := &restLoad{nodes: nodes}
	var running sync.WaitGroup
	const clients = 20
	for range clients {
		running.Go(func() { l.request(ctx, t, clients*time.Second/time.Duration(perSecond)) })
	}
	for range 5 {
		running.Go(func() { l.webSockets(ctx, t) })
	}
	for range rounds {
		for _, n := range nodes {
			before := l.done.Load()
			n.signal(syscall.SIGTERM)
			if code, out := n.exit(patience); code != 0 {
				t.Errorf("%s ended with %d: %s", n.name, code, out)
			}
			n.start()
			eventually(t, patience, n.name+" serves again", func() bool { return serves(n) })
			eventually(t, patience, "load goes on", func() bool { return l.done.Load() > before+int64(perSecond) })
			eventually(t, patience, "all is well", func() bool { return isWhole(nodes) })
		}
	}
	stop()
	running.Wait()
	t.Logf("%d restarts: %d requests, of them %d POST, and %d WebSockets; %d failed",
		rounds*len(nodes), l.done.Load(), l.posts.Load(), l.sockets.Load(), l.failed.Load())
	if l.sockets.Load() == 0 || l.posts.Load() == 0 {
		t.Error("got no POST or no WebSocket at all")
	}
}

// serves says whether a node takes traffic and answers it.
func serves(n *lb) bool {
	res, err := http.Get("http://" + n.http + "/")
	if err != nil {
		return false
	}
	res.Body.Close()
	return res.StatusCode == http.StatusOK
}

// echoAll answers with the body, or goes on as an echo.
func echoAll(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Upgrade") == "" {
		io.Copy(w, r.Body)
		return
	}
	conn, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer conn.Close()
	io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
	io.Copy(conn, rw)
}

// restLoad is clients that know all nodes.
type restLoad struct {
	nodes                        []*lb
	done, posts, sockets, failed atomic.Int64
}

// dial connects to any node that accepts, as a client does that got several
// addresses for one name.
func (l *restLoad) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	var dialer net.Dialer
	var failed error
	for _, i := range rand.Perm(len(l.nodes)) {
		conn, err := dialer.DialContext(ctx, "tcp", l.nodes[i].http)
		if err == nil {
			return conn, nil
		}
		failed = errors.Join(failed, err)
	}
	return nil, failed
}

func (l *restLoad) fail(t *testing.T, what string, err error) {
	if l.failed.Add(1) <= 3 {
		t.Errorf("%s at %s: %v", what, time.Now().Format("15:04:05.000"), err)
	}
}

func (l *restLoad) request(ctx context.Context, t *testing.T, every time.Duration) {
	transport := &http.Transport{DialContext: l.dial}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport, Timeout: patience}
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for i := 0; ; i++ {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		method, body := http.MethodGet, ""
		if i%3 == 0 {
			method, body = http.MethodPost, fmt.Sprint("body ", i)
			l.posts.Add(1)
		}
		req, _ := http.NewRequest(method, "http://lb/", strings.NewReader(body))
		req.GetBody = nil // the transport must not send it twice
		if err := roundTrip(client, req, body); err != nil {
			l.fail(t, method, err)
		}
		l.done.Add(1)
	}
}

func roundTrip(client *http.Client, req *http.Request, want string) error {
	res, err := client.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	got, err := io.ReadAll(res.Body)
	if err == nil && (res.StatusCode != http.StatusOK || string(got) != want) {
		err = fmt.Errorf("got %d %q, want 200 %q", res.StatusCode, got, want)
	}
	return err
}

// webSockets opens one after the other, each for a second.
func (l *restLoad) webSockets(ctx context.Context, t *testing.T) {
	for ctx.Err() == nil {
		if err := l.webSocket(); err != nil {
			l.fail(t, "WebSocket", err)
		}
		l.sockets.Add(1)
	}
}

func (l *restLoad) webSocket() error {
	conn, err := l.dial(context.Background(), "", "")
	if err != nil {
		return err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(patience))
	io.WriteString(conn, "GET /ws HTTP/1.1\r\nHost: lb\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
	r := bufio.NewReader(conn)
	res, err := http.ReadResponse(r, nil)
	if err != nil || res.StatusCode != http.StatusSwitchingProtocols {
		return fmt.Errorf("got %v, %w, want 101", res, err)
	}
	for i := range 10 {
		line := fmt.Sprint("message ", i, "\n")
		io.WriteString(conn, line)
		if got, err := r.ReadString('\n'); got != line {
			return fmt.Errorf("got %q, %w, want %q", got, err, line)
		}
		<-time.After(100 * time.Millisecond)
	}
	return nil
}
