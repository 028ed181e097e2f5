package proxy

import (
	"bufio"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pires/go-proxyproto"

	"lbnode/state"
)

const (
	// sigV2 begins a PROXY header of version 2.
	sigV2 = "\r\n\r\n\x00\r\nQUIT\n"
	asked = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nX-Forwarded-For: 6.6.6.6\r\n\r\n"
)

var loopback = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}

func TestProxyProtocol(t *testing.T) {
	heads, backend := keepHeads(t)
	addr := startProxyAt(t, Config{ProxyProtocol: loopback}, "127.0.0.1:0", backend)
	tests := map[string]struct{ header, want string }{
		"1, IPv4":             {"PROXY TCP4 192.0.2.1 10.0.0.1 56324 80\r\n", "192.0.2.1"},
		"1, IPv6":             {"PROXY TCP6 2001:db8::1 ::1 56324 80\r\n", "2001:db8::1"},
		"1, IPv4 within IPv6": {"PROXY TCP6 ::ffff:192.0.2.1 ::1 56324 80\r\n", "192.0.2.1"},
		"1, unknown":          {"PROXY UNKNOWN\r\n", "127.0.0.1"},
		"1, unknown, at length": {
			"PROXY UNKNOWN ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n", "127.0.0.1",
		},
		"2, IPv4":         {sigV2 + "\x21\x11\x00\x0c\xc0\x00\x02\x01\x0a\x00\x00\x01\xdc\x04\x00\x50", "192.0.2.1"},
		"2, with more":    {sigV2 + "\x21\x11\x00\x12\xc0\x00\x02\x01\x0a\x00\x00\x01\xdc\x04\x00\x50\x04\x00\x03abc", "192.0.2.1"},
		"2, IPv6":         {sigV2 + "\x21\x21\x00\x24\x20\x01\x0d\xb8" + strings.Repeat("\x00", 11) + "\x01" + strings.Repeat("\x00", 15) + "\x01\xdc\x04\x00\x50", "2001:db8::1"},
		"2, local":        {sigV2 + "\x20\x00\x00\x00", "127.0.0.1"},
		"2, local, named": {sigV2 + "\x20\x11\x00\x0c\xc0\x00\x02\x01\x0a\x00\x00\x01\xdc\x04\x00\x50", "127.0.0.1"},
		"2, datagrams":    {sigV2 + "\x21\x12\x00\x0c\xc0\x00\x02\x01\x0a\x00\x00\x01\xdc\x04\x00\x50", "127.0.0.1"},
	}
	for name, test := range tests {
		for _, pieces := range []int{1, 5} {
			t.Run(name, func(t *testing.T) {
				conn := dial(t, "http://"+addr)
				for piece := range slices.Chunk([]byte(test.header+asked), (len(test.header+asked)+pieces-1)/pieces) {
					conn.Write(piece)
				}
				if answer, err := io.ReadAll(conn); !strings.HasPrefix(string(answer), "HTTP/1.1 204") {
					t.Fatalf("got %q, %v; want 204", answer, err)
				}
				if got := values(<-heads, "X-Forwarded-For"); !slices.Equal(got, []string{test.want}) {
					t.Errorf("got %q, want %q", got, test.want)
				}
			})
		}
	}
}

