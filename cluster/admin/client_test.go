package admin

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"lbnode/state"
)

func TestClientRoundTrip(t *testing.T) {
	c := newFakeCluster()
	client := NewClient(serve(t, c, Config{Token: "s3cret"}), "s3cret")
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	ctx := t.Context()

	pool, err := client.CreatePool(ctx, PoolSpec{
		Name:     "web",
		Settings: state.Settings{HealthCheck: state.HealthCheck{Path: "/healthz", Interval: state.Duration(time.Second)}},
		Backends: []BackendSpec{{Name: "web-1", URL: "http://10.0.0.1:80"}},
	})
	must(err)
	want := state.DefaultHealthCheck()
	want.Path, want.Interval = "/healthz", state.Duration(time.Second)
	if !state.HealthCheck(pool.HealthCheck).Equal(want) {
		t.Errorf("health check: got %+v, want %+v", pool.HealthCheck, want)
	}
	pool, err = client.UpdatePool(ctx, "web", PoolSpec{Settings: state.Settings{WhenAllDown: state.FailOpen}})
	must(err)
	if pool.WhenAllDown != state.FailOpen || !state.HealthCheck(pool.HealthCheck).Equal(want) {
		t.Errorf("changed pool: got %+v, want only when_all_down changed", pool)
	}
	check := state.HealthCheck{
		Type: "http", Method: "HEAD", Host: "www.example.com", Status: "200-299,401", TLS: "insecure", Port: 8081,
		UnhealthyInterval: state.Duration(2 * time.Second), Headers: map[string]string{"x-probe": "1"},
	}
	pool, err = client.UpdatePool(ctx, "web", PoolSpec{Settings: state.Settings{HealthCheck: check}})
	must(err)
	want.Method, want.Host, want.Status, want.TLS, want.Port = "HEAD", "www.example.com", "200-299,401", "insecure", 8081
	want.UnhealthyInterval, want.Headers = state.Duration(2*time.Second), map[string]string{"X-Probe": "1"}
	if !state.HealthCheck(pool.HealthCheck).Equal(want) {
		t.Errorf("changed check: got %+v, want %+v", pool.HealthCheck, want)
	}

	b, err := client.AddBackend(ctx, "web", BackendSpec{Name: "web-2", Host: "10.0.0.2", Port: 81, Weight: 3})
	must(err)
	b, _, err = client.UpdateBackend(ctx, "web", "web-2", BackendSpec{Admin: state.Maint})
	must(err)
	if b.Weight != 3 || b.Admin != state.Maint || b.URL != "http://10.0.0.2:81" || b.Health != state.Starting {
		t.Errorf("backend: got %+v", b)
	}
	must(client.RemoveBackend(ctx, "web", "web-1"))
	backends, err := client.Backends(ctx, "web")
	must(err)
	if !slices.Equal(backends, []Backend{*b}) {
		t.Errorf("backends: got %+v, want only %+v", backends, *b)
	}

	route, err := client.PutRoute(ctx, Route{Host: "a.example", Path: "/x=&y", Pool: "web"})
	must(err)
	routes, err := client.Routes(ctx)
	must(err)
	if !slices.Equal(routes, []Route{*route}) {
		t.Errorf("routes: got %+v, want %+v", routes, *route)
	}
	must(client.RemoveRoute(ctx, route.Host, route.Path))
	must(client.DeletePool(ctx, "web"))
	pools, err := client.Pools(ctx)
	must(err)
	if len(pools) != 0 {
		t.Errorf("pools: got %+v, want none", pools)
	}

	view, err := client.Cluster(ctx)
	must(err)
	if view.Leader != "lb1" || !view.Healthy {
		t.Errorf("cluster: got %+v", view)
	}
	must(client.Leave(ctx))
	if c.left != 1 {
		t.Errorf("left %d times, want 1", c.left)
	}
}

func TestClientErrorsCarryTheProblem(t *testing.T) {
	addr := serve(t, webPool(t), Config{})
	client := NewClient(addr, "")
	_, err := client.AddBackend(t.Context(), "web", BackendSpec{Name: "web-2"})
	var p *Problem
	if !errors.As(err, &p) || p.Status != 422 || p.Field != "url" {
		t.Fatalf("got %#v, want a problem with url", err)
	}
	if want := "url: is missing; give a url such as http://10.0.0.11:8080, or host and port"; err.Error() != want {
		t.Errorf("got  %q\nwant %q", err, want)
	}
	if err := client.RemoveBackend(t.Context(), "a/b", "../c?"); err == nil || err.Error() != `there is no pool "a/b"` {
		t.Errorf("odd names: got %v", err)
	}
	_, err = NewClient(serve(t, webPool(t), Config{Token: "x"}), "y").Pools(t.Context())
	if err == nil || !strings.Contains(err.Error(), "LBNODE_ADMIN_TOKEN_FILE") {
		t.Errorf("wrong token: got %v, want a hint", err)
	}
}

func TestClientCannotReach(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed := l.Addr().String()
	l.Close()
	_, err = NewClient(closed, "").Cluster(t.Context())
	want := "cannot reach lbnode at " + closed + ": connection refused; is the node running? set -admin or LBNODE_ADMIN"
	if err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := NewClient(closed, "").Cluster(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: got %v, want it to wrap context.Canceled", err)
	}
	for _, addr := range []string{"a b", "[::1", "%zz", "h:port", "\x00"} {
		if _, err := NewClient(addr, "").Cluster(t.Context()); err == nil || strings.ContainsAny(err.Error(), "\n\x00") {
			t.Errorf("address %q: got %v, want an error of one line", addr, err)
		}
	}
}

func TestClientOfSomethingElse(t *testing.T) {
	for _, test := range []struct {
		name    string
		handler http.HandlerFunc
		in      string
	}{
		{"another server", http.NotFound, "404 Not Found, not as lbnode does"},
		{"redirect", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/elsewhere", 302) }, "302 Found, not as lbnode does"},
		{"page", func(w http.ResponseWriter, r *http.Request) { w.Write([]byte("<html>")) }, "cannot read the answer"},
		{"empty problem", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/problem+json")
			w.WriteHeader(500)
			w.Write([]byte("{}"))
		}, "500 Internal Server Error"},
	} {
		server := httptest.NewServer(test.handler)
		_, err := NewClient(server.URL, "").Cluster(t.Context())
		server.Close()
		if err == nil || !strings.Contains(err.Error(), test.in) {
			t.Errorf("%s: got %v, want %q in it", test.name, err, test.in)
		}
	}
}

func TestCompleteAddr(t *testing.T) {
	for _, test := range []struct{ addr, want string }{
		{"127.0.0.1:8404", "127.0.0.1:8404"},
		{":8405", "127.0.0.1:8405"},
		{"lb1", "lb1:8404"},
		{"::1", "[::1]:8404"},
		{"[::1]", "[::1]:8404"},
		{"[::1]:9", "[::1]:9"},
		{"http://lb1:9/", "lb1:9"},
		{"", "127.0.0.1:8404"},
	} {
		if got := completeAddr(test.addr); got != test.want {
			t.Errorf("%q: got %q, want %q", test.addr, got, test.want)
		}
	}
}
