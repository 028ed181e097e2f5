package http1

import (
	"bufio"
	"bytes"
	"net/netip"
	"strings"
	"testing"

	"github.com/pires/go-proxyproto"
)

func TestProxyHeaderIsReadAsWritten(t *testing.T) {
	at := func(s string) netip.AddrPort {
		if s == "" {
			return netip.AddrPort{}
		}
		return netip.MustParseAddrPort(s)
	}
	tests := []struct{ client, local, wantClient, wantLocal string }{
		{"192.0.2.1:1", "198.51.100.7:65535", "192.0.2.1:1", "198.51.100.7:65535"},
		{"[2001:db8::1]:0", "[::1]:80", "[2001:db8::1]:0", "[::1]:80"},
		{"[::ffff:192.0.2.1]:1", "10.0.0.1:80", "192.0.2.1:1", "10.0.0.1:80"},
		{"192.0.2.1:1", "[2001:db8::1]:80", "192.0.2.1:1", "[2001:db8::1]:80"},
		{"", "10.0.0.1:80", "", ""},
		{"10.0.0.1:80", "", "", ""},
	}
	for _, test := range tests {
		for version := 1; version <= 2; version++ {
			out := appendProxyHeader([]byte("x"), version, at(test.client), at(test.local))[1:]
			if n, err := prefaceLength(append(bytes.Clone(out), "GET /"...)); n != len(out) || err != nil {
				t.Errorf("%q: got length %d, %v; want %d", out, n, err, len(out))
			}
			h, err := proxyproto.Read(bufio.NewReader(bytes.NewReader(out)))
			if err != nil || int(h.Version) != version {
				t.Fatalf("%q: got %v, %v; want version %d", out, h, err, version)
			}
			from, to, ok := h.TCPAddrs()
			if ok != (test.wantClient != "") || ok != h.Command.IsProxy() {
				t.Errorf("%q: got addresses %v, want %q", out, ok, test.wantClient)
			} else if ok && (from.String() != test.wantClient || to.String() != test.wantLocal) {
				t.Errorf("%q: got %s to %s, want %s to %s", out, from, to, test.wantClient, test.wantLocal)
			}
		}
	}
}

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
	client, local := netip.MustParseAddrPort("192.0.2.1:1"), netip.MustParseAddrPort("[::1]:2")
	for version := 1; version <= 2; version++ {
		f.Add(appendProxyHeader(nil, version, client, local))
		f.Add(appendProxyHeader(nil, version, client, client))
		f.Add(appendProxyHeader(nil, version, netip.AddrPort{}, local))
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
