package admin

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"lbnode/cluster"
)

// TestOutcomeIsTold: what is not known must not read like a failure, and what has
// not happened must say so.
func TestOutcomeIsTold(t *testing.T) {
	for _, test := range []struct {
		failure error
		status  int
		unknown bool
		in      []string
	}{
		{fmt.Errorf("%w: 1 of 3 voters is alive", cluster.ErrNoLeader), 503, false,
			[]string{"the change has not happened", "1 of 3 voters is alive", "it may be repeated"}},
		{fmt.Errorf("%w: gave up after 1.9s", cluster.ErrUnknownOutcome), 504, true,
			[]string{"the change may have happened", "gave up after 1.9s", "lbnode backend ls", "same Idempotency-Key"}},
		{fmt.Errorf("%w: lb2 runs v1", cluster.ErrHeldBack), 409, false, []string{"cannot change the cluster", "lb2 runs v1", "upgrade"}},
		{fmt.Errorf("%w: lb3", cluster.ErrAlive), 409, false, []string{"the node is alive: lb3"}},
		{fmt.Errorf("%w: lb3", cluster.ErrNoMember), 404, false, []string{"there is no such member: lb3", "lbnode raft peers"}},
		{fmt.Errorf("%w: lb2 would not answer", cluster.ErrNeeded), 409, false, []string{"cannot do without this node", "lb2 would not answer"}},
	} {
		c := webPool(t)
		c.failure = test.failure
		_, err := NewClient(serve(t, c, Config{}), "").CreatePool(t.Context(), PoolSpec{Name: "api"})
		var p *Problem
		if !errors.As(err, &p) || p.Status != test.status {
			t.Fatalf("%v: got %#v, want a problem of status %d", test.failure, err, test.status)
		}
		if got := errors.Is(err, cluster.ErrUnknownOutcome); got != test.unknown {
			t.Errorf("%v: outcome unknown: got %v, want %v", test.failure, got, test.unknown)
		}
		for _, want := range test.in {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%v: got %q, want %q in it", test.failure, err, want)
			}
		}
		for _, word := range []string{"cannot", "fail", "Timeout"} {
			if test.unknown && strings.Contains(p.Title+p.Error(), word) {
				t.Errorf("%v: %q reads like a failure: %s, %s", test.failure, word, p.Title, p)
			}
		}
	}
}

// TestClientTellsUnknownFromNotSent: a write that reached the node may have
// happened although the connection broke; one that did not has not.
func TestClientTellsUnknownFromNotSent(t *testing.T) {
	handlers := map[string]http.HandlerFunc{
		"no answer": func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
		"half of an answer": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "9")
			w.Write([]byte("{"))
		},
	}
	for name, handler := range handlers {
		server := httptest.NewServer(handler)
		client := NewClient(server.URL, "")
		if _, err := client.CreatePool(t.Context(), PoolSpec{Name: "api"}); !errors.Is(err, cluster.ErrUnknownOutcome) {
			t.Errorf("%s to a write: got %v, want an unknown outcome", name, err)
		}
		if _, err := client.Pools(t.Context()); err == nil || errors.Is(err, cluster.ErrUnknownOutcome) {
			t.Errorf("%s to a read: got %v, want a plain error", name, err)
		}
		server.Close()
		if err := client.DeletePool(t.Context(), "api"); err == nil || errors.Is(err, cluster.ErrUnknownOutcome) {
			t.Errorf("server that is gone: got %v, want a plain error", err)
		}
	}
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		conn, err := silent.Accept()
		if err == nil {
			conn.Read(make([]byte, 1)) // the request has begun to come
			cancel()
			conn.Close()
		}
	}()
	err = NewClient(silent.Addr().String(), "").Leave(ctx)
	if !errors.Is(err, cluster.ErrUnknownOutcome) || !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled while waiting: got %v, want an unknown outcome, cancelled", err)
	}
}

func TestClientSendsAKeyWithEachWrite(t *testing.T) {
	var keys []string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		keys = append(keys, r.Header.Get(keyHeader))
		w.Write([]byte("{}"))
	}))
	defer server.Close()
	client := NewClient(server.URL, "")
	ctx := t.Context()
	client.Cluster(ctx)
	client.CreatePool(ctx, PoolSpec{})
	client.CreatePool(ctx, PoolSpec{})
	client.UpdateBackend(ctx, "p", "b", BackendSpec{})
	client.RemoveRoute(ctx, "", "/")
	client.Leave(ctx)
	if len(keys) != 6 || keys[0] != "" {
		t.Fatalf("got the keys %q, want none with the read and one with each of 5 writes", keys)
	}
	seen := map[string]bool{}
	for _, key := range keys[1:] {
		if key == "" || seen[key] {
			t.Errorf("got the key %q, want one of its own for each write", key)
		}
		seen[key] = true
	}
}
