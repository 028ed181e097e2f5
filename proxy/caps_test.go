package proxy

import (
	"bufio"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// holds says whether a connection serves a request and stays open.
func holds(t *testing.T, conn net.Conn) bool {
	t.Helper()
	io.WriteString(conn, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return false
	}
	defer res.Body.Close()
	_, err = io.Copy(io.Discard, res.Body)
	return err == nil && res.StatusCode == http.StatusOK
}

func TestConnectionsAreCapped(t *testing.T) {
	var log strings.Builder
	counts := newTally()
	p, url := startProxy(t, Config{MaxConnections: 3, Recorder: counts, Log: slog.New(slog.NewTextHandler(&log, nil))}, startServer(t, "b", nil).backend())
	var open []net.Conn
	for range 3 {
		conn := dial(t, url)
		if !holds(t, conn) {
			t.Fatal("a connection below the limit is not served")
		}
		open = append(open, conn)
	}
	for range 5 {
		if holds(t, dial(t, url)) {
			t.Fatal("one connection too many is served")
		}
	}
	if got := counts.get("reject connections"); got != 5 || counts.get("connections http") != 3 {
		t.Errorf("got %d counted and %d open, want 5 and 3", got, counts.get("connections http"))
	}
	open[0].Close()
	eventually(t, "there is room for another one", func() bool { return holds(t, dial(t, url)) })
	if !holds(t, open[1]) {
		t.Error("a connection below the limit was closed")
	}
	shutdownNow(p)
	if got := strings.Count(log.String(), "reason=connections"); got != 1 {
		t.Errorf("got %d lines in the log, want 1: %s", got, log.String())
	}
}

func TestConnectionsOfOneClientAreCapped(t *testing.T) {
	counts := newTally()
	backend := startServer(t, "b", nil).backend()
	url := "http://" + startProxyAt(t, Config{MaxConnectionsPerClient: 2, Recorder: counts}, "127.0.0.1:0", backend)
	first, second := dial(t, url), dial(t, url)
	if !holds(t, first) || !holds(t, second) || holds(t, dial(t, url)) {
		t.Error("want two connections served and the third closed")
	}
	second.Close()
	eventually(t, "there is room for another one", func() bool { return holds(t, dial(t, url)) })
	if counts.get("reject client_connections") == 0 {
		t.Error("nothing was counted")
	}
}

// Who comes through a balancer of connections is counted by its own address, and the
// balancer not at all.
func TestConnectionsAreCappedByTheAddressInThePROXYHeader(t *testing.T) {
	counts := newTally()
	config := Config{MaxConnectionsPerClient: 2, ProxyProtocol: loopback, Recorder: counts}
	url := "http://" + startProxyAt(t, config, "127.0.0.1:0", startServer(t, "b", nil).backend())
	served := func(client string) bool {
		conn := dial(t, url)
		fmt.Fprintf(conn, "PROXY %s %s 1 2\r\n", map[bool]string{true: "TCP6", false: "TCP4"}[strings.Contains(client, ":")], client)
		return holds(t, conn)
	}
	for _, test := range []struct {
		client string
		want   bool
	}{
		{"192.0.2.1 10.0.0.1", true}, {"192.0.2.1 10.0.0.1", true}, {"192.0.2.1 10.0.0.1", false}, {"192.0.2.2 10.0.0.1", true},
		{"2001:db8::1 ::1", true}, {"2001:db8::2 ::1", true}, {"2001:db8::3 ::1", false}, {"2001:db8:0:1::1 ::1", true},
	} {
		if got := served(test.client); got != test.want {
			t.Errorf("%s: got %t, want %t", test.client, got, test.want)
		}
	}
	if got := counts.get("reject client_connections"); got != 2 {
		t.Errorf("got %d counted, want 2", got)
	}
}

// A connection that is one too many costs nothing that stays.
func TestRejectedConnectionsLeaveNothing(t *testing.T) {
	p, url := startProxy(t, Config{MaxConnections: 1}, startServer(t, "b", nil).backend())
	first := dial(t, url)
	if !holds(t, first) {
		t.Fatal("the first connection is not served")
	}
	for range 200 {
		conn := dial(t, url)
		conn.SetReadDeadline(time.Now().Add(patience))
		if n, err := conn.Read(make([]byte, 1)); n != 0 || err == nil {
			t.Fatal("one connection too many got an answer")
		}
		conn.Close()
	}
	if !holds(t, first) {
		t.Error("the first connection is served no more")
	}
	eventually(t, "nothing is under way", func() bool { return p.server.Active() == 0 })
}
