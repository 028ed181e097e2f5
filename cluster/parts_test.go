package cluster

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestParseJoin(t *testing.T) {
	for _, test := range []struct{ entry, want string }{
		{"lb1", "lb1:7946"},
		{"lb1:9000", "lb1:9000"},
		{"10.0.0.1", "10.0.0.1:7946"},
		{"10.0.0.1:9000", "10.0.0.1:9000"},
		{"::1", "[::1]:7946"},
		{"[::1]:9000", "[::1]:9000"},
		{"srv:_lbnode._tcp.example.com", "srv:_lbnode._tcp.example.com"},
	} {
		targets, err := ParseJoin([]string{test.entry}, 7946)
		if err != nil || targets[0].String() != test.want {
			t.Errorf("%q: got %v, %v, want %s", test.entry, targets, err, test.want)
		}
	}
	for _, entry := range []string{"", ":7946", "lb1:", "lb1:0", "lb1:65536", "lb1:http", "a b", "lb1/x", "http://lb1:7946", "srv:", "[::1", "1:2:x", "10.0.0.300", "10.0.0.3.4:7946"} {
		if _, err := ParseJoin([]string{"lb1", entry}, 7946); err == nil || !strings.Contains(err.Error(), `"`+entry+`"`) {
			t.Errorf("%q: got %v, want an error that names it", entry, err)
		}
	}
}

func TestIsOwn(t *testing.T) {
	advertised := netip.MustParseAddrPort("192.0.2.7:7946")
	for _, test := range []struct {
		addr, bindHost string
		want           bool
	}{
		{"192.0.2.7:7946", "", true},
		{"192.0.2.7:7947", "", false},
		{"192.0.2.8:7946", "", false},
		{"127.0.1.1:7946", "", true}, // what Debian makes of a machine's own name
		{"127.0.1.1:7946", "192.0.2.7", false},
		{"127.0.0.1:7946", "127.0.0.1", true},
		{"127.0.0.2:7946", "127.0.0.1", false},
	} {
		if got := isOwn(netip.MustParseAddrPort(test.addr), advertised, test.bindHost); got != test.want {
			t.Errorf("%s bound to %q: got %v, want %v", test.addr, test.bindHost, got, test.want)
		}
	}
}

func TestReasonIsShort(t *testing.T) {
	_, refused := net.Dial("tcp", "127.0.0.1:1")
	for want, err := range map[string]error{
		"refused":          refused,
		"does not resolve": &net.DNSError{Err: "no such host", Name: "lb9"},
		"no answer":        os.ErrDeadlineExceeded,
		"hung up: does it have the same -secret?": io.EOF,
	} {
		if got := reason(err); got != want {
			t.Errorf("%v: got %q, want %q", err, got, want)
		}
	}
}

func TestConfigIsChecked(t *testing.T) {
	good := Config{Name: "lb1", DataDir: "d", Bind: "127.0.0.1:0", Raft: "127.0.0.1:0", RaftMultiplier: 1}
	if err := good.Validate(); err != nil {
		t.Fatalf("got %v, want a good configuration accepted", err)
	}
	for word, spoil := range map[string]func(*Config){
		"-node":           func(c *Config) { c.Name = "" },
		"-data-dir":       func(c *Config) { c.DataDir = "" },
		"-bind":           func(c *Config) { c.Bind = "nowhere" },
		"-raft":           func(c *Config) { c.Raft = "127.0.0.1:x" },
		"-secret":         func(c *Config) { c.Raft = ":7947" },
		"-advertise":      func(c *Config) { c.Advertise = "0.0.0.0" },
		"raft multiplier": func(c *Config) { c.RaftMultiplier = 11 },
		"-join":           func(c *Config) { c.Join = []string{"a b"} },
	} {
		bad := good
		spoil(&bad)
		if err := bad.Validate(); err == nil || !strings.Contains(err.Error(), word) {
			t.Errorf("got %v, want an error that says %s", err, word)
		}
	}
	open := good
	open.Bind, open.Insecure = ":7946", true
	if err := open.Validate(); err != nil {
		t.Errorf("got %v, want -insecure to allow it", err)
	}
}

