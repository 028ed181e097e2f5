package proxy

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"lbnode/state"
)

func oneKey() [][]byte { return [][]byte{[]byte("a key")} }

// stickyPool is the default pool with a cookie.
func stickyPool(backends ...state.Backend) *state.Pool {
	pool := poolOf(state.DefaultPool, backends...)
	pool.Sticky.Cookie = "lb"
	return pool
}

// visit sends a request with that cookie, and gives who answered and what it sets.
func visit(t *testing.T, url, cookie string, fields ...string) (from, set string) {
	t.Helper()
	if cookie != "" {
		fields = append(fields, "Cookie: other=1; lb="+cookie)
	}
	answer := talk(t, url, "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"+strings.Join(append(fields, "\r\n"), "\r\n"))
	res, err := http.ReadResponse(bufio.NewReader(strings.NewReader(answer)), nil)
	if err != nil {
		t.Fatalf("got %q, %v", answer, err)
	}
	body, _ := io.ReadAll(res.Body)
	return string(body), res.Header.Get("Set-Cookie")
}

// valueOf is the value of the cookie that a field sets.
func valueOf(t *testing.T, set string) string {
	t.Helper()
	value, rest, _ := strings.Cut(strings.TrimPrefix(set, "lb="), "; ")
	if rest != "Path=/; HttpOnly; SameSite=Lax" || value == set {
		t.Fatalf("got Set-Cookie: %q", set)
	}
	return value
}

func threeBackends(t *testing.T) (servers [3]*server, backends []state.Backend) {
	for i := range servers {
		servers[i] = startServer(t, string(rune('a'+i)), nil)
		backends = append(backends, servers[i].backend())
	}
	return servers, backends
}

func TestStickyKeepsClients(t *testing.T) {
	_, backends := threeBackends(t)
	for _, strategy := range everyStrategy {
		pool := stickyPool(backends...)
		pool.Strategy = strategy
		_, url := startProxyWith(t, Config{CookieKeys: oneKey}, viewOf(nil, pool))
		home, set := visit(t, url, "")
		cookie := valueOf(t, set)
		for range 9 {
			if from, set := visit(t, url, cookie); from != home || set != "" {
				t.Errorf("%s: got an answer of %s and the cookie %q, want %s and none", strategy, from, set, home)
			}
		}
	}
}

// What does not name a backend by a signature of ours is as good as nothing.
func TestStickyForgeries(t *testing.T) {
	_, backends := threeBackends(t)
	_, url := startProxyWith(t, Config{CookieKeys: oneKey}, viewOf(nil, stickyPool(backends...)))
	_, set := visit(t, url, "")
	valid := valueOf(t, set)
	id, signature, _ := strings.Cut(valid, ".")
	for name, cookie := range map[string]string{
		"no signature": id, "another backend": "id-b." + signature, "another pool": cookieOf("web", id, oneKey()[0]),
		"another key": cookieOf(state.DefaultPool, id, []byte("another")), "one letter less": valid[:len(valid)-1],
		"one letter more": valid + "A", "quoted": `"` + valid + `"`, "long": strings.Repeat("x", 4000), "a backend that is gone": cookieOf(state.DefaultPool, "id-z", oneKey()[0]),
	} {
		seen := map[string]bool{}
		for range 3 {
			from, set := visit(t, url, cookie)
			seen[from] = true
			valueOf(t, set)
		}
		if len(seen) != 3 {
			t.Errorf("%s: got answers of %v, want the strategy's choice", name, seen)
		}
	}
}

func TestStickyFollowsBackends(t *testing.T) {
	servers, backends := threeBackends(t)
	for name, test := range map[string]struct {
		change func(pool *state.Pool)
		stays  bool
	}{
		"nothing":            {func(*state.Pool) {}, true},
		"drained":            {func(p *state.Pool) { p.Backends[0].Admin = state.Drain }, true},
		"drained, and moves": {func(p *state.Pool) { p.Backends[0].Admin, p.Sticky.Drain = state.Drain, state.StickyMove }, false},
		"maintained":         {func(p *state.Pool) { p.Backends[0].Admin = state.Maint }, false},
		"unhealthy":          {func(p *state.Pool) { p.Backends[0].Health = state.Unhealthy }, false},
		"drained, unhealthy": {func(p *state.Pool) { p.Backends[0].Admin, p.Backends[0].Health = state.Drain, state.Unhealthy }, false},
		"agent drains it":    {func(p *state.Pool) { p.Backends[0].Agent.Admin = state.Drain }, true},
		"agent maintains it": {func(p *state.Pool) { p.Backends[0].Agent.Admin = state.Maint }, false},
		"a backup":           {func(p *state.Pool) { p.Backends[0].Backup = true }, false},
		"all backups": {func(p *state.Pool) {
			for i := range p.Backends {
				p.Backends[i].Backup = true
			}
		}, true},
		"a backup, serving": {func(p *state.Pool) {
			p.Backends[0].Backup = true
			p.Backends[1].Health, p.Backends[2].Health = state.Unhealthy, state.Unhealthy
		}, true},
		"drained, on the way": {func(p *state.Pool) {
			p.Backends[0].Admin, p.SlowStart, p.Backends[1].Since = state.Drain, state.Duration(time.Hour), time.Now().UnixMilli()
		}, true},
		"removed":      {func(p *state.Pool) { p.Backends = p.Backends[1:] }, false},
		"weighed down": {func(p *state.Pool) { p.Backends[1].Weight = 256 }, true},
	} {
		t.Run(name, func(t *testing.T) {
			p, url := startProxyWith(t, Config{CookieKeys: oneKey}, viewOf(nil, stickyPool(backends...)))
			cookie := cookieOf(state.DefaultPool, "id-a", oneKey()[0])
			pool := stickyPool(append([]state.Backend(nil), backends...)...)
			test.change(pool)
			p.SetView(viewOf(nil, pool))
			for range 4 {
				from, set := visit(t, url, cookie)
				if stays := from == "a"; stays != test.stays || stays != (set == "") {
					t.Errorf("got an answer of %s and the cookie %q, want it to stay: %v", from, set, test.stays)
				}
			}
		})
	}
	p, url := startProxyWith(t, Config{CookieKeys: oneKey}, viewOf(nil, stickyPool(backends...)))
	cookie := cookieOf(state.DefaultPool, "id-a", oneKey()[0])
	p.mu.Lock()
	f := p.findings["id-a"]
	p.setAside(f, time.Hour, false)
	p.mu.Unlock()
	if from, _ := visit(t, url, cookie); from == "a" {
		t.Error("got an answer of a backend that is set aside")
	}
	p.rested(f, f.aside)
	if from, _ := visit(t, url, cookie); from != "a" {
		t.Errorf("got an answer of %s, want the one whose rest is over", from)
	}
	servers[0].kill()
	from, set := visit(t, url, cookie)
	if moved := valueOf(t, set); from == "a" || moved != cookieOf(state.DefaultPool, "id-"+from, oneKey()[0]) {
		t.Errorf("got an answer of %s and the cookie %s, want another backend's", from, moved)
	}
	p.SetReachable("id-a", false)
	if from, _ := visit(t, url, cookie); from == "a" {
		t.Error("got an answer of a backend that is not reachable")
	}
}

