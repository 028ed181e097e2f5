package admin

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"lbnode/cluster"
)

func TestStatusCodes(t *testing.T) {
	const backend = `{"name":"web-2","url":"http://10.0.0.2:8080"}`
	for _, test := range []struct {
		name, method, path, body string
		headers                  []string
		status                   int
		field                    string // of the problem
		in                       string // the body must hold this
	}{
		{name: "list pools", method: "GET", path: "/v1/pools", status: 200, in: `"name":"idle"`},
		{name: "head", method: "HEAD", path: "/v1/pools", status: 200},
		{name: "read with a slip", method: "GET", path: "/v1/pools?consistant=1", status: 400, field: "consistant", in: `did you mean \"consistent\"?`},
		{name: "read with an odd key", method: "GET", path: "/v1/routes?stale", status: 400, field: "stale", in: "known are pretty, consistent, index, wait"},
		{name: "read asked twice", method: "GET", path: "/v1/routes?index=1&index=2", status: 400, field: "index"},
		{name: "probe with an odd key", method: "GET", path: "/livez?from=monitor", status: 200},
		{name: "cluster with an odd key", method: "GET", path: "/cluster?from=monitor", status: 200},
		{name: "pool", method: "GET", path: "/v1/pools/web", status: 200, in: `"interval":"2s"`},
		{name: "no pool", method: "GET", path: "/v1/pools/wbe", status: 404, field: "pool"},
		{name: "odd pool", method: "GET", path: "/v1/pools/a%2Fb%00", status: 404, field: "pool"},
		{name: "create pool", method: "POST", path: "/v1/pools", body: `{"name":"api","backends":[` + backend + `]}`, status: 201, in: `"web-2"`},
		{name: "create pool again", method: "POST", path: "/v1/pools", body: `{"name":"web"}`, status: 409, field: "name"},
		{name: "pool without name", method: "POST", path: "/v1/pools", body: `{}`, status: 422, field: "name"},
		{name: "pool with bad name", method: "POST", path: "/v1/pools", body: `{"name":"-"}`, status: 422, field: "name"},
		{name: "pool with bad backend", method: "POST", path: "/v1/pools", body: `{"name":"api","backends":[` + backend + `,{"name":"x"}]}`, status: 422, field: "backends[1].url"},
		{name: "change pool", method: "PATCH", path: "/v1/pools/web", body: `{"health_check":{"rise":5}}`, status: 200, in: `"rise":5,"fall":3`},
		{name: "change pool by merge-patch", method: "PATCH", path: "/v1/pools/web", body: `{"timeouts":{"request":"9s"}}`, headers: []string{"Content-Type", "application/merge-patch+json"}, status: 200, in: `"request":"9s"`},
		{name: "change nothing", method: "PATCH", path: "/v1/pools/web", body: `{"health_check":{}}`, status: 200},
		{name: "change pool badly", method: "PATCH", path: "/v1/pools/web", body: `{"strategy":"luck"}`, status: 422, field: "strategy"},
		{name: "rename pool", method: "PATCH", path: "/v1/pools/web", body: `{"name":"api"}`, status: 422, field: "name"},
		{name: "same name", method: "PATCH", path: "/v1/pools/web", body: `{"name":"web"}`, status: 200},
		{name: "backends of pool", method: "PATCH", path: "/v1/pools/web", body: `{"backends":[]}`, status: 422, field: "backends"},
		{name: "change no pool", method: "PATCH", path: "/v1/pools/wbe", body: `{"health_check":{"rise":5}}`, status: 404, field: "pool"},
		{name: "delete pool", method: "DELETE", path: "/v1/pools/idle", status: 204},
		{name: "delete used pool", method: "DELETE", path: "/v1/pools/web", status: 409, field: "name"},
		{name: "delete no pool", method: "DELETE", path: "/v1/pools/wbe", status: 404, field: "pool"},

		{name: "list backends", method: "GET", path: "/v1/pools/web/backends", status: 200, in: `"url":"http://10.0.0.1:80"`},
		{name: "list no backends", method: "GET", path: "/v1/pools/idle/backends", status: 200, in: `[]`},
		{name: "list backends of no pool", method: "GET", path: "/v1/pools/wbe/backends", status: 404, field: "pool"},
		{name: "backend", method: "GET", path: "/v1/pools/web/backends/web-1", status: 200, in: `"healthy":false`},
		{name: "no backend", method: "GET", path: "/v1/pools/web/backends/x", status: 404, field: "backend"},
		{name: "add backend", method: "POST", path: "/v1/pools/web/backends", body: backend, status: 201, in: `"port":8080`},
		{name: "add backend to default", method: "POST", path: "/v1/pools/default/backends", body: backend, status: 201},
		{name: "add backend to no pool", method: "POST", path: "/v1/pools/wbe/backends", body: backend, status: 404, field: "pool"},
		{name: "add backend twice", method: "POST", path: "/v1/pools/web/backends", body: `{"name":"web-1","url":"http://h"}`, status: 409, field: "name"},
		{name: "add address twice", method: "POST", path: "/v1/pools/web/backends", body: `{"name":"web-2","host":"10.0.0.1"}`, status: 409, field: "url"},
		{name: "change backend", method: "PATCH", path: "/v1/pools/web/backends/web-1", body: `{"admin":"drain"}`, status: 200, in: `"admin":"drain"`},
		{name: "move backend", method: "PATCH", path: "/v1/pools/web/backends/web-1", body: `{"url":"https://h"}`, status: 200, in: `"url":"https://h:443"`},
		{name: "change backend badly", method: "PATCH", path: "/v1/pools/web/backends/web-1", body: `{"weight":1000}`, status: 422, field: "weight"},
		{name: "rename backend", method: "PATCH", path: "/v1/pools/web/backends/web-1", body: `{"name":"web-2"}`, status: 422, field: "name"},
		{name: "make it a backup", method: "PATCH", path: "/v1/pools/web/backends/web-1", body: `{"backup":true}`, status: 200, in: `"backup":true`},
		{name: "make it none", method: "PATCH", path: "/v1/pools/web/backends/web-1", body: `{"backup":false}`, status: 200, in: `"weight":1,"admin"`},
		{name: "make it something", method: "PATCH", path: "/v1/pools/web/backends/web-1", body: `{"backup":"maybe"}`, status: 422, field: "backup", in: `must be true or false`},
		{name: "outliers", method: "PATCH", path: "/v1/pools/web", body: `{"outlier":{"consecutive":5,"time":"20s"},"panic_threshold":30,"slow_start":"1m"}`, status: 200,
			in: `"outlier":{"consecutive":5,"time":"20s"},"when_all_down":"reject","panic_threshold":30,"slow_start":"1m0s"`},
		{name: "no outliers", method: "PATCH", path: "/v1/pools/web", body: `{"outlier":{"consecutive":-1,"time":"none"},"panic_threshold":-1,"slow_start":"none"}`, status: 200,
			in: `"when_all_down":"reject","limits":{},"sticky":{},"backends"`},
		{name: "panic above all", method: "PATCH", path: "/v1/pools/web", body: `{"panic_threshold":101}`, status: 422, field: "panic_threshold"},
		{name: "change no backend", method: "PATCH", path: "/v1/pools/web/backends/x", body: `{"weight":2}`, status: 404, field: "backend"},
		{name: "remove backend", method: "DELETE", path: "/v1/pools/web/backends/web-1", status: 204},
		{name: "remove no backend", method: "DELETE", path: "/v1/pools/web/backends/x", status: 404, field: "backend"},

		{name: "list routes", method: "GET", path: "/v1/routes", status: 200, in: `[{"host":"","path":"/","pool":"web"}]`},
		{name: "add route", method: "POST", path: "/v1/routes", body: `{"host":"Example.com","pool":"web"}`, status: 201, in: `{"host":"example.com","path":"/","pool":"web"}`},
		{name: "move route", method: "POST", path: "/v1/routes", body: `{"host":"","path":"/","pool":"idle"}`, status: 200},
		{name: "route to no pool", method: "POST", path: "/v1/routes", body: `{"pool":"wbe"}`, status: 404, field: "pool"},
		{name: "route to nowhere", method: "POST", path: "/v1/routes", body: `{}`, status: 422, field: "pool"},
		{name: "remove route", method: "DELETE", path: "/v1/routes?path=/", status: 204},
		{name: "remove no route", method: "DELETE", path: "/v1/routes?host=a.b&path=/", status: 404, field: "route"},
		{name: "remove which route", method: "DELETE", path: "/v1/routes", status: 400},
		{name: "remove route with a slip", method: "DELETE", path: "/v1/routes?path=/&hsot=a", status: 400, field: "hsot", in: `did you mean \"host\"?`},
		{name: "remove two routes", method: "DELETE", path: "/v1/routes?path=/&path=/a", status: 400, field: "path"},
		{name: "dry run is not known", method: "DELETE", path: "/v1/pools/idle?dry_run=1", status: 400, field: "dry_run"},
		{name: "query that cannot be read", method: "DELETE", path: "/v1/pools/idle?a;b", status: 400},

		{name: "matching condition", method: "DELETE", path: "/v1/pools/idle", headers: []string{"If-Match", `"4"`}, status: 204},
		{name: "any condition", method: "DELETE", path: "/v1/pools/idle", headers: []string{"If-Match", "*"}, status: 204},
		{name: "stale condition", method: "DELETE", path: "/v1/pools/idle", headers: []string{"If-Match", `"3"`}, status: 412},
		{name: "condition zero", method: "DELETE", path: "/v1/pools/idle", headers: []string{"If-Match", `"0"`}, status: 412},
		{name: "condition without quotes", method: "DELETE", path: "/v1/pools/idle", headers: []string{"If-Match", "4"}, status: 400, field: "If-Match"},
		{name: "weak condition", method: "DELETE", path: "/v1/pools/idle", headers: []string{"If-Match", `W/"4"`}, status: 400, field: "If-Match"},
		{name: "two conditions", method: "DELETE", path: "/v1/pools/idle", headers: []string{"If-Match", `"3", "4"`}, status: 400, field: "If-Match"},

		{name: "unknown path", method: "GET", path: "/v1/pool", status: 404},
		{name: "trailing slash", method: "GET", path: "/v1/pools/", status: 404},
		{name: "root", method: "GET", path: "/", status: 404},
		{name: "wrong method", method: "PUT", path: "/v1/pools", body: `{}`, status: 405},
		{name: "writing to cluster", method: "POST", path: "/cluster", status: 405},
		{name: "odd method", method: "QUERY", path: "/v1/leave", status: 405},
		{name: "leave", method: "POST", path: "/v1/leave", status: 204},
		{name: "remove a dead node", method: "DELETE", path: "/v1/raft/peers/lb3", status: 204},
		{name: "remove a dead node for a while", method: "DELETE", path: "/v1/raft/peers/lb3?for=1h", status: 400, field: "for"},
		{name: "read a member", method: "GET", path: "/v1/raft/peers/lb3", status: 405},
	} {
		t.Run(test.name, func(t *testing.T) {
			addr := serve(t, webPool(t), Config{})
			got := ask(t, test.method, "http://"+addr+test.path, test.body, test.headers...)
			if got.status != test.status {
				t.Fatalf("status: got %d, want %d (body %s)", got.status, test.status, got.body)
			}
			if !strings.Contains(got.body, test.in) {
				t.Errorf("body: got %s, want it to hold %s", got.body, test.in)
			}
			if got.status >= 400 {
				if p := got.problem(t); p.Field != test.field {
					t.Errorf("field: got %q, want %q (%s)", p.Field, test.field, p.Detail)
				}
			}
			if got.status == 405 && got.header.Get("Allow") == "" {
				t.Error("405 without Allow")
			}
		})
	}
}