func TestMalformedProxyHeadersReachNoBackend(t *testing.T) {
	b := startServer(t, "b", nil)
	counts := newTally()
	addr := startProxyAt(t, Config{ProxyProtocol: loopback, Recorder: counts}, "127.0.0.1:0", b.backend())
	tests := map[string]string{
		"no header":            "",
		"1, no address":        "PROXY TCP4\r\n",
		"1, mixed":             "PROXY TCP4 2001:db8::1 ::1 1 2\r\n",
		"1, no port":           "PROXY TCP4 192.0.2.1 10.0.0.1 1\r\n",
		"1, large port":        "PROXY TCP4 192.0.2.1 10.0.0.1 1 65536\r\n",
		"1, no number":         "PROXY TCP4 192.0.2.256 10.0.0.1 1 2\r\n",
		"1, two spaces":        "PROXY  TCP4 192.0.2.1 10.0.0.1 1 2\r\n",
		"1, bare LF":           "PROXY TCP4 192.0.2.1 10.0.0.1 1 2\n",
		"1, too long":          "PROXY UNKNOWN " + strings.Repeat("x", 107) + "\r\n",
		"1, in small letters":  "proxy TCP4 192.0.2.1 10.0.0.1 1 2\r\n",
		"2, version 1":         sigV2 + "\x11\x11\x00\x0c\xc0\x00\x02\x01\x0a\x00\x00\x01\xdc\x04\x00\x50",
		"2, command":           sigV2 + "\x22\x11\x00\x0c\xc0\x00\x02\x01\x0a\x00\x00\x01\xdc\x04\x00\x50",
		"2, short for IPv4":    sigV2 + "\x21\x11\x00\x0b\xc0\x00\x02\x01\x0a\x00\x00\x01\xdc\x04\x00",
		"2, unknown family":    sigV2 + "\x21\x41\x00\x0c\xc0\x00\x02\x01\x0a\x00\x00\x01\xdc\x04\x00\x50",
		"2, for nobody":        sigV2 + "\x21\x00\x00\x00",
		"2, longer than bound": sigV2 + "\x21\x11\xff\xff\xc0\x00\x02\x01\x0a\x00\x00\x01\xdc\x04\x00\x50",
		"2, other signature":   "\r\n\r\n\x00\r\nQUIT\r",
	}
	for name, header := range tests {
		before := counts.get("reject proxy_protocol")
		if got := talk(t, "http://"+addr, header+asked); got != "" {
			t.Errorf("%s: got %q, want the connection closed", name, got)
		}
		if got := counts.get("reject proxy_protocol") - before; got != 1 {
			t.Errorf("%s: counted %d times, want once", name, got)
		}
	}
	dial(t, "http://"+addr).Close()
	eventually(t, "all are closed", func() bool { return counts.get("connections http") == 0 })
	if got := counts.get("reject proxy_protocol"); got != len(tests) || b.hits.Load() != 0 {
		t.Errorf("got %d counted and %d requests at the backend; want %d, a look that sent nothing aside, and none", got, b.hits.Load(), len(tests))
	}
}

// A header that nobody is to send is a bad request.
func TestProxyHeaderFromElsewhere(t *testing.T) {
	b := startServer(t, "b", nil)
	networks := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
	addr := startProxyAt(t, Config{ProxyProtocol: networks}, "127.0.0.1:0", b.backend())
	for _, header := range []string{"PROXY TCP4 192.0.2.1 10.0.0.1 1 2\r\n", sigV2 + "\x20\x00\x00\x00"} {
		if got := talk(t, "http://"+addr, header+asked); !strings.HasPrefix(got, "HTTP/1.1 400") {
			t.Errorf("%q: got %q, want 400", header, got)
		}
	}
	if b.hits.Load() != 0 {
		t.Errorf("got %d requests at the backend, want 0", b.hits.Load())
	}
}

// The header must come within the time for a request's head, and who trickles it in
// delays nobody else.
func TestProxyHeaderInTime(t *testing.T) {
	heads, backend := keepHeads(t)
	counts := newTally()
	addr := startProxyAt(t, Config{ProxyProtocol: loopback, Recorder: counts, HeaderTimeout: 300 * time.Millisecond}, "127.0.0.1:0", backend)
	silent, slow := dial(t, "http://"+addr), dial(t, "http://"+addr)
	io.WriteString(slow, "PROXY TCP4 192.0.2.1 ")
	began := time.Now()
	if got := talk(t, "http://"+addr, "PROXY TCP4 192.0.2.9 10.0.0.1 1 2\r\n"+asked); !strings.HasPrefix(got, "HTTP/1.1 204") {
		t.Errorf("got %q beside a slow one, want 204", got)
	}
	if got := values(<-heads, "X-Forwarded-For"); !slices.Equal(got, []string{"192.0.2.9"}) {
		t.Errorf("got %q, want the client's own address", got)
	}
	io.ReadAll(silent)
	io.ReadAll(slow)
	if took := time.Since(began); took < 200*time.Millisecond || took > 1300*time.Millisecond {
		t.Errorf("closed after %s, want 300 ms", took)
	}
	eventually(t, "both are counted", func() bool { return counts.get("reject proxy_protocol") == 2 })
}

// told is a backend that demands a PROXY header, and answers with the client's address
// in it.
type told struct {
	*httptest.Server
	open, opened atomic.Int64
}

