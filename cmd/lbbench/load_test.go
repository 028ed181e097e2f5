//go:build linux

package main

import (
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

const wrkHead = `Running 2s test @ http://127.0.0.1:7002/small
  1 threads and 64 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     1.03ms  244.11us   5.62ms   89.70%
    Req/Sec    62.13k     3.04k   66.31k    80.00%
  123591 requests in 2.00s, 23.10MB read
`

const wrkTail = `Requests/sec:  61790.21
Transfer/sec:     11.55MB
`

func TestParseWrk(t *testing.T) {
	for _, c := range []struct {
		name, text string
		want       outcome
	}{
		{"clean", wrkHead + wrkTail, outcome{requests: 123591, rate: 61790.21}},
		{"broken connections", wrkHead + "  Socket errors: connect 1, read 2, write 0, timeout 4\n" + wrkTail,
			outcome{123591, 61790.21, 7, "connect 1, read 2, write 0, timeout 4"}},
		{"wrong status", wrkHead + "  Non-2xx or 3xx responses: 5\n" + wrkTail,
			outcome{123591, 61790.21, 5, "status not 2xx 5"}},
		{"both", wrkHead + "  Socket errors: connect 0, read 1, write 0, timeout 0\n  Non-2xx or 3xx responses: 5\n" + wrkTail,
			outcome{123591, 61790.21, 6, "connect 0, read 1, write 0, timeout 0, status not 2xx 5"}},
	} {
		if got, err := parseWrk(c.text); err != nil || got != c.want {
			t.Errorf("%s: got %+v, %v, want %+v", c.name, got, err, c.want)
		}
	}
	for _, text := range []string{"", "unable to connect to 127.0.0.1:1 Connection refused\n", wrkHead} {
		if got, err := parseWrk(text); err == nil {
			t.Errorf("%q: got %+v, want an error", text, got)
		}
	}
}

const h2loadText = `finished in 501.08ms, 60012.50 req/s, 9.01MB/s
requests: 30071 total, 30071 started, 30070 done, 30060 succeeded, FAILED failed, 4 errored, 2 timeout
status codes: 30060 2xx, 0 3xx, 4xx 4xx, 1 5xx
traffic: 4.51MB (4731234) total, 1.32MB (1382760) headers (space savings 0.00%), 2.87MB (3007000) data
`

func TestParseH2load(t *testing.T) {
	clean := strings.NewReplacer("FAILED", "0", "4xx 4xx", "0 4xx", "1 5xx", "0 5xx", "4 errored, 2 timeout", "0 errored, 0 timeout").Replace(h2loadText)
	dirty := strings.NewReplacer("FAILED", "10", "4xx 4xx", "3 4xx").Replace(h2loadText)
	if got, err := parseH2load(clean); err != nil || got != (outcome{requests: 30070, rate: 60012.5}) {
		t.Errorf("clean: got %+v, %v", got, err)
	}
	want := outcome{30070, 60012.5, 10, "failed 10, of these timeout 2; status not 2xx 4"}
	if got, err := parseH2load(dirty); err != nil || got != want {
		t.Errorf("with errors: got %+v, %v, want %+v", got, err, want)
	}
	if got, err := parseH2load("could not connect"); err == nil {
		t.Errorf("got %+v, want an error", got)
	}
}

func TestOutcomeWithErrorsFails(t *testing.T) {
	for _, c := range []struct {
		outcome outcome
		ok      bool
	}{
		{outcome{requests: 1}, true},
		{outcome{}, false},
		{outcome{requests: 100, errors: 1}, false},
	} {
		if err := c.outcome.check(); (err == nil) != c.ok {
			t.Errorf("%+v: got %v, want ok to be %v", c.outcome, err, c.ok)
		}
	}
}

func TestLoadCommands(t *testing.T) {
	dir := t.TempDir()
	l := load{url: "http://a/", connections: 64, time: 1200 * time.Millisecond}
	if got, want := mustArgs(t, l.wrk, dir), "wrk -t1 -c64 -d2s --timeout 10s http://a/"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got, want := mustArgs(t, l.h2load, dir), "h2load --h1 -t1 -c64 -D1200ms http://a/"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	l.post = 4096
	mustArgs(t, l.h2load, dir)
	if body, err := os.ReadFile(dir + "/post.body"); err != nil || len(body) != 4096 {
		t.Errorf("got a body of %d bytes, %v, want 4096", len(body), err)
	}
	if args, _ := l.wrk(dir); !slices.Contains(args, dir+"/post.lua") {
		t.Errorf("got %q, want a script in it", args)
	}
}

func mustArgs(t *testing.T, args func(string) ([]string, error), dir string) string {
	t.Helper()
	got, err := args(dir)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(got, " ")
}
