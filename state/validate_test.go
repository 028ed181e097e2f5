package state

import (
	"math"
	"strings"
	"testing"
	"time"
)

// fieldCase edits one thing of a valid value; field is what must be named as
// at fault, empty if the value stays valid.
type fieldCase[T any] struct {
	name  string
	field string
	edit  func(v *T)
}

func checkFields[T any](t *testing.T, valid T, validate func(*T) *Error, cases []fieldCase[T]) {
	t.Helper()
	for _, c := range cases {
		value := valid
		c.edit(&value)
		err := validate(&value)
		switch {
		case c.field == "" && err != nil:
			t.Errorf("%s: got %v, want it valid", c.name, err)
		case c.field != "" && err == nil:
			t.Errorf("%s: got it valid, want field %s at fault", c.name, c.field)
		case err != nil && (err.Code != Invalid || err.Field != c.field):
			t.Errorf("%s: got %s of field %s, want invalid of field %s", c.name, err.Code, err.Field, c.field)
		case err != nil && !strings.HasPrefix(err.Error(), c.field+": must "):
			t.Errorf("%s: got the text %q, want it to begin with the field and say what must be", c.name, err)
		}
	}
}

func TestPoolFields(t *testing.T) {
	const ms = Duration(time.Millisecond)
	checkFields(t, Pool{Name: "web"}.withDefaults(), (*Pool).validate, []fieldCase[Pool]{
		{"defaults", "", func(*Pool) {}},
		{"one letter", "", func(p *Pool) { p.Name = "a" }},
		{"63 characters", "", func(p *Pool) { p.Name = strings.Repeat("a", 63) }},
		{"64 characters", "name", func(p *Pool) { p.Name = strings.Repeat("a", 64) }},
		{"empty name", "name", func(p *Pool) { p.Name = "" }},
		{"dots, dashes, underscores", "", func(p *Pool) { p.Name = "a.b-c_d" }},
		{"leading dot", "name", func(p *Pool) { p.Name = ".a" }},
		{"trailing dash", "name", func(p *Pool) { p.Name = "a-" }},
		{"slash", "name", func(p *Pool) { p.Name = "a/b" }},
		{"newline", "name", func(p *Pool) { p.Name = "a\n" }},
		{"unknown strategy", "strategy", func(p *Pool) { p.Strategy = "fastest" }},
		{"least_time", "", func(p *Pool) { p.Strategy = LeastTime }},
		{"hash", "", func(p *Pool) { p.Strategy = Hash }},
		{"hash on the path", "", func(p *Pool) { p.Strategy, p.HashOn = Hash, HashPath }},
		{"hash on a header", "", func(p *Pool) { p.Strategy, p.HashOn = Hash, "header:X-User" }},
		{"hash on a cookie", "", func(p *Pool) { p.Strategy, p.HashOn = Hash, "cookie:a.b_c" }},
		{"hash on a query key", "", func(p *Pool) { p.Strategy, p.HashOn = Hash, "query:a%5B%5D[x]" }},
		{"hash on a name of 128 characters", "", func(p *Pool) { p.Strategy, p.HashOn = Hash, "query:"+strings.Repeat("a", 128) }},
		{"hash on one of 129", "hash_on", func(p *Pool) { p.Strategy, p.HashOn = Hash, "query:"+strings.Repeat("a", 129) }},
		{"hash on no header", "hash_on", func(p *Pool) { p.Strategy, p.HashOn = Hash, "header:" }},
		{"hash on header without a colon", "hash_on", func(p *Pool) { p.Strategy, p.HashOn = Hash, "header" }},
		{"hash on a path", "hash_on", func(p *Pool) { p.Strategy, p.HashOn = Hash, "path:/x" }},
		{"hash on a header with a space", "hash_on", func(p *Pool) { p.Strategy, p.HashOn = Hash, "header:X User" }},
		{"hash on a cookie with =", "hash_on", func(p *Pool) { p.Strategy, p.HashOn = Hash, "cookie:a=b" }},
		{"hash on two query keys", "hash_on", func(p *Pool) { p.Strategy, p.HashOn = Hash, "query:a&b" }},
		{"hash on something unknown", "hash_on", func(p *Pool) { p.Strategy, p.HashOn = Hash, "host" }},
		{"sticky", "", func(p *Pool) { p.Sticky = Sticky{Cookie: "lb-a_1", Drain: StickyMove} }},
		{"sticky cookie with ;", "sticky.cookie", func(p *Pool) { p.Sticky.Cookie = "a;b" }},
		{"sticky cookie of 129 characters", "sticky.cookie", func(p *Pool) { p.Sticky.Cookie = strings.Repeat("a", 129) }},
		{"unknown sticky drain", "sticky.drain", func(p *Pool) { p.Sticky = Sticky{Cookie: "a", Drain: "x"} }},
		{"sticky drain without a cookie", "sticky.drain", func(p *Pool) { p.Sticky.Drain = StickyMove }},
		{"hash_on without hash", "hash_on", func(p *Pool) { p.HashOn = HashPath }},
		{"fail open", "", func(p *Pool) { p.WhenAllDown = FailOpen }},
		{"unknown when_all_down", "when_all_down", func(p *Pool) { p.WhenAllDown = "panic" }},
		{"tcp check", "", func(p *Pool) { p.HealthCheck.Type = "tcp" }},
		{"unknown check", "health_check.type", func(p *Pool) { p.HealthCheck.Type = "icmp" }},
		{"relative path", "health_check.path", func(p *Pool) { p.HealthCheck.Path = "up" }},
		{"space in path", "health_check.path", func(p *Pool) { p.HealthCheck.Path = "/up HTTP/1.1" }},
		{"CRLF in path", "health_check.path", func(p *Pool) { p.HealthCheck.Path = "/\r\nX:" }},
		{"DEL in path", "health_check.path", func(p *Pool) { p.HealthCheck.Path = "/\x7f" }},
		{"interval 10ms", "", func(p *Pool) { p.HealthCheck.Interval, p.HealthCheck.Timeout = 10*ms, 10*ms }},
		{"interval 9ms", "health_check.interval", func(p *Pool) { p.HealthCheck.Interval, p.HealthCheck.Timeout = 9*ms, ms }},
		{"interval over a day", "health_check.interval", func(p *Pool) { p.HealthCheck.Interval = seconds(86401) }},
		{"timeout as long as interval", "", func(p *Pool) { p.HealthCheck.Timeout = p.HealthCheck.Interval }},
		{"timeout above interval", "health_check.timeout", func(p *Pool) { p.HealthCheck.Timeout = p.HealthCheck.Interval + 1 }},
		{"negative timeout", "health_check.timeout", func(p *Pool) { p.HealthCheck.Timeout = -ms }},
		{"rise -1", "health_check.rise", func(p *Pool) { p.HealthCheck.Rise = -1 }},
		{"rise 101", "health_check.rise", func(p *Pool) { p.HealthCheck.Rise = 101 }},
		{"fall -1", "health_check.fall", func(p *Pool) { p.HealthCheck.Fall = -1 }},
		{"fall 101", "health_check.fall", func(p *Pool) { p.HealthCheck.Fall = 101 }},
		{"connect too short", "timeouts.connect", func(p *Pool) { p.Timeouts.Connect = 1 }},
		{"negative request timeout", "timeouts.request", func(p *Pool) { p.Timeouts.Request = -1 }},
		{"limits", "", func(p *Pool) { p.Limits = Limits{Connections: 1, Pending: maxLimit, Failures: 1, Open: 10 * ms} }},
		{"limit below none", "limits.connections", func(p *Pool) { p.Limits.Connections = -2 }},
		{"limit too large", "limits.failures", func(p *Pool) { p.Limits.Failures = maxLimit + 1 }},
		{"waiting for no limit", "limits.pending", func(p *Pool) { p.Limits.Pending = 1 }},
		{"circuit open for no time", "limits.open", func(p *Pool) { p.Limits.Open = ms }},
		{"outlier", "", func(p *Pool) { p.Outlier = Outlier{Consecutive: 1, SuccessRate: 100, Time: 10 * ms, MaxShare: 100} }},
		{"outlier of none", "outlier.consecutive", func(p *Pool) { p.Outlier.Consecutive = -2 }},
		{"outlier rate above all", "outlier.success_rate", func(p *Pool) { p.Outlier.SuccessRate = 101 }},
		{"outlier time too short", "outlier.time", func(p *Pool) { p.Outlier.Time = ms }},
		{"outlier share above all", "outlier.max_share", func(p *Pool) { p.Outlier.MaxShare = 101 }},
		{"panic always", "", func(p *Pool) { p.Panic = 100 }},
		{"panic above all", "panic_threshold", func(p *Pool) { p.Panic = 101 }},
		{"negative panic", "panic_threshold", func(p *Pool) { p.Panic = -2 }},
		{"slow start", "", func(p *Pool) { p.SlowStart = seconds(60) }},
		{"slow start too short", "slow_start", func(p *Pool) { p.SlowStart = 99 * ms }},
		{"PROXY protocol 2", "", func(p *Pool) { p.ProxyProtocol = ProxyV2 }},
		{"unknown PROXY protocol", "proxy_protocol", func(p *Pool) { p.ProxyProtocol = "2" }},
		{"try as long as request", "", func(p *Pool) { p.Timeouts.Try = p.Timeouts.Request }},
		{"hedge too short", "timeouts.hedge", func(p *Pool) { p.Timeouts.Hedge = 1 }},
		{"try above request", "timeouts.try", func(p *Pool) { p.Timeouts.Try = p.Timeouts.Request + 1 }},
		{"endless request timeout", "timeouts.request", func(p *Pool) { p.Timeouts.Request = math.MaxInt64 }},
	})
}