func startTold(t *testing.T, secure bool) (*told, state.Backend) {
	t.Helper()
	b := &told{Server: httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, r.RemoteAddr)
	}))}
	b.Config.ConnState = func(_ net.Conn, now http.ConnState) {
		switch now {
		case http.StateNew:
			b.open.Add(1)
			b.opened.Add(1)
		case http.StateClosed:
			b.open.Add(-1)
		}
	}
	b.Listener = &proxyproto.Listener{
		Listener:   b.Listener,
		ConnPolicy: func(proxyproto.ConnPolicyOptions) (proxyproto.Policy, error) { return proxyproto.REQUIRE, nil },
	}
	t.Cleanup(b.Close)
	backend := backendAt("told", b.Listener.Addr())
	if secure {
		b.StartTLS()
		backend.Protocol = "https"
	} else {
		b.Start()
	}
	return b, backend
}

// tellingPool is a pool of a backend that is told of clients.
func tellingPool(protocol string, backend state.Backend) *state.Pool {
	pool := poolOf(state.DefaultPool, backend)
	pool.ProxyProtocol = protocol
	return pool
}

// ask sends a request over an open connection and returns the answer's body.
func ask(t *testing.T, conn net.Conn) string {
	t.Helper()
	io.WriteString(conn, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK {
		t.Fatalf("got %d, %q, %v; want 200", res.StatusCode, body, err)
	}
	return string(body)
}

// A connection to the backend is its client's alone, for all its requests, and ends with
// the client's.
func TestBackendIsToldOfTheClient(t *testing.T) {
	for _, protocol := range []string{state.ProxyV1, state.ProxyV2} {
		for _, secure := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, TLS %t", protocol, secure), func(t *testing.T) {
				b, backend := startTold(t, secure)
				p, url := startProxyWith(t, Config{}, nil)
				if secure {
					p.tls.RootCAs = x509.NewCertPool()
					p.tls.RootCAs.AddCert(b.Certificate())
				}
				p.SetView(viewOf(nil, tellingPool(protocol, backend)))
				clients := []net.Conn{dial(t, url), dial(t, url)}
				for range 3 {
					for _, c := range clients {
						if got := ask(t, c); got != c.LocalAddr().String() {
							t.Errorf("got client %s, want %s", got, c.LocalAddr())
						}
					}
				}
				if got := b.opened.Load(); got != 2 {
					t.Errorf("got %d connections, want one for each client", got)
				}
				clients[0].Close()
				eventually(t, "the backend's connection ends with its client's", func() bool { return b.open.Load() == 1 })
			})
		}
	}
}

func TestBackendIsToldWhatAHeaderTold(t *testing.T) {
	_, backend := startTold(t, false)
	_, url := startProxyWith(t, Config{ProxyProtocol: loopback}, viewOf(nil, tellingPool(state.ProxyV2, backend)))
	conn := dial(t, url)
	io.WriteString(conn, "PROXY TCP4 192.0.2.1 10.0.0.1 56324 80\r\n")
	if got := ask(t, conn); got != "192.0.2.1:56324" {
		t.Errorf("got client %s, want the one of the header", got)
	}
}

// Where connections are bounded, an idle client keeps none from the others.
func TestIdleClientKeepsNoBoundedConnection(t *testing.T) {
	b, backend := startTold(t, false)
	pool := tellingPool(state.ProxyV1, backend)
	pool.Limits = state.Limits{Connections: 1, Pending: 1}
	_, url := startProxyWith(t, Config{}, viewOf(nil, pool))
	for range 3 {
		ask(t, dial(t, url))
	}
	if got := b.opened.Load(); got != 3 {
		t.Errorf("got %d connections, want 3", got)
	}
}

// A change of the pool, and a backend that has closed an idle connection, make a new one.
func TestToldBackendIsReachedAnew(t *testing.T) {
	b, backend := startTold(t, false)
	p, url := startProxyWith(t, Config{}, viewOf(nil, tellingPool(state.ProxyV1, backend)))
	conn := dial(t, url)
	ask(t, conn)
	b.CloseClientConnections()
	ask(t, conn)
	p.SetView(viewOf(nil, tellingPool(state.ProxyV2, backend)))
	ask(t, conn)
	if got := b.opened.Load(); got != 3 {
		t.Errorf("got %d connections, want 3", got)
	}
	eventually(t, "those that are not used any more are closed", func() bool { return b.open.Load() == 1 })
}
