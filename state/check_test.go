package state

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestCheckFields(t *testing.T) {
	valid := Pool{Name: "web"}.withDefaults()
	checkFields(t, valid, (*Pool).validate, []fieldCase[Pool]{
		{"grpc check", "", func(p *Pool) { p.HealthCheck.Type, p.HealthCheck.Service = "grpc", "shop.v1.Cart" }},
		{"space in service", "health_check.service", func(p *Pool) { p.HealthCheck.Service = "a b" }},
		{"service of 256", "health_check.service", func(p *Pool) { p.HealthCheck.Service = strings.Repeat("s", 256) }},
		{"agent check", "", func(p *Pool) { p.HealthCheck.Type, p.HealthCheck.Port = "agent", 8081 }},
		{"agent check without a port", "health_check.port", func(p *Pool) { p.HealthCheck.Type = "agent" }},
		{"HEAD", "", func(p *Pool) { p.HealthCheck.Method = "HEAD" }},
		{"lower case method", "health_check.method", func(p *Pool) { p.HealthCheck.Method = "head" }},
		{"CONNECT", "health_check.method", func(p *Pool) { p.HealthCheck.Method = "CONNECT" }},
		{"host", "", func(p *Pool) { p.HealthCheck.Host = "www.example.com" }},
		{"IPv6 host", "", func(p *Pool) { p.HealthCheck.Host = "2001:db8::1" }},
		{"host with a port", "health_check.host", func(p *Pool) { p.HealthCheck.Host = "www.example.com:80" }},
		{"CRLF in host", "health_check.host", func(p *Pool) { p.HealthCheck.Host = "a\r\nX: y" }},
		{"one status", "", func(p *Pool) { p.HealthCheck.Status = "204" }},
		{"statuses and ranges", "", func(p *Pool) { p.HealthCheck.Status = "200-299,401,500-599" }},
		{"status by class", "health_check.status", func(p *Pool) { p.HealthCheck.Status = "2xx" }},
		{"status 600", "health_check.status", func(p *Pool) { p.HealthCheck.Status = "600" }},
		{"status +200", "health_check.status", func(p *Pool) { p.HealthCheck.Status = "+20" }},
		{"range backwards", "health_check.status", func(p *Pool) { p.HealthCheck.Status = "299-200" }},
		{"space between statuses", "health_check.status", func(p *Pool) { p.HealthCheck.Status = "200, 204" }},
		{"comma at the end", "health_check.status", func(p *Pool) { p.HealthCheck.Status = "200," }},
		{"endless statuses", "health_check.status", func(p *Pool) { p.HealthCheck.Status = "200" + strings.Repeat(",200", 100) }},
		{"body", "", func(p *Pool) { p.HealthCheck.Body = "status: \"ok\"\n" }},
		{"body of 1025", "health_check.body", func(p *Pool) { p.HealthCheck.Body = strings.Repeat("b", 1025) }},
		{"body of HEAD", "health_check.body", func(p *Pool) { p.HealthCheck.Body, p.HealthCheck.Method = "ok", "HEAD" }},
		{"TLS", "", func(p *Pool) { p.HealthCheck.TLS = "insecure" }},
		{"unknown TLS", "health_check.tls", func(p *Pool) { p.HealthCheck.TLS = "yes" }},
		{"port", "", func(p *Pool) { p.HealthCheck.Port = 65535 }},
		{"port 65536", "health_check.port", func(p *Pool) { p.HealthCheck.Port = 65536 }},
		{"port -2", "health_check.port", func(p *Pool) { p.HealthCheck.Port = -2 }},
		{"unhealthy interval", "", func(p *Pool) { p.HealthCheck.UnhealthyInterval = seconds(1) }},
		{"long unhealthy interval", "", func(p *Pool) { p.HealthCheck.UnhealthyInterval = seconds(60) }},
		{"unhealthy interval 9ms", "health_check.unhealthy_interval", func(p *Pool) { p.HealthCheck.UnhealthyInterval = Duration(9 * time.Millisecond) }},
		{"unhealthy interval over a day", "health_check.unhealthy_interval", func(p *Pool) { p.HealthCheck.UnhealthyInterval = seconds(86401) }},
		{"timeout above unhealthy interval", "", func(p *Pool) { p.HealthCheck.UnhealthyInterval = seconds(1) - 1 }},
		{"header", "", func(p *Pool) { p.HealthCheck.Headers = map[string]string{"X-Probe": "1 2"} }},
		{"header name", "health_check.headers", func(p *Pool) { p.HealthCheck.Headers = map[string]string{"X Probe": "1"} }},
		{"no header name", "health_check.headers", func(p *Pool) { p.HealthCheck.Headers = map[string]string{"": "1"} }},
		{"CRLF in header", "health_check.headers", func(p *Pool) { p.HealthCheck.Headers = map[string]string{"X-Probe": "1\r\nY: 2"} }},
		{"space around header", "health_check.headers", func(p *Pool) { p.HealthCheck.Headers = map[string]string{"X-Probe": " 1"} }},
		{"Host as header", "health_check.headers", func(p *Pool) { p.HealthCheck.Headers = map[string]string{"Host": "h"} }},
		{"framing as header", "health_check.headers", func(p *Pool) { p.HealthCheck.Headers = map[string]string{"Transfer-Encoding": "chunked"} }},
		{"17 headers", "health_check.headers", func(p *Pool) {
			p.HealthCheck.Headers = map[string]string{}
			for i := range 17 {
				p.HealthCheck.Headers[fmt.Sprintf("X-%d", i)] = "1"
			}
		}},
	})
}