func TestIdentityLasts(t *testing.T) {
	dir := t.TempDir()
	first, err := openIdentity(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := first.set("x", true); err != nil {
		t.Fatal(err)
	}
	if got := first.clusterID(); got != "" {
		t.Errorf("got cluster %q while it is being founded, want none", got)
	}
	again, err := openIdentity(dir)
	if err != nil || again.nodeID() != first.nodeID() || again.founding() != "x" {
		t.Errorf("got %+v, %v, want the same node with an unfinished founding", again, err)
	}
	if err := os.WriteFile(filepath.Join(dir, "node.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := openIdentity(dir); err == nil || !strings.Contains(err.Error(), "damaged") {
		t.Errorf("got %v, want a damaged identity refused", err)
	}
}

// A log beside an identity that knows no cluster was put together by hand: to
// start from it could make one node vote twice.
func TestLogWithoutIdentityIsRefused(t *testing.T) {
	t.Parallel()
	n := startCluster(t, 1, nil)[0]
	n.Stop()
	if err := os.Remove(filepath.Join(n.cfg.DataDir, "node.json")); err != nil {
		t.Fatal(err)
	}
	cfg := n.cfg
	if _, err := Open(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "node.json") {
		t.Errorf("got %v, want the directory refused", err)
	}
}

func TestDamagedViewIsNotWorthANode(t *testing.T) {
	t.Parallel()
	n := startCluster(t, 1, nil)[0]
	propose(t, n, addBackend("web-1", 3001))
	want := n.View().Digest()
	n.Stop()
	if err := os.WriteFile(filepath.Join(n.cfg.DataDir, "view.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	again := start(t, n.cfg)
	eventually(t, waitLong, "the log has it all", func() bool { return again.View().Digest() == want })
}

func TestWatermark(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWatermark()
		done := make(chan error)
		go func() { done <- w.wait(t.Context(), 5) }()
		w.reach(4)
		synctest.Wait()
		select {
		case <-done:
			t.Fatal("the wait for 5 ended at 4")
		default:
		}
		w.reach(7)
		w.reach(3)
		if err := <-done; err != nil {
			t.Errorf("got %v", err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := w.wait(ctx, 8); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v, want the deadline", err)
		}
	})
}

// Strangers on the port get nothing: other programs, other secrets, and Raft of
// other clusters.
func TestMuxRefusesStrangers(t *testing.T) {
	security, foreign := testKeys(t, "n1", 's'), testKeys(t, "n2", 'x')
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	m := newMux(listener, nil, slog.New(slog.DiscardHandler))
	m.keys = testKeys(t, "n0", 's')
	m.admit = func(clusterID string) error {
		if clusterID != strings.Repeat("a", 32) {
			return ErrForeign
		}
		return nil
	}
	m.start()
	defer m.close()
	addr := listener.Addr().String()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	for name, connect := range map[string]func() (net.Conn, error){
		"no TLS":         func() (net.Conn, error) { return (&dialer{}).dial(ctx, addr, []byte("CCCCCCCC")) },
		"another secret": func() (net.Conn, error) { return (&dialer{keys: foreign}).dial(ctx, addr, []byte("CCCCCCCC")) },
		"unknown kind":   func() (net.Conn, error) { return (&dialer{keys: security}).dial(ctx, addr, []byte{'G'}) },
		"another cluster": func() (net.Conn, error) {
			return (&dialer{keys: security}).dial(ctx, addr, []byte("R"+strings.Repeat("b", 32)))
		},
	} {
		conn, err := connect()
		if err != nil {
			continue // refused in the handshake
		}
		conn.SetDeadline(time.Now().Add(3 * time.Second))
		if n, err := conn.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s: got %d bytes, %v, want the connection closed", name, n, err)
		}
		conn.Close()
	}
	conn, err := (&dialer{keys: security}).dial(ctx, addr, []byte("R"+strings.Repeat("a", 32)))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	inside, err := m.raft.Accept()
	if err != nil {
		t.Fatal(err)
	}
	inside.Close()
}

func TestNodeThatLostItsLogIsRefused(t *testing.T) {
	t.Parallel()
	n := startCluster(t, 1, nil)[0]
	propose(t, n, addBackend("web-1", 3001))
	n.Stop()
	if err := os.Remove(filepath.Join(n.cfg.DataDir, "raft.db")); err != nil {
		t.Fatal(err)
	}
	if c, err := Open(t.Context(), n.cfg); err == nil || !strings.Contains(err.Error(), "raft.db") {
		t.Errorf("got %v, want the directory refused", err)
		if err == nil {
			c.Stop()
		}
	}
}

func TestViewOfAnotherClusterIsNotServed(t *testing.T) {
	t.Parallel()
	n := startCluster(t, 1, nil)[0]
	propose(t, n, addBackend("web-1", 3001))
	n.Stop()
	for _, name := range []string{"raft.db", "node.json"} { // a hasty reset
		if err := os.Remove(filepath.Join(n.cfg.DataDir, name)); err != nil {
			t.Fatal(err)
		}
	}
	again := start(t, n.cfg)
	eventually(t, waitLong, "the view of the new cluster is served", func() bool {
		return again.View().ClusterID != "" && again.View().ClusterID == again.id.clusterID()
	})
}

func TestDialGivesUp(t *testing.T) {
	t.Parallel()
	security := testKeys(t, "n1", 's')
	silent, done := listenSilently(t), make(chan error, 1)
	go func() {
		_, err := (&dialer{keys: security}).dial(context.Background(), silent.String(), []byte{callConn})
		done <- err
	}()
	select {
	case err := <-done:
		if err == nil {
			t.Error("got a connection to a node that never answered")
		}
	case <-time.After(2 * callWithin):
		t.Error("a dial to a silent node goes on")
	}
}

// After all nodes were killed at once, what each has kept may be the same and lack
// what was acknowledged last.
func TestKeptViewsAgreeOnNothing(t *testing.T) {
	fresh, kept := ViewStatus{Index: 7, Digest: "d"}, ViewStatus{Index: 7, Digest: "d", Stale: true}
	other := ViewStatus{Index: 8, Digest: "e"}
	tests := []struct {
		name  string
		views []ViewStatus
		want  bool
	}{
		{"one view", []ViewStatus{fresh, fresh, fresh}, true},
		{"two views", []ViewStatus{fresh, fresh, other}, false},
		{"all kept", []ViewStatus{kept, kept, kept}, false},
		{"one kept", []ViewStatus{fresh, kept, fresh}, false},
	}
	for _, test := range tests {
		s := Status{Leader: "a", Quorum: 2}
		for _, view := range test.views {
			s.Nodes = append(s.Nodes, NodeStatus{State: Alive, Voter: true, Report: Report{View: view}})
		}
		s.conclude()
		if s.Agreement != test.want || s.Healthy != test.want {
			t.Errorf("%s: got agreement %v, healthy %v; want %v", test.name, s.Agreement, s.Healthy, test.want)
		}
	}
}
