package proxy

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"

	"lbnode/state"
)

// ring starts proxies of these clusters, each of which has the next one for its backend, and
// the first one the last. It gives the address of the first.
func ring(t *testing.T, counts *tally, clusters ...string) string {
	t.Helper()
	var proxies []*Proxy
	var addrs []net.Addr
	for range clusters {
		p := New(Config{Recorder: counts, MaxConnections: 50})
		t.Cleanup(func() { shutdownNow(p) })
		addr, err := p.Listen("127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		proxies, addrs = append(proxies, p), append(addrs, addr)
	}
	for i, p := range proxies {
		v := viewOf(nil, poolOf(state.DefaultPool, backendAt("next", addrs[(i+1)%len(addrs)])))
		v.ClusterID = clusters[i]
		p.SetView(v)
	}
	return "http://" + addrs[0].String()
}

// A request that comes back to its pool is refused there, whichever way it took, and has
// cost a connection for each step.
func TestLoops(t *testing.T) {
	for name, test := range map[string]struct {
		clusters []string
		requests int // one that a client sent, and those that proxies did
	}{
		"itself":            {[]string{"a"}, 2},
		"no cluster":        {[]string{""}, 2},
		"another node":      {[]string{"a", "a"}, 2},
		"another cluster":   {[]string{"a", "b"}, 3},
		"of three clusters": {[]string{"a", "b", "c"}, 4},
		"nodes of two":      {[]string{"a", "b", "b", "a"}, 3},
	} {
		for _, method := range []string{"GET", "POST", "BREW"} {
			t.Run(name+" "+method, func(t *testing.T) {
				counts := newTally()
				url := ring(t, counts, test.clusters...)
				send := method + " / HTTP/1.1\r\nHost: a\r\nConnection: close, Via\r\nVia: 1.1 other, 1.0 lbnode (1.1 x)\r\n\r\n"
				if got := talk(t, url, send); !strings.HasPrefix(got, "HTTP/1.1 508 Loop Detected\r\n") || !strings.Contains(got, "sent it back") {
					t.Errorf("got %q, want 508 and why", got)
				}
				label := methodLabel([]byte(method))
				count := func() int { return counts.get("request default " + label + " HTTP/1.1 508") }
				eventually(t, "all are counted", func() bool { return count() >= test.requests })
				if got := count(); got != test.requests {
					t.Errorf("got %d requests, want %d", got, test.requests)
				}
				if got := counts.get("reject loop"); got != 1 {
					t.Errorf("counted %d loops, want 1", got)
				}
			})
		}
	}
}

// Clusters may stand behind one another, and a cluster behind itself with another pool.
func TestChainsAreNoLoops(t *testing.T) {
	heads, app := keepHeads(t)
	inner := New(Config{})
	t.Cleanup(func() { shutdownNow(inner) })
	at, err := inner.Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	cache, _ := startRaw(t, "cache", func(conn net.Conn, head string) { // asks the same cluster for another host
		up, err := net.Dial("tcp", at.String())
		if err != nil {
			return
		}
		defer up.Close()
		io.WriteString(up, strings.Replace(head, "Host: shop", "Host: origin", 1))
		res, err := http.ReadResponse(bufio.NewReader(up), nil)
		if err == nil {
			fmt.Fprintf(conn, "HTTP/1.1 %d x\r\nContent-Length: 0\r\n\r\n", res.StatusCode)
		}
	})
	routes := []state.Route{{Host: "shop", Path: "/", Pool: "shop"}, {Host: "origin", Path: "/", Pool: "origin"}}
	v := viewOf(routes, poolOf("shop", cache), poolOf("origin", app))
	v.ClusterID = "inner"
	inner.SetView(v)
	outer := viewOf(routes[:1], poolOf("shop", backendAt("inner", at)))
	outer.ClusterID = "outer"
	p, url := startProxyWith(t, Config{}, outer)
	if got := p.Via("shop"); got != viaOf("outer", "shop") || p.Via("none") != "" {
		t.Errorf("got the name %q for the pool", got)
	}
	if got := talk(t, url, "GET / HTTP/1.0\r\nHost: shop\r\nVia: 1.1 cdn\r\n\r\n"); !strings.HasPrefix(got, "HTTP/1.1 204") {
		t.Fatalf("got %q, want 204", got)
	}
	want := []string{"1.1 cdn", "1.0 " + viaOf("outer", "shop"), "1.1 " + viaOf("inner", "shop"), "1.1 " + viaOf("inner", "origin")}
	if got := values(<-heads, "Via"); !slices.Equal(got, want) {
		t.Errorf("got Via %q, want %q", got, want)
	}
}

// The last server that a TRACE comes to says what it got, but for what is secret.
func TestTraceThatGoesNoFurther(t *testing.T) {
	b := startServer(t, "b", nil)
	_, url := startProxy(t, Config{}, b.backend())
	const head = "TRACE /a?b HTTP/1.1\r\nHost: a\r\nConnection: close\r\nmax-forwards: 0\r\n"
	got := talk(t, url, head+"Cookie: secret\r\nAuthorization: secret\r\nProxy-Authorization: secret\r\nX: y\r\n\r\n")
	header, body, _ := strings.Cut(got, "\r\n\r\n")
	if want := head + "X: y\r\n\r\n"; body != want || !strings.HasPrefix(header, "HTTP/1.1 200 OK\r\nContent-Type: message/http\r\n") {
		t.Errorf("got %q, want %q", got, want)
	}
	got = talk(t, url, "OPTIONS /a HTTP/1.1\r\nHost: a\r\nConnection: close\r\nMax-Forwards: 0\r\n\r\n")
	if !strings.HasPrefix(got, "HTTP/1.1 200 OK\r\n") || !strings.Contains(got, "\r\nAllow: GET, ") || b.hits.Load() > 0 {
		t.Errorf("got %q, %d requests at the backend; want what may be asked, and none", got, b.hits.Load())
	}
}
