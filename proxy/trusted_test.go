package proxy

import (
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"lbnode/state"
)

// What a client says about itself counts only if it comes from a trusted network,
// whichever way its address is written.
func TestTrustedProxies(t *testing.T) {
	const claims = "X-Forwarded-For: 192.0.2.1, 2001:db8::1\r\nX-Forwarded-For:\r\nx-forwarded-for: unknown\r\n" +
		"X-Forwarded-Proto: https\r\nX-Forwarded-Host: shop.example\r\nX_Forwarded_For: 6.6.6.6\r\n"
	none := map[string]string{"X-Forwarded-For": "127.0.0.1", "X-Forwarded-Proto": "http", "X-Forwarded-Host": "a"}
	all := map[string]string{"X-Forwarded-For": "192.0.2.1, 2001:db8::1, unknown, 127.0.0.1", "X-Forwarded-Proto": "https", "X-Forwarded-Host": "shop.example"}
	overSix := map[string]string{"X-Forwarded-For": "192.0.2.1, 2001:db8::1, unknown, ::1", "X-Forwarded-Proto": "https", "X-Forwarded-Host": "shop.example"}
	tests := map[string]struct {
		networks string
		listen   string
		host     string // to connect to
		claims   string
		want     map[string]string
	}{
		"nobody is trusted":           {"", "127.0.0.1:0", "127.0.0.1", claims, none},
		"others are":                  {"10.0.0.0/8 ::1/128", "127.0.0.1:0", "127.0.0.1", claims, none},
		"the client is":               {"10.0.0.0/8 127.0.0.0/8", "127.0.0.1:0", "127.0.0.1", claims, all},
		"over a socket of IPv6":       {"127.0.0.0/8", "[::]:0", "127.0.0.1", claims, all},
		"not, over a socket of IPv6":  {"::/0", "[::]:0", "127.0.0.1", claims, none},
		"over IPv6":                   {"::1/128", "[::1]:0", "::1", claims, overSix},
		"it says nothing":             {"127.0.0.0/8", "127.0.0.1:0", "127.0.0.1", "", none},
		"it says nothing at first":    {"127.0.0.0/8", "127.0.0.1:0", "127.0.0.1", "X-Forwarded-Proto:\r\nX-Forwarded-Host:\r\n" + claims, all},
		"it says nothing in so words": {"127.0.0.0/8", "127.0.0.1:0", "127.0.0.1", "X-Forwarded-For: \r\nX-Forwarded-Proto:\r\nX-Forwarded-Host:\r\n", none},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			heads, backend := keepHeads(t)
			var config Config
			for _, network := range strings.Fields(test.networks) {
				config.TrustedProxies = append(config.TrustedProxies, netip.MustParsePrefix(network))
			}
			addr := startProxyAt(t, config, test.listen, backend)
			_, port, _ := net.SplitHostPort(addr)
			talk(t, "http://"+net.JoinHostPort(test.host, port), "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"+test.claims+"\r\n")
			head := <-heads
			for name, want := range test.want {
				if got := values(head, name); !slices.Equal(got, []string{want}) {
					t.Errorf("%s: got %q, want %q", name, got, want)
				}
			}
			if strings.Contains(head, "6.6.6.6") {
				t.Errorf("got %q, want nothing of what is not ours to pass on", head)
			}
		})
	}
}

// What trusted proxies say of a request besides goes on as they wrote it, and only theirs;
// what only looks like it goes nowhere.
func TestClaims(t *testing.T) {
	claims := map[string][]string{
		"X-Forwarded-Port": {"8443"}, "X-Forwarded-Prefix": {"/shop"}, "X-Forwarded-User": {"alice"}, "X-Forwarded-Server": {"edge-1"},
		"X-Forwarded-Ssl": {"on"}, "X-Forwarded-Client-Cert": {"By=a;Hash=b", "By=c"}, "X-FORWARDED-FOR-2": {"x"}, "X-Forwarded": {"y"},
		"X-Real-IP": {"192.0.2.1"}, "Forwarded": {"for=192.0.2.1;proto=https", "for=\"[2001:db8::1]\""},
	}
	lookalikes := []string{"X_Forwarded_Port", "X-Forwarded_User", "X_Real-IP", "x_forwarded", "X-Forwarded-My_Own", "X.Forwarded.For", "X-Forwarded~Proto", "X!Real!IP", "Proxy"}
	for _, trusted := range []bool{false, true} {
		for _, connection := range []string{"", "X-Forwarded-Port, x-real-ip, Forwarded, X-Forwarded-For"} {
			config := Config{}
			if trusted {
				config.TrustedProxies = loopback
			}
			heads, backend := keepHeads(t)
			_, url := startProxy(t, config, backend)
			send := "GET / HTTP/1.1\r\nHost: a\r\nConnection: close, " + connection + "\r\n"
			for name, values := range claims {
				for _, value := range values {
					send += name + ": " + value + "\r\n"
				}
			}
			for _, name := range lookalikes {
				send += name + ": evil\r\n"
			}
			talk(t, url, send+"\r\n")
			head := <-heads
			for name, want := range claims {
				if got := values(head, name); trusted && !slices.Equal(got, want) || !trusted && got != nil {
					t.Errorf("%s: got %q, want %q if it is trusted: %v", name, got, want, trusted)
				}
			}
			if strings.Contains(head, "evil") {
				t.Errorf("got %q, want nothing that looks like what a proxy says", head)
			}
		}
	}
}

// keepHeads starts a backend that answers 204 and gives away the heads it got.
func keepHeads(t *testing.T) (<-chan string, state.Backend) {
	t.Helper()
	heads := make(chan string, 16)
	backend, _ := startRaw(t, "raw", func(conn net.Conn, head string) {
		heads <- head
		io.WriteString(conn, "HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
	})
	return heads, backend
}

// startProxyAt starts a proxy that listens on addr and returns the address bound.
func startProxyAt(t *testing.T, config Config, addr string, backends ...state.Backend) string {
	t.Helper()
	p := New(config)
	p.SetView(viewOf(nil, poolOf(state.DefaultPool, backends...)))
	t.Cleanup(func() { shutdownNow(p) })
	bound, err := p.Listen(addr)
	if err != nil {
		t.Fatal(err)
	}
	return bound.String()
}

// values are those of all fields of that name.
func values(head, name string) (all []string) {
	for line := range strings.SplitSeq(head, "\r\n") {
		if field, value, ok := strings.Cut(line, ": "); ok && strings.EqualFold(field, name) {
			all = append(all, value)
		}
	}
	return all
}
