package proxy

import (
	"bufio"
	"io"
	"log/slog"
	"net"
	"strings"
	"testing"
)

func TestHosts(t *testing.T) {
	tests := []struct {
		host string
		want bool
	}{
		{"a", true}, {"A.Example", true}, {"a.example.", true}, {"a_b-c~d.1", true}, {"xn--bcher-kva.example", true},
		{"a:80", true}, {"a:65535", true}, {"a:", true}, {"192.0.2.1:8080", true},
		{"[::1]", true}, {"[::1]:80", true}, {"[2001:db8::1]:", true}, {"[::ffff:192.0.2.1]", true},
		{"", false}, {":80", false}, {".", false}, {"..", false}, {".a", false}, {"a..b", false}, {"a..", false},
		{"a:b", false}, {"a:-1", false}, {"a:+1", false}, {"a:65536", false}, {"a:080080", false}, {"a:80:80", false}, {"a: 80", false},
		{"a,b", false}, {"a;b", false}, {"a@b", false}, {"a/b", false}, {"a b", false}, {"a%00b", false}, {"a\\b", false}, {"*", false}, {"caf\xe9", false},
		{"[", false}, {"[::1", false}, {"::1", false}, {"[::1]x", false}, {"[::1]80", false}, {"[fe80::1%25eth0]", false}, {"[192.0.2.1]", false}, {"[a]", false}, {"[]", false},
		{strings.Repeat("a", 255), true}, {strings.Repeat("a", 256), false},
	}
	for _, test := range tests {
		if got := validHost(test.host); got != test.want {
			t.Errorf("%q: got %t, want %t", test.host, got, test.want)
		}
	}
}

func TestAmbiguousRequestsReachNoBackend(t *testing.T) {
	b := startServer(t, "b", nil)
	_, url := startProxy(t, Config{}, b.backend())
	tests := map[string]struct{ head, want string }{
		"host that is two":       {"GET / HTTP/1.1\r\nHost: a,b\r\n", "HTTP/1.1 400"},
		"host with a zone":       {"GET / HTTP/1.1\r\nHost: [fe80::1%25eth0]\r\n", "HTTP/1.1 400"},
		"port that is none":      {"GET / HTTP/1.1\r\nHost: a:b\r\n", "HTTP/1.1 400"},
		"target with a bad host": {"GET http://a,b/ HTTP/1.1\r\nHost: a\r\n", "HTTP/1.1 400"},
		"target with a user":     {"GET http://u:p@a/ HTTP/1.1\r\nHost: a\r\n", "HTTP/1.1 400"},
		"target with two users":  {"GET http://a@b@c/ HTTP/1.1\r\nHost: a\r\n", "HTTP/1.1 400"},
		"target without a host":  {"GET http:///x HTTP/1.1\r\nHost: a\r\n", "HTTP/1.1 400"},
		"too many fields":        {"GET / HTTP/1.1\r\nHost: a\r\n" + strings.Repeat("X: a\r\n", maxFields+1), "HTTP/1.1 431"},
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

// An HTTP/1.0 client that sends both a length and a transfer coding is heard by
// its length; one in front of it may go by the coding.
func TestOldRequestWithABodyIsTheLastOnItsConnection(t *testing.T) {
	b := startServer(t, "b", nil)
	_, url := startProxy(t, Config{}, b.backend())
	got := talk(t, url, "POST / HTTP/1.0\r\nConnection: keep-alive\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n")
	if strings.Count(got, "HTTP/1.") != 1 || b.hits.Load() != 1 {
		t.Errorf("got %q and %d requests at the backend, want one answer to one", got, b.hits.Load())
	}
}

// The values of trailers are not passed on, so that they must not be announced.
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
		"status 0":           "HTTP/1.1 000 OK\r\nContent-Length: 0\r\n\r\n",
		"status 99":          "HTTP/1.1 099 OK\r\nContent-Length: 0\r\n\r\n",
		"status with a sign": "HTTP/1.1 +20 OK\r\nContent-Length: 0\r\n\r\n",
		"space after a name": "HTTP/1.1 200 OK\r\nContent-Length : 5\r\n\r\nhello",
		"space in a name":    "HTTP/1.1 200 OK\r\nX Y: 5\r\nContent-Length: 0\r\n\r\n",
		"too many fields":    "HTTP/1.1 200 OK\r\n" + strings.Repeat("X: a\r\n", maxFields+1) + "Content-Length: 0\r\n\r\n",
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
	if count := strings.Count(got, "HTTP/1.1 103"); count != maxInterim || !strings.HasSuffix(got, "ok") {
		t.Errorf("got %d interim answers and the end %q; want %d and the answer", count, got[max(0, len(got)-20):], maxInterim)
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
