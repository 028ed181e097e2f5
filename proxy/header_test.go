package proxy

import (
	"bufio"
	"io"
	"maps"
	"net"
	"net/textproto"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// seenBy sends a raw request head and returns the one that the backend got.
func seenBy(t *testing.T, head string) (requestLine string, header textproto.MIMEHeader) {
	t.Helper()
	got := make(chan string, 1)
	backend, _ := startRaw(t, "raw", func(conn net.Conn, head string) {
		got <- head
		io.WriteString(conn, "HTTP/1.1 204 No Content\r\n\r\n")
	})
	_, url := startProxy(t, Config{}, backend)
	answer := talk(t, url, head+"Connection: close\r\n\r\n")
	if !strings.HasPrefix(answer, "HTTP/1.1 204") {
		t.Fatalf("%q: got %q, want 204", head, answer)
	}
	line, rest, _ := strings.Cut(<-got, "\r\n")
	header, err := textproto.NewReader(bufio.NewReader(strings.NewReader(rest))).ReadMIMEHeader()
	if err != nil {
		t.Fatal(err)
	}
	return line, header
}

var ownVia = regexp.MustCompile(`^1\.1 lbnode-[0-9a-f]{16}$`)

func TestRequestHeader(t *testing.T) {
	const plain = "Host: a.example:99\r\nX-Request-Id: r1\r\n"
	ours := map[string]string{
		"Host": "a.example:99", "X-Forwarded-For": "127.0.0.1", "X-Forwarded-Proto": "http",
		"X-Forwarded-Host": "a.example:99", "X-Request-Id": "r1",
	}
	tests := map[string]struct {
		send string
		want map[string]string // beside ours
	}{
		"nothing is added":       {"", nil},
		"end to end":             {"User-Agent: me\r\nCookie: a=b\r\nAuthorization: x\r\nVia: 1.0 y\r\n", map[string]string{"User-Agent": "me", "Cookie": "a=b", "Authorization": "x", "Via": "1.0 y"}},
		"hop by hop":             {"Keep-Alive: 5\r\nProxy-Connection: x\r\nProxy-Authorization: y\r\nTrailer: z\r\n", nil},
		"TE":                     {"TE: trailers, deflate\r\n", map[string]string{"Te": "trailers", "Connection": "TE"}},
		"named by Connection":    {"Connection: X-Foo, keep-alive\r\nX-Foo: 1\r\nX-Bar: 2\r\n", map[string]string{"X-Bar": "2"}},
		"ours named":             {"Connection: X-Forwarded-For, X-Forwarded-Host, X-Forwarded-Proto, X-Request-Id, Host, Content-Length\r\n", nil},
		"forged":                 {"X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Host: evil\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Port: 1\r\nForwarded: for=6.6.6.6\r\nX-Real-IP: 6.6.6.6\r\n", nil},
		"forged by underscore":   {"X_Forwarded_For: 6.6.6.6\r\nx-forwarded_for: 6.6.6.6\r\nX_REAL_IP: 1\r\nContent_Length: 5\r\nTransfer_Encoding: chunked\r\nX_Request_Id: 2\r\n", nil},
		"underscore":             {"My_Own: 1\r\n", map[string]string{"My_own": "1"}},
		"httpoxy":                {"Proxy: http://evil\r\n", nil},
		"h2c":                    {"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n", nil},
		"h2c settings alone":     {"HTTP2-Settings: AAMAAABkAAQAAP__\r\n", nil},
		"upgrade not in Connect": {"Upgrade: websocket\r\n", nil},
		"upgrade to two":         {"Connection: Upgrade\r\nUpgrade: websocket, h2c\r\n", nil},
		"upgrade to odd bytes":   {"Connection: Upgrade\r\nUpgrade: w\xe9b\r\n", nil},
		"upgrade with a body":    {"Connection: Upgrade\r\nUpgrade: websocket\r\nTransfer-Encoding: chunked\r\n", map[string]string{"Transfer-Encoding": "chunked"}},
		"websocket":              {"Connection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\n", map[string]string{"Connection": "Upgrade", "Upgrade": "websocket"}},
		"idempotency key":        {"Idempotency-Key: k\r\n", map[string]string{"Idempotency-Key": "k"}},
		"high bytes":             {"X-Name: caf\xe9\r\n", map[string]string{"X-Name": "caf\xe9"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			_, got := seenBy(t, "GET / HTTP/1.1\r\n"+plain+test.send)
			if last := len(got["Via"]) - 1; last < 0 || !ownVia.MatchString(got["Via"][last]) {
				t.Errorf("got Via %q, want our own behind it", got["Via"])
			} else if got["Via"] = got["Via"][:last]; last == 0 {
				delete(got, "Via")
			}
			want := maps.Clone(ours)
			maps.Copy(want, test.want)
			for name, value := range want {
				if !slices.Equal(got[name], []string{value}) {
					t.Errorf("%s: got %q, want %q", name, got[name], value)
				}
				delete(got, name)
			}
			if len(got) > 0 {
				t.Errorf("got %v besides, want nothing", got)
			}
		})
	}
}

func TestRequestID(t *testing.T) {
	made := regexp.MustCompile(`^[0-9a-f]{32}$`)
	tests := []struct {
		send string
		keep string // empty: a new one is made
	}{
		{"", ""},
		{"X-Request-Id: abc-1 2\r\n", "abc-1 2"},
		{"X-Request-Id: " + strings.Repeat("x", 128) + "\r\n", strings.Repeat("x", 128)},
		{"X-Request-Id: " + strings.Repeat("x", 129) + "\r\n", ""},
		{"X-Request-Id: a\tb\r\n", ""},
		{"X-Request-Id: caf\xe9\r\n", ""},
		{"X-Request-Id:\r\n", ""},
		{"X-Request-Id: a\r\nX-Request-Id: b\r\n", ""},
	}
	for _, test := range tests {
		_, header := seenBy(t, "GET / HTTP/1.1\r\nHost: a\r\n"+test.send)
		got := header["X-Request-Id"]
		if len(got) != 1 || test.keep != "" && got[0] != test.keep || test.keep == "" && !made.MatchString(got[0]) {
			t.Errorf("%q: got %q, want %q or a new one", test.send, got, test.keep)
		}
	}
}

func TestTargetIsForwardedByteForByte(t *testing.T) {
	tests := []struct{ send, want string }{
		{"/", "/"},
		{"/a%2Fb/%2e%2e%2f%2E/../x", "/a%2Fb/%2e%2e%2f%2E/../x"},
		{"/x?a=1;b=2&c=%zz", "/x?a=1;b=2&c=%zz"},
		{"/x?", "/x?"},
		{"/x??", "/x??"},
		{"/x%0d%0aEvil:1", "/x%0d%0aEvil:1"},
		{`/a"b|c{}^` + "`", `/a"b|c{}^` + "`"},
		{"/caf\xe9", "/caf\xe9"},
		{"//double//slash", "//double//slash"},
		{"/a//b/./c", "/a//b/./c"},
		{"http://a.example/abs%20?q=1", "/abs%20?q=1"},
		{"http://a.example", "/"},
		{"http://a.example?q", "/?q"},
		{"/x?u=http://y/z", "/x?u=http://y/z"},
		{"/x://y", "/x://y"},
	}
	for _, test := range tests {
		line, header := seenBy(t, "GET "+test.send+" HTTP/1.1\r\nHost: a.example\r\n")
		if want := "GET " + test.want + " HTTP/1.1"; line != want || header.Get("Host") != "a.example" {
			t.Errorf("%q: got %q for host %s, want %q for a.example", test.send, line, header.Get("Host"), want)
		}
	}
}

func TestResponseHeader(t *testing.T) {
	tests := map[string]struct{ send, want string }{
		"nothing is added": {
			"HTTP/1.1 200 OK\r\nDate: then\r\nContent-Length: 6\r\n\r\n<html>",
			"HTTP/1.1 200 OK\r\nDate: then\r\nContent-Length: 6\r\n\r\n<html>",
		},
		"end to end": {
			"HTTP/1.1 404 Nope\r\nContent-Length: 0\r\nServer: x\r\nDate: then\r\nSet-Cookie: a\r\nSet-Cookie: b\r\nContent-Type: odd\r\n\r\n",
			"HTTP/1.1 404 Nope\r\nServer: x\r\nDate: then\r\nSet-Cookie: a\r\nSet-Cookie: b\r\nContent-Type: odd\r\nContent-Length: 0\r\n\r\n",
		},
		"hop by hop": {
			"HTTP/1.1 200 OK\r\nDate: then\r\nContent-Length: 0\r\nConnection: X-Foo\r\nX-Foo: 1\r\nKeep-Alive: 5\r\nProxy-Authenticate: y\r\nUpgrade: h2c\r\n\r\n",
			"HTTP/1.1 200 OK\r\nDate: then\r\nContent-Length: 0\r\n\r\n",
		},
		"interim answers": {
			"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nDate: then\r\nContent-Length: 1\r\n\r\nx",
			"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nDate: then\r\nContent-Length: 1\r\n\r\nx",
		},
		"trailers": {
			"HTTP/1.1 200 OK\r\nDate: then\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nX-Sum: 9\r\n\r\n",
			"HTTP/1.1 200 OK\r\nDate: then\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nX-Sum: 9\r\n\r\n",
		},
		"ended by close": {
			"HTTP/1.1 200 OK\r\nDate: then\r\nConnection: close\r\n\r\nall",
			"HTTP/1.1 200 OK\r\nDate: then\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nall\r\n0\r\n\r\n",
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			backend, _ := startRaw(t, "raw", func(conn net.Conn, _ string) { io.WriteString(conn, test.send) })
			_, url := startProxy(t, Config{}, backend)
			conn := dial(t, url)
			io.WriteString(conn, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
			got := make([]byte, len(test.want))
			if n, err := io.ReadFull(conn, got); err != nil || string(got) != test.want {
				t.Errorf("got %q, %v; want %q", got[:n], err, test.want)
			}
		})
	}
}