func TestBackendFields(t *testing.T) {
	host := func(host string) func(*Backend) { return func(b *Backend) { b.Host = host } }
	checkFields(t, backend(1).withDefaults(), (*Backend).validate, []fieldCase[Backend]{
		{"defaults", "", func(*Backend) {}},
		{"no id", "id", func(b *Backend) { b.ID = "" }},
		{"no name", "name", func(b *Backend) { b.Name = "" }},
		{"https", "", func(b *Backend) { b.Protocol = "https" }},
		{"unknown protocol", "protocol", func(b *Backend) { b.Protocol = "HTTP" }},
		{"IPv6", "", host("2001:db8::1")},
		{"IPv6 zone", "host", host("fe80::1%eth0")},
		{"CRLF in an IPv6 zone", "host", host("fe80::1%\r\nX: y")},
		{"host name", "", host("web_1.example-site.com.")},
		{"one label", "", host("web")},
		{"no host", "host", host("")},
		{"host and port", "host", host("web:80")},
		{"brackets", "host", host("[::1]")},
		{"space", "host", host("a b")},
		{"newline", "host", host("web\n")},
		{"empty label", "host", host("a..b")},
		{"user", "host", host("u@web")},
		{"64-character label", "host", host(strings.Repeat("a", 64) + ".com")},
		{"254 characters", "host", host(strings.Repeat("a.", 127))},
		{"port 1", "", func(b *Backend) { b.Port = 1 }},
		{"port 65535", "", func(b *Backend) { b.Port = 65535 }},
		{"port 0", "port", func(b *Backend) { b.Port = 0 }},
		{"port 65536", "port", func(b *Backend) { b.Port = 65536 }},
		{"weight 256", "", func(b *Backend) { b.Weight = 256 }},
		{"weight 257", "weight", func(b *Backend) { b.Weight = 257 }},
		{"weight -1", "weight", func(b *Backend) { b.Weight = -1 }},
		{"maint", "", func(b *Backend) { b.Admin = Maint }},
		{"unknown admin state", "admin", func(b *Backend) { b.Admin = "off" }},
	})
}

