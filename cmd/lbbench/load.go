//go:build linux

package main

import (
	"context"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// load is what a closed-loop load generator is asked to do.
type load struct {
	url         string
	connections int
	post        int // bytes of the body of a POST; 0: GET
	time        time.Duration
}

// outcome is what a load generator saw.
type outcome struct {
	requests int
	rate     float64 // requests a second
	errors   int     // answers other than 2xx, broken connections, timeouts
	detail   string  // what the errors were
}

// check returns an error if any request failed or none was made.
func (o outcome) check() error {
	if o.errors > 0 {
		return fmt.Errorf("%d of %d requests failed (%s)", o.errors, o.requests, o.detail)
	}
	if o.requests == 0 {
		return fmt.Errorf("no request was answered")
	}
	return nil
}

// generate has the program make the load from the given core and returns what it saw.
func (l load) generate(ctx context.Context, program string, core int, dir string) (outcome, error) {
	args, parse := l.wrk, parseWrk
	if program == "h2load" {
		args, parse = l.h2load, parseH2load
	}
	command, err := args(dir)
	if err != nil {
		return outcome{}, err
	}
	text, err := output(ctx, core, command...)
	if err != nil {
		return outcome{}, err
	}
	o, err := parse(text)
	if err != nil {
		return outcome{}, err
	}
	return o, o.check()
}

// wrk returns the command line of wrk. One thread, for it has one core.
func (l load) wrk(dir string) ([]string, error) {
	seconds := max(1, int(math.Ceil(l.time.Seconds())))
	args := []string{"wrk", "-t1", "-c" + strconv.Itoa(l.connections), "-d" + strconv.Itoa(seconds) + "s", "--timeout", "10s"}
	if l.post > 0 {
		script := filepath.Join(dir, "post.lua")
		text := fmt.Sprintf("wrk.method = \"POST\"\nwrk.body = string.rep(\"x\", %d)\n", l.post)
		if err := os.WriteFile(script, []byte(text), 0o600); err != nil {
			return nil, fmt.Errorf("cannot write wrk's script: %w", err)
		}
		args = append(args, "-s", script)
	}
	return append(args, l.url), nil
}

// h2load returns the command line of h2load, which speaks HTTP/1.1 too.
func (l load) h2load(dir string) ([]string, error) {
	args := []string{"h2load", "--h1", "-t1", "-c" + strconv.Itoa(l.connections), "-D" + strconv.FormatInt(l.time.Milliseconds(), 10) + "ms"}
	if l.post > 0 {
		body := filepath.Join(dir, "post.body")
		if err := os.WriteFile(body, []byte(strings.Repeat("x", l.post)), 0o600); err != nil {
			return nil, fmt.Errorf("cannot write h2load's body: %w", err)
		}
		args = append(args, "-d", body)
	}
	return append(args, l.url), nil
}

// numbers returns what the groups of the pattern matched, as numbers.
func numbers(pattern, text string) []float64 {
	var found []float64
	groups := regexp.MustCompile(pattern).FindStringSubmatch(text)
	for _, group := range groups[min(1, len(groups)):] {
		n, err := strconv.ParseFloat(group, 64)
		if err != nil {
			return nil
		}
		found = append(found, n)
	}
	return found
}

// parseWrk reads what wrk printed.
func parseWrk(text string) (outcome, error) {
	requests := numbers(`(?m)^\s*(\d+) requests in `, text)
	rate := numbers(`(?m)^Requests/sec:\s*([0-9.]+)`, text)
	if requests == nil || rate == nil {
		return outcome{}, fmt.Errorf("cannot read what wrk printed: %q", text)
	}
	o := outcome{requests: int(requests[0]), rate: rate[0]}
	if sockets := numbers(`Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)`, text); sockets != nil {
		for _, n := range sockets {
			o.errors += int(n)
		}
		o.detail = fmt.Sprintf("connect %.0f, read %.0f, write %.0f, timeout %.0f", sockets[0], sockets[1], sockets[2], sockets[3])
	}
	if statuses := numbers(`Non-2xx or 3xx responses: (\d+)`, text); statuses != nil {
		o.errors += int(statuses[0])
		o.detail = strings.TrimPrefix(fmt.Sprintf("%s, status not 2xx %.0f", o.detail, statuses[0]), ", ")
	}
	return o, nil
}

// parseH2load reads what h2load printed.
func parseH2load(text string) (outcome, error) {
	rate := numbers(`finished in [^,]+, ([0-9.]+) req/s`, text)
	counts := numbers(`requests: \d+ total, \d+ started, (\d+) done, \d+ succeeded, (\d+) failed, (\d+) errored, (\d+) timeout`, text)
	statuses := numbers(`status codes: (\d+) 2xx, (\d+) 3xx, (\d+) 4xx, (\d+) 5xx`, text)
	if rate == nil || counts == nil || statuses == nil {
		return outcome{}, fmt.Errorf("cannot read what h2load printed: %q", text)
	}
	bad := statuses[1] + statuses[2] + statuses[3]
	o := outcome{requests: int(counts[0]), rate: rate[0], errors: int(max(counts[1], bad))} // errored and timeout are among the failed
	if o.errors > 0 {
		o.detail = fmt.Sprintf("failed %.0f, of these timeout %.0f; status not 2xx %.0f", counts[1], counts[3], bad)
	}
	return o, nil
}
