package proxy

import (
	"bufio"
	"io"
	"log/slog"
	"net"
	"strings"
	"testing"

	"lbnode/state"
)

func TestAmbiguousRequestsReachNoBackend(t *testing.T) {
	b := startServer(t, "b", nil)
	_, url := startProxy(t, Config{}, b.backend())
	tests := map[string]struct{ head, want string }{
		"host that is two":        {"GET / HTTP/1.1\r\nHost: a b\r\n", "HTTP/1.1 400"},
		"host with a zone":        {"GET / HTTP/1.1\r\nHost: [fe80::1%25eth0]\r\n", "HTTP/1.1 400"},
		"port that is none":       {"GET / HTTP/1.1\r\nHost: a:b\r\n", "HTTP/1.1 400"},
		"target with a bad host":  {"GET http://a%zz/ HTTP/1.1\r\nHost: a\r\n", "HTTP/1.1 400"},
		"target with a user":      {"GET http://u:p@a/ HTTP/1.1\r\nHost: a\r\n", "HTTP/1.1 400"},
		"target with two users":   {"GET http://a@b@c/ HTTP/1.1\r\nHost: a\r\n", "HTTP/1.1 400"},
		"target without a host":   {"GET http:///x HTTP/1.1\r\nHost: a\r\n", "HTTP/1.1 400"},
		"length and coding":       {"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n", "HTTP/1.1 400"},
		"both in the old version": {"POST / HTTP/1.0\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n", "HTTP/1.1 400"},
		"too many fields":         {"GET / HTTP/1.1\r\nHost: a\r\n" + strings.Repeat("X: a\r\n", 1000+1), "HTTP/1.1 431"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if got := talk(t, url, test.head+"\r\n"); !strings.HasPrefix(got, test.want) {
				t.Errorf("got %.60q, want %s", got, test.want)
			}
		})
	}
	if got := b.hits.Load(); got != 0 {
		t.Errorf("got %d requests at the backend, want 0", got)
	}
}

