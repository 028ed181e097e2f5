package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"lbnode/cluster/admin"
	"lbnode/state"
)

// A side-car that says all is well speaks for nobody where the server beside it takes no
// connection: the cluster finds the backend unhealthy, says why, and takes it back when the
// server is there.
func TestHealthyBesideADeadServerIsUnhealthy(t *testing.T) {
	t.Parallel()
	sidecar := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	t.Cleanup(sidecar.Close)
	addr := freeAddr(t)
	serve := func() *http.Server {
		listener, err := net.Listen("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "Hello from web-1") })}
		go server.Serve(listener)
		t.Cleanup(func() { server.Close() })
		return server
	}
	server := serve()
	nodes := newLBs(t, 3)
	startAll(nodes)
	whole(t, nodes)
	spec := admin.PoolSpec{Name: state.DefaultPool, Backends: []admin.BackendSpec{{Name: "web-1", URL: "http://" + addr}}}
	spec.HealthCheck = state.HealthCheck{Interval: state.Duration(probeEvery), Timeout: state.Duration(probeEvery), Port: sidecar.Listener.Addr().(*net.TCPAddr).Port}
	if _, err := nodes[0].client.CreatePool(t.Context(), spec); err != nil {
		t.Fatal(err)
	}
	whenAgreed(t, nodes, "web-1", "healthy", time.Now())
	client := &http.Client{Timeout: 5 * time.Second}
	if got, err := fetch(client, "http://"+nodes[0].http); got != "web-1" {
		t.Fatalf("got an answer of %q, %v, want one of web-1", got, err)
	}
	server.Close()
	whenAgreed(t, nodes, "web-1", "unhealthy", time.Now())
	_, port, _ := net.SplitHostPort(addr)
	why := fmt.Sprintf("traffic cannot connect to port %s: connection refused", port)
	for _, n := range nodes {
		if got := page(t, client, "http://"+n.admin+"/metrics"); !strings.Contains(got, `lbnode_backend_up{backend="web-1",pool="default"} 0`) {
			t.Errorf("%s: got no lbnode_backend_up of 0", n.name)
		}
		out, err := lbnode(t, "status -admin "+n.admin)
		if !strings.Contains(out, why) || !errors.Is(err, errDegraded) {
			t.Errorf("%s: status: got %v and %s\nwant it degraded, and %q", n.name, err, out, why)
		}
		if out = mustRun(t, "backend ls -admin "+n.admin); !strings.Contains(out, why) {
			t.Errorf("%s: backend ls: got %s\nwant %q", n.name, out, why)
		}
	}
	serve()
	whenAgreed(t, nodes, "web-1", "healthy", time.Now())
	eventually(t, patience, "all nodes send it requests", func() bool {
		return every(nodes, func(n *lb) bool { got, _ := fetch(client, "http://"+n.http); return got == "web-1" })
	})
}

func page(t *testing.T, client *http.Client, url string) string {
	t.Helper()
	response, err := client.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