func TestRefusedWriteChangesNothing(t *testing.T) {
	c := webPool(t)
	before := c.View()
	addr := serve(t, c, Config{})
	ask(t, "POST", "http://"+addr+"/v1/pools", `{"name":"api","backends":[{"name":"a","url":"http://h"},{"name":"a","url":"http://i"}]}`)
	ask(t, "DELETE", "http://"+addr+"/v1/pools/idle?dry_run=1", "")
	ask(t, "PATCH", "http://"+addr+"/v1/pools/web", `{"strategy":"round_robin","wen_all_down":"fail_open"}`)
	if got := c.View(); got != before {
		t.Errorf("view: got index %d, want %d still", got.Index, before.Index)
	}
}

func TestWhenTheClusterCannotWrite(t *testing.T) {
	for _, test := range []struct {
		failure error
		status  int
		in      string
	}{
		{fmt.Errorf("%w: 1 of 3 voters is alive", cluster.ErrNoLeader), 503, "no leader: 1 of 3 voters is alive"},
		{fmt.Errorf("%w: gave up", cluster.ErrUnknownOutcome), 504, "the outcome is unknown: gave up"},
		{context.DeadlineExceeded, 504, "may have happened"},
		{fmt.Errorf("%w: lb2 runs v1", cluster.ErrHeldBack), 409, "lb2 runs v1"},
		{errTest, 500, "test failure"},
	} {
		c := webPool(t)
		addr := serve(t, c, Config{})
		c.change(func() { c.failure = test.failure })
		for _, path := range []string{"/v1/pools", "/v1/leave"} {
			got := ask(t, "POST", "http://"+addr+path, `{"name":"api"}`)
			if got.status != test.status {
				t.Errorf("%s when %v: got %d, want %d", path, test.failure, got.status, test.status)
			}
			if p := got.problem(t); !strings.Contains(p.Detail, test.in) {
				t.Errorf("detail: got %q, want %q in it", p.Detail, test.in)
			}
			if got, want := got.header.Get("Retry-After") != "", test.status == 503; got != want {
				t.Errorf("Retry-After present: got %v, want %v", got, want)
			}
		}
		if got := ask(t, "GET", "http://"+addr+"/v1/pools", ""); got.status != 200 {
			t.Errorf("reading when %v: got %d, want 200", test.failure, got.status)
		}
	}
}