func TestAccepts(t *testing.T) {
	for status, want := range map[string]string{
		"":            "200 204 302 399",
		"204":         "204",
		"200-299,401": "200 204 401",
		"500-599":     "500",
	} {
		got := []string{}
		for _, code := range []int{199, 200, 204, 302, 399, 400, 401, 500} {
			if (&HealthCheck{Status: status}).Accepts(code) {
				got = append(got, fmt.Sprint(code))
			}
		}
		if got := strings.Join(got, " "); got != want {
			t.Errorf("%q: got %s, want %s", status, got, want)
		}
	}
}

// All that a check can say can be given, stays, and can be taken away again.
func TestCheckIsChangedAndChangedBack(t *testing.T) {
	r := newFixture(t)
	update := func(h HealthCheck) HealthCheck {
		t.Helper()
		r.do(t, &UpdatePool{Pool: Pool{Name: "web", Settings: Settings{HealthCheck: h}}})
		return r.View().Pool("web").HealthCheck
	}
	full := HealthCheck{
		UnhealthyInterval: seconds(1), Method: "POST", Host: "WWW.example.com", Status: "200", Body: "ok", TLS: "on",
		Port: 8081, Service: "s", Headers: map[string]string{"x-probe": "1", "Accept": "text/plain"},
	}
	want := DefaultHealthCheck()
	want.UnhealthyInterval, want.Method, want.Host, want.Status, want.Body = seconds(1), "POST", "www.example.com", "200", "ok"
	want.TLS, want.Port, want.Service = "on", 8081, "s"
	want.Headers = map[string]string{"X-Probe": "1", "Accept": "text/plain"}
	if got := update(full); !got.Equal(want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if got := update(HealthCheck{}); !got.Equal(want) {
		t.Errorf("after a change that names nothing: got %+v, want %+v", got, want)
	}
	before := r.View().Pool("web")
	want.Headers = map[string]string{"X-Probe": "2"}
	if got := update(HealthCheck{Headers: map[string]string{"X-PROBE": "2", "accept": ""}}); !got.Equal(want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if got := len(before.HealthCheck.Headers); got != 2 {
		t.Errorf("got %d headers in the view before, want the 2 it had", got)
	}
	none := HealthCheck{
		UnhealthyInterval: seconds(2), Method: "GET", Host: "none", Status: "200-399", Body: "none", TLS: "auto",
		Port: NoLimit, Service: "none", Headers: map[string]string{"X-Probe": ""},
	}
	if got := update(none); !reflect.DeepEqual(got, DefaultHealthCheck()) {
		t.Errorf("got %+v, want the default", got)
	}
	if got := r.View().version(); got != 1 {
		t.Errorf("got version %d when all is as it was, want 1", got)
	}
}