// The cookie that one node sets, the others know, while secrets are exchanged as well.
func TestStickyKeys(t *testing.T) {
	_, backends := threeBackends(t)
	var keys atomic.Pointer[[][]byte]
	use := func(names ...string) {
		var all [][]byte
		for _, name := range names {
			all = append(all, []byte(name))
		}
		keys.Store(&all)
	}
	use()
	p, url := startProxyWith(t, Config{CookieKeys: func() [][]byte { return *keys.Load() }}, viewOf(nil, stickyPool(backends...)))
	if _, set := visit(t, url, ""); set != "" {
		t.Errorf("got the cookie %q without a key", set)
	}
	use("old")
	p.SetView(viewOf(nil, p.table.Load().pools[state.DefaultPool].spec))
	_, set := visit(t, url, "")
	old := valueOf(t, set)
	home, _ := visit(t, url, old)
	use("old", "new")
	p.RenewCookies()
	if from, set := visit(t, url, old); from != home || set != "" {
		t.Errorf("got an answer of %s and the cookie %q, want %s and none", from, set, home)
	}
	use("new", "old")
	p.RenewCookies()
	from, set := visit(t, url, old)
	renewed := valueOf(t, set)
	if from != home || renewed == old {
		t.Errorf("got an answer of %s and the cookie %q, want %s and one by the new key", from, renewed, home)
	}
	use("new")
	p.RenewCookies()
	if from, set := visit(t, url, renewed); from != home || set != "" {
		t.Errorf("got an answer of %s and the cookie %q, want %s and none", from, set, home)
	}
	if _, set := visit(t, url, old); set == "" {
		t.Error("a cookie is accepted by a key that is gone")
	}
}

func TestStickySecure(t *testing.T) {
	_, backends := threeBackends(t)
	for _, trusted := range []bool{false, true} {
		config := Config{CookieKeys: oneKey}
		if trusted {
			config.TrustedProxies = loopback
		}
		_, url := startProxyWith(t, config, viewOf(nil, stickyPool(backends...)))
		_, set := visit(t, url, "", "X-Forwarded-Proto: https")
		if got := strings.HasSuffix(set, "; HttpOnly; SameSite=Lax; Secure"); got != trusted {
			t.Errorf("got the cookie %q of one that says it was reached by TLS, trusted: %v", set, trusted)
		}
	}
}

// Who answers is who keeps the client, and not who was asked first.
func TestStickyHedge(t *testing.T) {
	given := make(chan string, 2)
	slow := startServer(t, "slow", after(time.Minute, "slow", given))
	fast := startServer(t, "fast", nil)
	pool := hedged(50*time.Millisecond, slow, fast)
	pool.Sticky.Cookie = "lb"
	_, url := startProxyWith(t, Config{CookieKeys: oneKey}, viewOf(nil, pool))
	for _, cookie := range []string{"", cookieOf(state.DefaultPool, "id-slow", oneKey()[0])} {
		from, set := visit(t, url, cookie)
		if got, want := valueOf(t, set), cookieOf(state.DefaultPool, "id-fast", oneKey()[0]); from != "fast" || got != want {
			t.Errorf("got an answer of %s and the cookie %s, want fast and %s", from, got, want)
		}
	}
}

func TestStickyAllocatesNothing(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	b, _ := startRaw(t, "b", func(conn net.Conn, _ string) { answerAll(conn) })
	_, url := startProxyWith(t, Config{CookieKeys: oneKey}, viewOf(nil, stickyPool(b)))
	conn := dial(t, url)
	for _, cookie := range []string{"none", cookieOf(state.DefaultPool, "id-b", oneKey()[0])} {
		out, in := fmt.Appendf(nil, "GET / HTTP/1.1\r\nHost: a.example\r\nCookie: a=b; lb=%s\r\n\r\n", cookie), make([]byte, 4096)
		exchange := func() {
			if _, err := conn.Write(out); err != nil {
				t.Fatal(err)
			}
			if _, err := conn.Read(in); err != nil {
				t.Fatal(err)
			}
		}
		exchange()
		if got := testing.AllocsPerRun(500, exchange); got > 0 {
			t.Errorf("got %v allocations for each request, want 0", got)
		}
	}
}
