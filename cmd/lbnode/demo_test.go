package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// transcript is output that is read while it is written.
type transcript struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (o *transcript) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

func (o *transcript) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

func (o *transcript) say(format string, args ...any) { fmt.Fprintf(o, format+"\n", args...) }

func (o *transcript) waitFor(t *testing.T, within time.Duration, text string) {
	t.Helper()
	eventually(t, within, text+" in the output", func() bool { return strings.Contains(o.String(), text) })
}

// shortTempDir is a directory whose name leaves room for a socket's.
func shortTempDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "demo")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// freeDemo is the plan of the demo on other ports.
func freeDemo(t *testing.T) demoPlan {
	plan := standardDemo()
	for i := range plan.nodes {
		n := &plan.nodes[i]
		n.gossip, n.raft, n.admin, n.traffic = freePort(t), freePort(t), freePort(t), freePort(t)
	}
	for i := range plan.backends {
		plan.backends[i].port = freePort(t)
	}
	return plan
}

func TestDemo(t *testing.T) {
	t.Setenv(runMain, "1") // for the demo's processes
	plan, dir, out := freeDemo(t), filepath.Join(shortTempDir(t), "demo"), &transcript{}
	defer func() {
		if t.Failed() {
			t.Logf("the demo printed:\n%s", out)
		}
	}()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- newDemo(plan, dir, os.Args[:1], out).run(ctx) }()
	defer func() { // after a failure too, nothing may stay behind
		cancel()
		<-ended
	}()
	out.waitFor(t, 30*time.Second, "ready: 3 nodes agree, 3 backends are healthy")
	wantThreeBackends(t, plan.nodes[0].traffic)
	if err := newDemo(plan, dir, os.Args[:1], io.Discard).run(ctx); err == nil || !strings.Contains(err.Error(), "one is running already") {
		t.Errorf("a second demo: got error %v, want that one is running already", err)
	}

	request(t, dir, "kill", "web-2")
	request(t, dir, "kill", "lb1")
	out.waitFor(t, 30*time.Second, "backend web-2 is unhealthy: connection refused")
	out.waitFor(t, 30*time.Second, "node lb1 is lost (failed)")
	request(t, dir, "start", "web-2")
	request(t, dir, "start", "lb1")
	out.waitFor(t, 30*time.Second, "backend web-2 is healthy")
	out.waitFor(t, 30*time.Second, "node lb1 is back")

	cancel()
	err := <-ended
	ended <- nil
	if err != nil {
		t.Errorf("got error %v when it was stopped, want none", err)
	}
	if err := plan.checkPorts(); err != nil {
		t.Errorf("something is left: %v", err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the demo's directory is left (%v)", err)
	}
}

// broken is output that takes one line.
type broken struct{ lines int }

func (b *broken) Write(p []byte) (int, error) {
	if b.lines++; b.lines > 1 {
		return 0, io.ErrClosedPipe
	}
	return len(p), nil
}