func TestCreatedBackendCanBeFoundAndConditionallyChanged(t *testing.T) {
	addr := serve(t, webPool(t), Config{})
	created := ask(t, "POST", "http://"+addr+"/v1/pools/web/backends", `{"name":"web-2","protocol":"https","host":"WEB.example"}`)
	location := created.header.Get("Location")
	if want := "/v1/pools/web/backends/web-2"; location != want {
		t.Fatalf("Location: got %q, want %q", location, want)
	}
	var b Backend
	read := ask(t, "GET", "http://"+addr+location, "")
	if err := json.Unmarshal([]byte(read.body), &b); err != nil {
		t.Fatal(err)
	}
	if !regexp.MustCompile(`^[0-9a-f]{32}$`).MatchString(b.ID) {
		t.Errorf("id: got %q, want 32 hexadecimal digits", b.ID)
	}
	if want := "https://web.example:443"; b.URL != want {
		t.Errorf("url: got %q, want %q", b.URL, want)
	}
	if want := "2023-11-14T22:13:20.000Z"; b.Since != want {
		t.Errorf("since: got %q, want %q", b.Since, want)
	}
	tag := read.header.Get("ETag")
	if want := `"5"`; tag != want {
		t.Errorf("ETag: got %s, want %s", tag, want)
	}
	for _, want := range []int{http.StatusOK, http.StatusPreconditionFailed} { // the first change makes the tag stale
		if got := ask(t, "PATCH", "http://"+addr+location, `{"weight":2}`, "If-Match", tag); got.status != want {
			t.Errorf("conditional change: got %d, want %d", got.status, want)
		}
	}
}