// Which trailers are passed on is not known before they are there.
func TestRequestTrailersAreNotAnnounced(t *testing.T) {
	heads := make(chan string, 1)
	b, _ := startRaw(t, "b", func(conn net.Conn, head string) {
		heads <- head
		io.WriteString(conn, "HTTP/1.1 204 No Content\r\n\r\n")
	})
	_, url := startProxy(t, Config{}, b)
	conn := dial(t, url)
	io.WriteString(conn, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer: X-Forwarded-For\r\n\r\n0\r\nX-Forwarded-For: 6.6.6.6\r\n\r\n")
	if head := <-heads; strings.Contains(head, "Trailer") || strings.Contains(head, "6.6.6.6") {
		t.Errorf("got %q, want no trailer", head)
	}
}

func TestUnusableAnswers(t *testing.T) {
	tests := map[string]string{
		"no HTTP":            "what?\r\n\r\n",
		"status 0":           "HTTP/1.1 000 OK\r\nContent-Length: 0\r\n\r\n",
		"status 99":          "HTTP/1.1 099 OK\r\nContent-Length: 0\r\n\r\n",
		"status with a sign": "HTTP/1.1 +20 OK\r\nContent-Length: 0\r\n\r\n",
		"space after a name": "HTTP/1.1 200 OK\r\nContent-Length : 5\r\n\r\nhello",
		"space in a name":    "HTTP/1.1 200 OK\r\nX Y: 5\r\nContent-Length: 0\r\n\r\n",
		"too many fields":    "HTTP/1.1 200 OK\r\n" + strings.Repeat("X: a\r\n", 1000+1) + "Content-Length: 0\r\n\r\n",
	}
	for name, answer := range tests {
		t.Run(name, func(t *testing.T) {
			var log strings.Builder
			b, hits := startRaw(t, "b", func(conn net.Conn, _ string) { io.WriteString(conn, answer) })
			other := startServer(t, "other", nil)
			p, url := startProxy(t, Config{Log: slog.New(slog.NewTextHandler(&log, nil))}, b, other.backend())
			got := talk(t, url, "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
			shutdownNow(p)
			if !strings.HasPrefix(got, "HTTP/1.1 502") || hits.Load() != 1 || other.hits.Load() != 0 || strings.Contains(log.String(), "panic") {
				t.Errorf("got %.60q, sent %d and %d times, logged %q; want 502 after one attempt, no panic", got, hits.Load(), other.hits.Load(), log.String())
			}
		})
	}
}

func TestInterimAnswersAreCapped(t *testing.T) {
	b, _ := startRaw(t, "b", func(conn net.Conn, _ string) {
		io.WriteString(conn, strings.Repeat("HTTP/1.1 103 Early Hints\r\n\r\n", 200)+"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
	})
	_, url := startProxy(t, Config{}, b)
	got := talk(t, url, "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
	if count := strings.Count(got, "HTTP/1.1 103"); count != 10 || !strings.HasSuffix(got, "ok") {
		t.Errorf("got %d interim answers and the end %q; want %d and the answer", count, got[max(0, len(got)-20):], 10)
	}
}

func TestTrailersThatBelongInTheHeaderAreDropped(t *testing.T) {
	b, _ := startRaw(t, "b", func(conn net.Conn, _ string) {
		io.WriteString(conn, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n"+
			"Content-Length: 99\r\nTransfer-Encoding: x\r\nContent-Encoding: gzip\r\nConnection: x\r\nSet-Cookie: a\r\nX-Sum: 9\r\n\r\n")
	})
	_, url := startProxy(t, Config{}, b)
	got := talk(t, url, "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
	if want := "2\r\nok\r\n0\r\nX-Sum: 9\r\n\r\n"; !strings.HasSuffix(got, want) {
		t.Errorf("got %q, want the end %q", got, want)
	}
}

// What a client sends behind its request to upgrade, without waiting for the
// answer, must not get lost.
func TestUpgradeKeepsEarlyBytes(t *testing.T) {
	b, _ := startRaw(t, "b", func(conn net.Conn, _ string) {
		io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
		io.Copy(conn, conn)
	})
	_, url := startProxy(t, Config{}, b)
	conn := dial(t, url)
	io.WriteString(conn, "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nearly")
	r := bufio.NewReader(conn)
	readHead(r)
	io.WriteString(conn, " and late")
	conn.(*net.TCPConn).CloseWrite()
	if got, err := io.ReadAll(r); string(got) != "early and late" || err != nil {
		t.Errorf("got %q, %v; want all bytes in order and a clean end", got, err)
	}
}

// The body of a request that no backend is asked about must not be taken for the
// next request.
func TestBodyOfARefusedRequestIsNoRequest(t *testing.T) {
	const smuggled = "GET /known HTTP/1.1\r\nHost: a\r\n\r\n"
	tests := map[string]string{
		"length":         "POST /unknown HTTP/1.1\r\nHost: a\r\nContent-Length: 32\r\n\r\n" + smuggled,
		"chunks":         "POST /unknown HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n20\r\n" + smuggled + "\r\n0\r\n\r\n",
		"for the server": "OPTIONS * HTTP/1.1\r\nHost: a\r\nContent-Length: 32\r\n\r\n" + smuggled,
	}
	for name, send := range tests {
		t.Run(name, func(t *testing.T) {
			b := startServer(t, "b", nil)
			routes := []state.Route{{Path: "/known", Pool: state.DefaultPool}}
			_, url := startProxyWith(t, Config{}, viewOf(routes, poolOf(state.DefaultPool, b.backend())))
			got := talk(t, url, send)
			if strings.Count(got, "HTTP/1.1 ") != 1 || b.hits.Load() != 0 {
				t.Errorf("got %q and %d requests at the backend, want one answer and 0", got, b.hits.Load())
			}
		})
	}
}
