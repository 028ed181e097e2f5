package http1

import (
	"strings"
	"testing"

	"github.com/pires/go-proxyproto"
)

func TestPrefaceLengthIsBounded(t *testing.T) {
	v2 := func(rest int) string {
		return string(proxyproto.SIGV2) + "\x21\x11" + string([]byte{byte(rest >> 8), byte(rest)})
	}
	for _, test := range []struct {
		text string
		want int // -1: malformed
	}{
		{"PROXY " + strings.Repeat("x", maxProxyLine-len("PROXY ")-1), 0},
		{"PROXY " + strings.Repeat("x", maxProxyLine-len("PROXY ")), -1},
		{"PROXY " + strings.Repeat("x", maxProxyLine-len("PROXY ")) + "\r\n", -1},
		{"PROXY UNKNOWN\r\nGET", 15},
		{"POST / HTTP/1.1\r\n", -1}, {"GET / HTTP/1.1\r\n", -1}, {"\r\n\r\nGET", -1}, {"\r\n\r\n\x00\r\nQUIT", 0}, {"\x16\x03\x01", -1},
		{v2(maxProxyRest), 0}, {v2(maxProxyRest + 1), -1}, {v2(0xffff), -1}, {v2(12) + "0123456789a", 0}, {v2(12) + "0123456789ab", 28},
	} {
		got, err := prefaceLength([]byte(test.text))
		if err != nil {
			got = -1
		}
		if got != test.want {
			t.Errorf("%.40q: got %d, want %d", test.text, got, test.want)
		}
	}
}

// However the bytes come, a header is found at the same place, and what the parser is
// given makes it neither wait nor panic.
func FuzzPreface(f *testing.F) {
	for _, seed := range []string{
		"PROXY TCP4 192.0.2.1 198.51.100.7 1 2\r\n", "PROXY TCP6 2001:db8::1 ::1 1 2\r\n", "PROXY UNKNOWN\r\n",
		string(proxyproto.SIGV2) + "\x20\x00\x00\x00", string(proxyproto.SIGV2) + "\x21\x11\x00\x0c\xc0\x00\x02\x01\xc6\x33\x64\x07\x00\x01\x00\x02",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		n, err := prefaceLength(b)
		for i := range b {
			early, earlyErr := prefaceLength(b[:i])
			switch {
			case n > 0 && i < n && (early != 0 || earlyErr != nil), n > 0 && i >= n && early != n:
				t.Fatalf("%q: got %d, %v after %d bytes, %d after all", b, early, earlyErr, i, n)
			case n == 0 && early != 0, err == nil && earlyErr != nil:
				t.Fatalf("%q: got %d, %v after %d bytes, %d, %v after all", b, early, earlyErr, i, n, err)
			}
		}
		if n > 0 {
			s := &session{client: []byte("peer")}
			if s.adopt(b[:n]) == nil && len(s.client) == 0 {
				t.Fatalf("%q: the client has no address", b)
			}
		}
	})
}