func TestRouteFields(t *testing.T) {
	checkFields(t, Route{Host: "example.com", Path: "/api", Pool: "web"}, (*Route).validate, []fieldCase[Route]{
		{"valid", "", func(*Route) {}},
		{"any host", "", func(r *Route) { r.Host = "" }},
		{"host with a port", "host", func(r *Route) { r.Host = "example.com:80" }},
		{"wildcard", "host", func(r *Route) { r.Host = "*.example.com" }},
		{"empty path", "path", func(r *Route) { r.Path = "" }},
		{"relative path", "path", func(r *Route) { r.Path = "api" }},
		{"NUL in path", "path", func(r *Route) { r.Path = "/\x00" }},
		{"no pool", "pool", func(r *Route) { r.Pool = "" }},
		{"bad pool", "pool", func(r *Route) { r.Pool = "a b" }},
	})
}

func TestCanonicalHost(t *testing.T) {
	for given, want := range map[string]string{
		"":                  "",
		"10.0.0.1":          "10.0.0.1",
		"::ffff:10.0.0.1":   "10.0.0.1",
		"2001:DB8:0:0::0:1": "2001:db8::1",
		"Web-1.Example.COM": "web-1.example.com",
	} {
		if got := canonicalHost(given); got != want {
			t.Errorf("canonicalHost(%q): got %q, want %q", given, got, want)
		}
	}
}

func TestAddrAndURL(t *testing.T) {
	b := Backend{Protocol: "https", Host: "2001:db8::1", Port: 443}
	if got, want := b.Addr(), "[2001:db8::1]:443"; got != want {
		t.Errorf("got address %s, want %s", got, want)
	}
	if got, want := b.URL(), "https://[2001:db8::1]:443"; got != want {
		t.Errorf("got URL %s, want %s", got, want)
	}
}

func TestDurationText(t *testing.T) {
	for _, want := range []Duration{0, 1, -1, 999_999_999, 1_000_000_001, seconds(90), math.MaxInt64, math.MinInt64} {
		text, err := want.MarshalText()
		if err != nil {
			t.Fatal(err)
		}
		var got Duration
		if err := got.UnmarshalText(text); err != nil || got != want {
			t.Errorf("%s: got %d and error %v, want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"", "2", "2 s", "s", "1e3s", "99999999h"} {
		d := seconds(5)
		if err := d.UnmarshalText([]byte(text)); err == nil || d != seconds(5) {
			t.Errorf("%q: got %s and error %v, want an error and the old value", text, d, err)
		}
	}
}
