package proxy

import (
	"bufio"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
)

const mebibyte = 1 << 20

// Inputs as those of requests.txt, too large for files. A client that is still
// sending gets the answer.
func TestLargeRequestInputs(t *testing.T) {
	const chunked = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
	tests := map[string]struct{ send, want string }{
		"target":           {"GET /" + strings.Repeat("a", 2*mebibyte) + " HTTP/1.1\r\nHost: a\r\n\r\n", "414"},
		"target, below":    {"GET /" + strings.Repeat("a", 20<<10) + " HTTP/1.1\r\nHost: a\r\n\r\n", "414"},
		"method":           {strings.Repeat("A", 2*mebibyte), "414"},
		"empty lines":      {strings.Repeat("\r\n", mebibyte), "414"},
		"header":           {"GET / HTTP/1.1\r\nHost: a\r\nX: " + strings.Repeat("a", 2*mebibyte) + "\r\n\r\n", "431"},
		"name":             {"GET / HTTP/1.1\r\nHost: a\r\n" + strings.Repeat("a", 2*mebibyte) + ": x\r\n\r\n", "431"},
		"10,000 headers":   {"GET / HTTP/1.1\r\nHost: a\r\n" + strings.Repeat("X: y\r\n", 10000) + "\r\n", "431"},
		"chunk extension":  {chunked + "5;" + strings.Repeat("a", 64<<10) + "\r\nhello\r\n0\r\n\r\n", "400"},
		"chunk size":       {chunked + strings.Repeat("0", 64<<10) + "5\r\nhello\r\n0\r\n\r\n", "400"},
		"trailers":         {chunked + "0\r\nX: " + strings.Repeat("a", mebibyte) + "\r\n\r\n", "400"},
		"many trailers":    {chunked + "0\r\n" + strings.Repeat("X: y\r\n", mebibyte/6) + "\r\n", "400"},
		"refused with 417": {"POST / HTTP/1.1\r\nHost: a\r\nExpect: x\r\nContent-Length: 1048576\r\n\r\n" + strings.Repeat("a", mebibyte), "417"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			w, b := startWitness(t)
			p, url := startProxy(t, Config{}, b)
			conn := dial(t, url)
			go io.WriteString(conn, test.send)
			if got := answers(bufio.NewReader(conn), 99); !slices.Equal(got, []string{test.want}) {
				t.Errorf("got %v, want %s and the end", got, test.want)
			}
			conn.Close()
			shutdownNow(p)
			w.end()
			if w.requests != 0 || len(w.got) > 64<<10 {
				t.Errorf("got %d requests in %d bytes at the backend, want none", w.requests, len(w.got))
			}
		})
	}
}

// Inputs as those of responses.txt, too large for files.
func TestLargeResponseInputs(t *testing.T) {
	tests := map[string]string{
		"header":      "HTTP/1.1 200 OK\r\nX: " + strings.Repeat("a", 2*mebibyte) + "\r\n\r\n",
		"5,000 lines": "HTTP/1.1 200 OK\r\n" + strings.Repeat("X: y\r\n", 5000) + "\r\n",
		"reason":      "HTTP/1.1 200 " + strings.Repeat("a", 2*mebibyte) + "\r\n\r\n",
		"no line end": strings.Repeat("a", 2*mebibyte),
		"interim":     "HTTP/1.1 103 Early Hints\r\nX: " + strings.Repeat("a", 2*mebibyte) + "\r\n\r\n",
	}
	for name, answer := range tests {
		t.Run(name, func(t *testing.T) {
			b, hits := startRaw(t, "b", func(conn net.Conn, _ string) { io.WriteString(conn, answer) })
			other := startServer(t, "other", nil)
			_, url := startProxy(t, Config{}, b, other.backend())
			got := talk(t, url, "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
			if !strings.HasPrefix(got, "HTTP/1.1 502") || strings.Contains(got, "aaaa") || hits.Load() != 1 || other.hits.Load() != 0 {
				t.Errorf("got %.80q, sent %d and %d times; want 502 after one attempt", got, hits.Load(), other.hits.Load())
			}
		})
	}
}
