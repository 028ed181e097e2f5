package admin

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
)

func TestRepeatedWriteTakesEffectOnce(t *testing.T) {
	const backend = `{"name":"web-2","url":"http://10.0.0.2:8080"}`
	for _, test := range []struct {
		name, method, path, body string
		first, again             int // with the key; again, without one
	}{
		{"create pool", "POST", "/v1/pools", `{"name":"api","backends":[` + backend + `]}`, 201, 409},
		{"change pool", "PATCH", "/v1/pools/web", `{"when_all_down":"fail_open"}`, 200, 200},
		{"delete pool", "DELETE", "/v1/pools/idle", "", 204, 404},
		{"add backend", "POST", "/v1/pools/web/backends", backend, 201, 409},
		{"change backend", "PATCH", "/v1/pools/web/backends/web-1", `{"weight":3}`, 200, 200},
		{"remove backend", "DELETE", "/v1/pools/web/backends/web-1", "", 204, 404},
		{"move route", "POST", "/v1/routes", `{"path":"/","pool":"idle"}`, 200, 200},
		{"remove route", "DELETE", "/v1/routes?path=/", "", 204, 404},
		{"what fails", "POST", "/v1/pools", `{"name":"web"}`, 409, 409},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := webPool(t)
			addr := serve(t, c, Config{})
			send := func(headers ...string) answer {
				return ask(t, test.method, "http://"+addr+test.path, test.body, headers...)
			}
			first := send(keyHeader, "k 1")
			view := c.View()
			again := send(keyHeader, "k 1")
			if first.status != test.first || again.status != test.first {
				t.Errorf("statuses: got %d and %d, want %d twice", first.status, again.status, test.first)
			}
			if again.body != first.body || again.header.Get("Location") != first.header.Get("Location") {
				t.Errorf("repeated: got %s\nwant %s", again.body, first.body)
			}
			if c.View() != view {
				t.Error("the repetition changed the view")
			}
			if got := send(); got.status != test.again {
				t.Errorf("without a key: got %d, want %d", got.status, test.again)
			}
		})
	}
}

func TestRepeatedWriteAfterItsEffectHasGone(t *testing.T) {
	addr := serve(t, webPool(t), Config{})
	create := func() answer { return ask(t, "POST", "http://"+addr+"/v1/pools", `{"name":"api"}`, keyHeader, "k") }
	create()
	ask(t, "DELETE", "http://"+addr+"/v1/pools/api", "")
	if got := create(); got.status != 404 {
		t.Errorf("got %d %s, want 404: it was made, and is gone", got.status, got.body)
	}
}

// TestRequestIDDependsOnEveryPart: one key on two requests that differ anywhere,
// even only in where one part ends, is two.
func TestRequestIDDependsOnEveryPart(t *testing.T) {
	type request struct{ key, method, path, match, body string }
	base := request{"k1", "PATCH", "/v1/pools/web?pretty", `"4"`, `{"when_all_down":"reject"}`}
	id := func(r request) string {
		t.Helper()
		req, err := http.NewRequest(r.method, "http://lb1:8404"+r.path, strings.NewReader(r.body))
		if err != nil {
			t.Fatal(err)
		}
		if r.key != "" {
			req.Header.Set(keyHeader, r.key)
		}
		if r.match != "" {
			req.Header.Set("If-Match", r.match)
		}
		id, err := requestID(req)
		if err != nil {
			t.Fatal(err)
		}
		return id
	}
	if got, want := id(base), id(base); got != want || len(got) != 32 {
		t.Errorf("one request twice: got the ids %q and %q, want one of 32 digits", got, want)
	}
	keyless := base
	keyless.key = ""
	if got := id(keyless); got != "" {
		t.Errorf("without a key: got %q, want none", got)
	}
	seen := map[string]request{}
	for _, r := range []request{
		base,
		{"k2", base.method, base.path, base.match, base.body},
		{base.key, "POST", base.path, base.match, base.body},
		{base.key, base.method, "/v1/pools/web", base.match, base.body},
		{base.key, base.method, "/v1/pools/we%62?pretty", base.match, base.body},
		{base.key, base.method, base.path, `"5"`, base.body},
		{base.key, base.method, base.path, "", base.body},
		{base.key, base.method, base.path, base.match, base.body + " "},
		{base.key, base.method, base.path, base.match, ""},
		{base.key, base.method, base.path, "", base.match + base.body},
		{base.key + base.method, "", base.path, base.match, base.body},
	} {
		if before, ok := seen[id(r)]; ok {
			t.Errorf("%+v and %+v have one id", before, r)
		}
		seen[id(r)] = r
	}
}

func TestBadKeys(t *testing.T) {
	c := webPool(t)
	before := c.View()
	addr := serve(t, c, Config{})
	for _, key := range []string{"", "ключ", "a\tb", strings.Repeat("k", 256)} {
		for _, write := range [][2]string{{"POST", "/v1/pools"}, {"PATCH", "/v1/pools/web"}, {"DELETE", "/v1/pools/idle"}, {"DELETE", "/v1/routes?path=/"}, {"POST", "/v1/leave"}, {"DELETE", "/v1/raft/peers/lb3"}} {
			got := ask(t, write[0], "http://"+addr+write[1], `{"name":"api"}`, keyHeader, key)
			if got.status != 400 {
				t.Errorf("%s %s with the key %q: got %d, want 400", write[0], write[1], key, got.status)
				continue
			}
			if p := got.problem(t); p.Field != keyHeader {
				t.Errorf("field: got %q, want %q", p.Field, keyHeader)
			}
		}
	}
	if c.View() != before || c.left != 0 {
		t.Error("a write with a bad key has happened")
	}
	if got := ask(t, "POST", "http://"+addr+"/v1/pools", `{"name":"api"}`, keyHeader, strings.Repeat("~", 255)); got.status != 201 {
		t.Errorf("longest key: got %d, want 201", got.status)
	}
	for _, keys := range [][]string{{"a", "b"}, {"k\x7f"}, {"k\n"}} {
		if _, err := requestID(&http.Request{Header: http.Header{keyHeader: keys}}); err == nil {
			t.Errorf("keys %q: got no error", keys)
		}
	}
}

func TestRepeatedBackendKeepsItsID(t *testing.T) {
	addr := serve(t, webPool(t), Config{})
	var ids []string
	for range 2 {
		var b Backend
		got := ask(t, "POST", "http://"+addr+"/v1/pools/web/backends", `{"name":"web-2","url":"http://h"}`, keyHeader, "k")
		if err := json.Unmarshal([]byte(got.body), &b); err != nil || b.ID == "" {
			t.Fatalf("got %d %s, want a backend", got.status, got.body)
		}
		ids = append(ids, b.ID)
	}
	if ids[0] != ids[1] {
		t.Errorf("got the ids %v, want one", ids)
	}
}
