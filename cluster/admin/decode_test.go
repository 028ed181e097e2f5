package admin

import (
	"strings"
	"testing"

	"lbnode/cluster"
	"lbnode/state"
)

func TestHostileBodies(t *testing.T) {
	addr := serve(t, webPool(t), Config{})
	pools, backends := "http://"+addr+"/v1/pools", "http://"+addr+"/v1/pools/web/backends"
	for _, test := range []struct {
		name, url, body string
		status          int
		field, in       string
	}{
		{"empty", pools, ` `, 400, "", "not valid JSON"},
		{"cut short", pools, `{"name":"a"`, 400, "", "at byte 11"},
		{"trailing garbage", pools, `{"name":"a"} x`, 400, "", "at byte 14"},
		{"two objects", pools, `{"name":"a"}{"name":"b"}`, 400, "", "not valid JSON"},
		{"byte order mark", pools, "\ufeff{}", 400, "", "not valid JSON"},
		{"null", pools, `null`, 400, "", "not a JSON object"},
		{"list", pools, `[]`, 400, "", "not a JSON object"},
		{"string", pools, `"web"`, 400, "", "not a JSON object"},
		{"deep", pools, strings.Repeat(`{"health_check":`, 20_000), 400, "", "not valid JSON"},
		{"deep list", pools, `{"backends":` + strings.Repeat("[", 9000) + strings.Repeat("]", 9000) + `}`, 422, "backends[0]", "must be an object"},

		{"unknown key", backends, `{"name":"a","wieght":2}`, 400, "wieght", `did you mean \"weight\"?`},
		{"unknown key like none", backends, `{"shoe_size":2}`, 400, "shoe_size", "known are name, url"},
		{"key in other case", backends, `{"Name":"a"}`, 400, "Name", `did you mean \"name\"?`},
		{"nested unknown key", pools, `{"name":"a","health_check":{"raise":2}}`, 400, "health_check.raise", `did you mean \"rise\"?`},
		{"unknown key in a list", pools, `{"name":"a","backends":[{"prot":1}]}`, 400, "backends[0].prot", `did you mean \"port\"?`},
		{"key twice", backends, `{"name":"a","name":"b"}`, 400, "name", "given twice"},
		{"key that is escaped", backends, `{"n\u0061me":"a","name":"b"}`, 400, "name", "given twice"},
		{"huge key", backends, `{"` + strings.Repeat("k", 100_000) + `":1}`, 400, strings.Repeat("k", 64) + "…", "unknown key"},
		{"not the operator's", backends, `{"name":"a","health":"healthy"}`, 422, "health", "belongs to the cluster"},
		{"id", backends, `{"name":"a","id":"x"}`, 422, "id", "belongs to the cluster"},

		{"null name", backends, `{"name":null}`, 422, "name", "must not be null"},
		{"empty name", backends, `{"name":""}`, 422, "name", `must not be \"\"`},
		{"zero weight", backends, `{"name":"a","weight":0}`, 422, "weight", "must not be 0; to stop traffic set admin to drain or maint"},
		{"null weight", backends, `{"name":"a","weight":null}`, 422, "weight", "must not be null; to stop traffic set admin to drain or maint"},
		{"zero limit", pools, `{"name":"a","limits":{"connections":0}}`, 422, "limits.connections", "must not be 0; to take it away give -1"},
		{"null limit", pools, `{"name":"a","limits":{"open":null}}`, 422, "limits.open", `must not be null; to take it away give \"none\"`},
		{"empty host of a check", pools, `{"name":"a","health_check":{"host":""}}`, 422, "health_check.host", `to take it away give \"none\"`},
		{"zero in disguise", backends, `{"name":"a","weight":-0}`, 422, "weight", "must not be -0"},
		{"zero duration", pools, `{"name":"a","timeouts":{"connect":"0s"}}`, 422, "timeouts.connect", "must not be"},
		{"null object", pools, `{"name":"a","timeouts":null}`, 422, "timeouts", "must not be null"},
		{"weight as text", backends, `{"name":"a","weight":"2"}`, 422, "weight", "must be an integer"},
		{"broken weight", backends, `{"name":"a","weight":1.5}`, 422, "weight", "must be an integer"},
		{"huge weight", backends, `{"name":"a","weight":1e99}`, 422, "weight", "must be an integer"},
		{"negative weight", backends, `{"name":"a","url":"http://h","weight":-1}`, 422, "weight", "1 to 256"},
		{"name as number", backends, `{"name":7}`, 422, "name", "must be a string"},
		{"name as object", backends, `{"name":{}}`, 422, "name", "must be a string"},
		{"object as text", pools, `{"name":"a","health_check":"tcp"}`, 422, "health_check", "must be an object"},
		{"list as object", pools, `{"name":"a","backends":{}}`, 422, "backends", "must be a list"},
		{"list as headers", pools, `{"name":"a","health_check":{"headers":["X"]}}`, 422, "health_check.headers", "must be an object whose values are strings"},
		{"number as header", pools, `{"name":"a","health_check":{"headers":{"X":1}}}`, 422, "health_check.headers", "must be an object whose values are strings"},
		{"status as number", pools, `{"name":"a","health_check":{"status":200}}`, 422, "health_check.status", "must be a string"},
		{"reason", backends, `{"name":"a","reason":"x"}`, 422, "reason", "belongs to the cluster"},
		{"null in a list", pools, `{"name":"a","backends":[null]}`, 422, "backends[0]", "must not be null"},
		{"duration as number", pools, `{"name":"a","timeouts":{"connect":3}}`, 422, "timeouts.connect", "must be a duration"},
		{"no duration", pools, `{"name":"a","timeouts":{"connect":"3 parsecs"}}`, 422, "timeouts.connect", "is not a duration"},
		{"negative duration", pools, `{"name":"a","timeouts":{"connect":"-3s"}}`, 422, "timeouts.connect", "1ms"},
		{"name with escapes", backends, `{"name":"a\u0000\u001b[2J","url":"http://h"}`, 422, "name", "must be 1 to 63"},
		{"name that is not UTF-8", backends, "{\"name\":\"\xff\",\"url\":\"http://h\"}", 422, "name", "must be 1 to 63"},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := ask(t, "POST", test.url, test.body)
			if got.status != test.status {
				t.Fatalf("status: got %d, want %d (body %s)", got.status, test.status, got.body)
			}
			if p := got.problem(t); p.Field != test.field {
				t.Errorf("field: got %q, want %q (%s)", p.Field, test.field, p.Detail)
			}
			if !strings.Contains(got.body, test.in) {
				t.Errorf("got %s, want %s in it", got.body, test.in)
			}
			if len(got.body) > 1024 {
				t.Errorf("answer of %d bytes repeats too much of the request", len(got.body))
			}
		})
	}
}