// A demo whose output nobody reads any more stops, and leaves nothing.
func TestDemoEndsUnheard(t *testing.T) {
	t.Setenv(runMain, "1") // for the demo's processes
	plan, dir := freeDemo(t), filepath.Join(shortTempDir(t), "demo")
	if err := newDemo(plan, dir, os.Args[:1], &broken{}).run(t.Context()); err != nil {
		t.Errorf("got error %v, want none", err)
	}
	if err := plan.checkPorts(); err != nil {
		t.Errorf("something is left: %v", err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the demo's directory is left (%v)", err)
	}
}

func request(t *testing.T, dir, verb, name string) {
	t.Helper()
	if err := (demoCommand{verb, name}).send(dir, io.Discard); err != nil {
		t.Error(err)
	}
}

func wantThreeBackends(t *testing.T, port int) {
	t.Helper()
	seen := make(map[string]bool)
	for range 3 {
		resp, err := http.Get("http://" + onLoopback(port) + "/")
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil {
			t.Fatal(err)
		}
		greeting, _, _ := strings.Cut(string(body), "\n")
		seen[greeting] = true
	}
	if len(seen) != 3 {
		t.Errorf("three requests met %v, want three backends", seen)
	}
}

func TestDemoFailsWhenAProcessStops(t *testing.T) {
	t.Setenv(runMain, "1")
	plan, dir, out := freeDemo(t), filepath.Join(shortTempDir(t), "demo"), &transcript{}
	plan.nodes[1].admin = 1 << 17 // no node accepts that
	d := newDemo(plan, dir, os.Args[:1], out)
	defer d.crew.close()
	err := d.runCrew(t.Context())
	if err == nil || !strings.Contains(err.Error(), "lb2 has stopped") {
		t.Errorf("got error %v, want that lb2 has stopped", err)
	}
	if !strings.Contains(out.String(), "lb2 has stopped by itself (exit status 1)") {
		t.Errorf("got output %q, want the end of lb2 in it", out)
	}
}

func TestDemoUsage(t *testing.T) {
	for _, args := range [][]string{
		{"-x"}, {"word"}, {"-kill"}, {"-kill", "lb1", "-start", "lb1"}, {"-kill", "lb1", "-kill", "lb2"}, {"-kill", "lb 1"}, {"-start", "lb1\nkill lb2"}, {"backend"}, {"backend", "web-1"},
	} {
		if err := runDemo(t.Context(), args, io.Discard, io.Discard); !errors.Is(err, errUsage) {
			t.Errorf("demo %q: got error %v, want one of usage", args, err)
		}
	}
	var out bytes.Buffer
	if err := runDemo(t.Context(), []string{"-h"}, &out, io.Discard); err != nil || out.String() != demoUsage {
		t.Errorf("demo -h: got error %v and %q, want the usage", err, &out)
	}
}

func TestDemoRequestWithoutDemo(t *testing.T) {
	dir := shortTempDir(t)
	for _, dir := range []string{dir, filepath.Join(dir, "missing")} {
		err := demoCommand{"kill", "lb1"}.send(dir, io.Discard)
		if err == nil || !strings.Contains(err.Error(), "start one with lbnode demo") {
			t.Errorf("got error %v, want advice to start a demo", err)
		}
	}
}

func TestTypedCommand(t *testing.T) {
	for _, test := range []struct{ executable, arg0, want string }{
		{"/tmp/go-build33/b001/exe/lbnode", "/tmp/go-build33/b001/exe/lbnode", "go run ./cmd/lbnode"},
		{"/root/.cache/go-build/ab/ab12-d/lbnode", "/root/.cache/go-build/ab/ab12-d/lbnode", "go run ./cmd/lbnode"},
		{"/usr/bin/lbnode", "lbnode", "lbnode"},
		{"/home/me/lbnode", "./lbnode", "./lbnode"},
	} {
		if got := typedCommand(test.executable, test.arg0); got != test.want {
			t.Errorf("%s run as %s: got %q, want %q", test.executable, test.arg0, got, test.want)
		}
	}
}

func TestStandardDemo(t *testing.T) {
	members := standardDemo().members("/d")
	var names, ports []string
	for _, m := range members {
		names = append(names, m.name)
		for i, arg := range m.args {
			if strings.HasPrefix(arg, "127.0.0.1:") && m.args[i-1] != "-join" {
				ports = append(ports, arg)
			}
		}
	}
	if want := []string{"lb1", "lb2", "lb3", "web-1", "web-2", "web-3"}; !slices.Equal(names, want) {
		t.Errorf("got members %v, want %v", names, want)
	}
	slices.Sort(ports)
	if got := slices.Compact(slices.Clone(ports)); len(got) != 15 || len(ports) != 15 {
		t.Errorf("got ports %v, want 15, none of them twice", ports)
	}
	want := "-node lb2 -bind 127.0.0.1:7956 -raft 127.0.0.1:7957 -admin 127.0.0.1:8414 -http 127.0.0.1:3100" +
		" -join 127.0.0.1:7946,127.0.0.1:7956,127.0.0.1:7966 -data-dir /d/lb2 -log-level warn"
	if got := strings.Join(members[1].args, " "); got != want {
		t.Errorf("got lb2 %s, want %s", got, want)
	}
}

func TestGreeter(t *testing.T) {
	answer := httptest.NewRecorder()
	r := httptest.NewRequest("POST", "/a?b=c", nil)
	r.Header.Set("X-Forwarded-For", "10.0.0.9")
	greeter("web-1", "3001")(answer, r)
	want := "Hello from web-1 on :3001\nPOST /a?b=c\nX-Forwarded-For: 10.0.0.9\n"
	if got := answer.Body.String(); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