func TestBackendShowsItsLastProbe(t *testing.T) {
	c := webPool(t)
	at := time.Date(2026, 1, 2, 3, 4, 5, 678e6, time.UTC)
	addr := serve(t, c, Config{})
	for _, test := range []struct{ url, want string }{
		{"http://10.0.0.1:80", "2026-01-02T03:04:05.678Z"},
		{"http://10.0.0.9:80", ""}, // where the backend was before
	} {
		c.change(func() {
			c.local = cluster.Local{Backends: map[string]cluster.LocalBackend{
				"b1": {Observation: &cluster.Observation{BackendID: "b1", URL: test.url, At: at}},
			}}
		})
		var b Backend
		if err := json.Unmarshal([]byte(ask(t, "GET", "http://"+addr+"/v1/pools/web/backends/web-1", "").body), &b); err != nil {
			t.Fatal(err)
		}
		if b.LastHealthCheck != test.want {
			t.Errorf("last_health_check after a probe of %s: got %q, want %q", test.url, b.LastHealthCheck, test.want)
		}
	}
}

func TestBackendShape(t *testing.T) {
	addr := serve(t, webPool(t), Config{})
	got := ask(t, "GET", "http://"+addr+"/v1/pools/web/backends/web-1?pretty", "").body
	want := `{"id":"b1","name":"web-1","protocol":"http","host":"10.0.0.1","port":80,"url":"http://10.0.0.1:80","weight":1,` +
		`"admin":"ready","health":"starting","healthy":false,"since":"2023-11-14T22:13:20.000Z","last_health_check":""}`
	if got := compact(t, []byte(got)); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// TestWhatIsReadCanBeWritten: a pool as GET gives it is taken by PATCH, which changes nothing,
// and by POST in place of the pool, which makes the same.
func TestWhatIsReadCanBeWritten(t *testing.T) {
	url := "http://" + serve(t, webPool(t), Config{})
	send := func(method, path, body string) (int, string) {
		got := ask(t, method, url+path, body)
		return got.status, got.body
	}
	full := `{"name":"full","strategy":"hash","hash_on":"cookie:session","sticky":{"cookie":"lb","drain":"move"},` +
		`"limits":{"connections":5,"pending":6,"failures":7,"open":"3s"},"outlier":{"consecutive":5,"time":"20s","max_share":10},` +
		`"timeouts":{"try":"1s","hedge":"200ms"},"health_check":{"status":"200","host":"h","headers":{"X-Probe":"1"},"port":81,"tls":"off","unhealthy_interval":"1s"},` +
		`"when_all_down":"fail_open","panic_threshold":30,"slow_start":"1m","proxy_protocol":"v2",` +
		`"backends":[{"name":"a","url":"http://h:81","weight":3},{"name":"b","url":"https://[2001:db8::1]","backup":true,"admin":"drain"}]}`
	if status, body := send("POST", "/v1/pools", full); status != 201 {
		t.Fatalf("got %d %s", status, body)
	}
	_, read := send("GET", "/v1/pools/full", "")
	if status, body := send("PATCH", "/v1/pools/full", read); status != 200 || body != read {
		t.Errorf("PATCH: got %d\n%s, want\n%s", status, body, read)
	}
	other := strings.Replace(read, `"weight":3`, `"weight":4`, 1)
	if status, body := send("PATCH", "/v1/pools/full", other); status != 422 || !strings.Contains(body, "one by one") {
		t.Errorf("PATCH of a backend: got %d %s, want it to be refused", status, body)
	}
	for _, name := range []string{"a", "b"} {
		path := "/v1/pools/full/backends/" + name
		_, read := send("GET", path, "")
		if status, body := send("PATCH", path, read); status != 200 || body != read {
			t.Errorf("PATCH of backend %s: got %d\n%s, want\n%s", name, status, body, read)
		}
	}
	if status, body := send("DELETE", "/v1/pools/full", ""); status != 204 {
		t.Fatalf("got %d %s", status, body)
	}
	if status, body := send("POST", "/v1/pools", read); status != 201 || ownless(body) != ownless(read) {
		t.Errorf("POST: got %d\n%s, want\n%s", status, body, read)
	}
}

// ownless leaves out what a new backend has of its own.
func ownless(pool string) string {
	return regexp.MustCompile(`"(id|since)":"[^"]*"`).ReplaceAllString(pool, "")
}