func TestBodySize(t *testing.T) {
	addr := serve(t, webPool(t), Config{})
	body := `{"name":"api"}`
	for _, test := range []struct{ size, want int }{{maxBody, 201}, {maxBody + 1, 413}} {
		padded := body + strings.Repeat(" ", test.size-len(body))
		if got := ask(t, "POST", "http://"+addr+"/v1/pools", padded); got.status != test.want {
			t.Errorf("body of %d bytes: got %d, want %d", test.size, got.status, test.want)
		}
	}
}

func TestContentType(t *testing.T) {
	for _, test := range []struct {
		method, kind string
		want         int
	}{
		{"POST", "application/json", 201},
		{"POST", "application/json; charset=utf-8", 201},
		{"POST", "application/merge-patch+json", 415},
		{"POST", "application/x-www-form-urlencoded", 415},
		{"POST", "text/plain", 415},
		{"POST", "", 415},
		{"PATCH", "application/merge-patch+json", 405},
	} {
		addr := serve(t, webPool(t), Config{})
		if got := ask(t, test.method, "http://"+addr+"/v1/pools", `{"name":"api"}`, "Content-Type", test.kind); got.status != test.want {
			t.Errorf("%s with %q: got %d, want %d", test.method, test.kind, got.status, test.want)
		}
	}
}

func TestBackendURL(t *testing.T) {
	for _, test := range []struct {
		url  string
		want string // "" when it must be refused
	}{
		{"http://10.0.0.1:8080", "http://10.0.0.1:8080"},
		{"http://10.0.0.1", "http://10.0.0.1:80"},
		{"https://web.example", "https://web.example:443"},
		{"HTTP://WEB.Example:1/", "http://web.example:1"},
		{"http://[::1]:80", "http://[::1]:80"},
		{"http://[0:0:0:0:0:0:0:1]", "http://[::1]:80"},
		{"http://h:65535", "http://h:65535"},
		{"http://h:65536", ""},
		{"http://h:0", ""},
		{"http://h:", ""},
		{"http://h:-1", ""},
		{"http://h:80x", ""},
		{"http://h:99999999999999999999", ""},
		{"http://:80", ""},
		{"http://", ""},
		{"http:/h", ""},
		{"http:h", ""},
		{"//h", ""},
		{"h:80", ""},
		{"10.0.0.1:80", ""},
		{"ftp://h", ""},
		{"http://u@h", ""},
		{"http://u:p@h", ""},
		{"http://@h", ""},
		{"http://h/path", ""},
		{"http://h//", ""},
		{"http://h?", ""},
		{"http://h?q=1", ""},
		{"http://h#", ""},
		{"http://h#f", ""},
		{" http://h", ""},
		{"http://h h", ""},
		{"http://h\r\nX: y", ""},
		{"http://h%0d%0a", ""},
		{"http://[fe80::1%25eth0]", ""},
		{"http://[::1", ""},
		{"http://::1", ""},
		{"http://\x00", ""},
	} {
		c := newFakeCluster()
		b, failure := BackendSpec{Name: "a", URL: test.url}.Backend()
		got := ""
		if failure == nil {
			result, err := c.Propose(t.Context(), cluster.Write{Op: &state.AddBackend{Pool: "default", Backend: b}})
			if err != nil {
				t.Fatal(err)
			}
			if result.Err == nil {
				got = c.View().Pool("default").Backend("a").URL()
			}
		}
		if got != test.want {
			t.Errorf("%q: got %q, want %q (%v)", test.url, got, test.want, failure)
		}
	}
}

func TestBackendAddressGivenTwice(t *testing.T) {
	for _, spec := range []BackendSpec{
		{URL: "http://h", Host: "g"},
		{URL: "http://h", Port: 81},
		{URL: "http://h", Protocol: "https"},
	} {
		if _, err := spec.patch(); err == nil || err.Field != "url" {
			t.Errorf("%+v: got %v, want an error in url", spec, err)
		}
	}
	if got, err := (BackendSpec{URL: "http://[2001:DB8::1]", Protocol: "http", Host: "2001:db8::1", Port: 80}).patch(); err != nil || got.Host != "2001:db8::1" {
		t.Errorf("got %+v, %v, want what says the same to be taken", got, err)
	}
}

func TestPasswordIsNotRepeated(t *testing.T) {
	for _, url := range []string{"http://user:hunter2@h", "http://user:hunter2@h:bad", "ftp://user:hunter2@h"} {
		_, err := BackendSpec{Name: "a", URL: url}.Backend()
		if err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("got %v, want an error without the password", err)
		}
	}
}
