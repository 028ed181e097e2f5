//go:build linux

package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// scenario is one of the cases: what is asked of every proxy and what is counted.
type scenario struct {
	name    string
	title   string
	columns []string // titles of the values of a sample; the first is the main one
	load    load     // what warms the proxies up and, unless measure says otherwise, is measured
	fresh   bool     // each sample has a process of its own, not warmed up
	direct  bool     // also measured without any proxy: the floor of the measurement
	peak    bool     // needs to know how much nginx can do
	measure func(ctx context.Context, b *bench, c *scenario, p *proxy) (sample, error)
}

// sample is what one round of one proxy gave.
type sample struct {
	values []float64 // one for each column of the case
	allocs float64   // objects allocated per request; 0: not known
	behind bool      // fewer requests were answered than asked for
}

const costTitle, rateTitle = "CPU µs/request", "requests/s"

// allCases are the cases in the order in which they run.
func allCases() []scenario {
	perRequest := []string{costTitle, rateTitle}
	return []scenario{
		{name: "small", title: "Answers of 100 bytes, 64 connections", columns: perRequest, load: load{url: pathSmall, connections: 64}, measure: measureRequests},
		{name: "medium", title: "Answers of 16 KiB, 64 connections", columns: perRequest, load: load{url: pathMedium, connections: 64}, measure: measureRequests},
		{name: "large", title: "Answers of 1 MiB, 64 connections", columns: []string{"CPU ms/GB", "MB/s"}, load: load{url: pathLarge, connections: 64}, measure: measureBytes},
		{name: "post", title: "POST of 4 KiB, 64 connections", columns: perRequest, load: load{url: pathSmall, connections: 64, post: 4096}, measure: measureRequests},
		{name: "many", title: "Answers of 100 bytes, 2000 connections", columns: perRequest, load: load{url: pathSmall, connections: 2000}, measure: measureRequests},
		{name: "idle", title: "Memory of an idle connection that has made one request", columns: []string{"KiB/connection"}, fresh: true, measure: measureIdle},
		{name: "latency", title: "Open loop, answers of 100 bytes, 256 connections", columns: []string{"p99 µs", "p50 µs", "p99.9 µs"},
			load: load{url: pathSmall, connections: 64}, direct: true, peak: true, measure: measureLatency},
	}
}

func caseNames() []string {
	var names []string
	for _, c := range allCases() {
		names = append(names, c.name)
	}
	return names
}

// caseHelp lists the cases, a line each.
func caseHelp() string {
	var lines strings.Builder
	for _, c := range allCases() {
		fmt.Fprintf(&lines, "  %-8s %s: %s\n", c.name, c.title, strings.Join(c.columns, ", "))
	}
	return strings.TrimSuffix(lines.String(), "\n")
}

// warmUp has the proxy fill its pools.
func (c *scenario) warmUp(ctx context.Context, b *bench, p *proxy) error {
	l := c.load
	l.url, l.time = "http://"+p.Listen+l.url, min(b.time, time.Second)
	_, err := l.generate(ctx, b.load, b.loadCore, b.dir)
	return err
}

// measureRequests counts the CPU time of a request.
func measureRequests(ctx context.Context, b *bench, c *scenario, p *proxy) (sample, error) {
	spent, o, allocs, err := underLoad(ctx, b, c, p)
	if err != nil {
		return sample{}, err
	}
	cost := float64(spent.Microseconds()) / float64(o.requests)
	return sample{values: []float64{cost, o.rate}, allocs: allocs}, nil
}

// measureBytes counts the CPU time of the bytes of answers.
func measureBytes(ctx context.Context, b *bench, c *scenario, p *proxy) (sample, error) {
	spent, o, _, err := underLoad(ctx, b, c, p)
	if err != nil {
		return sample{}, err
	}
	size := float64(bodySize(c.load.url))
	cost := spent.Seconds() * 1e3 / (float64(o.requests) * size / 1e9)
	return sample{values: []float64{cost, o.rate * size / 1e6}}, nil
}

// underLoad returns the CPU time that the proxy spent while the load ran, what
// the load saw, and how many objects lbnode allocated for a request.
func underLoad(ctx context.Context, b *bench, c *scenario, p *proxy) (time.Duration, outcome, float64, error) {
	l := c.load
	l.url, l.time = "http://"+p.Listen+l.url, b.time
	objects := allocated(ctx, p)
	before, err := cpuTime(p.process.pid())
	if err != nil {
		return 0, outcome{}, 0, err
	}
	o, err := l.generate(ctx, b.load, b.loadCore, b.dir)
	if err != nil {
		return 0, outcome{}, 0, err
	}
	after, err := cpuTime(p.process.pid())
	if err != nil {
		return 0, outcome{}, 0, err
	}
	if after <= before {
		return 0, outcome{}, 0, fmt.Errorf("no CPU time was counted for %d requests; rounds must be longer", o.requests)
	}
	return after - before, o, (allocated(ctx, p) - objects) / float64(o.requests), nil
}

// allocated returns how many objects lbnode has allocated since its start; 0 for
// other proxies, or if it does not say.
func allocated(ctx context.Context, p *proxy) float64 {
	if p.name != subject {
		return 0
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.Admin+"/metrics", nil)
	if err != nil {
		return 0
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0
	}
	defer response.Body.Close()
	return findMetric(response.Body, "go_memstats_mallocs_total")
}

// findMetric returns the value of a metric without labels, 0 if it is not there.
func findMetric(text io.Reader, name string) float64 {
	lines := bufio.NewScanner(text)
	for lines.Scan() {
		if value, ok := strings.CutPrefix(lines.Text(), name+" "); ok {
			n, err := strconv.ParseFloat(value, 64)
			if err != nil {
				return 0
			}
			return n
		}
	}
	return 0
}

// measureLatency sends as many requests as nginx can do at 70 % of its peak,
// whoever is measured.
func measureLatency(ctx context.Context, b *bench, c *scenario, p *proxy) (sample, error) {
	r, err := b.openLoop(ctx, openLoopOrder{Address: p.Listen, Rate: b.rate, Time: b.time, Connections: 256})
	if err != nil {
		return sample{}, err
	}
	if r.Errors > 0 || r.Requests == 0 {
		return sample{}, fmt.Errorf("%d of %d requests failed (%s)", r.Errors, r.Requests, r.Detail)
	}
	s := sample{values: []float64{float64(r.P99) / 1e3, float64(r.P50) / 1e3, float64(r.P999) / 1e3}}
	s.behind = r.Rate < 0.98*b.rate
	return s, nil
}

// openLoop has the backend make an open loop.
func (b *bench) openLoop(ctx context.Context, o openLoopOrder) (openLoopReport, error) {
	var r openLoopReport
	order, err := json.Marshal(o)
	if err != nil {
		return r, fmt.Errorf("cannot make an open loop: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, o.Time+patience)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+b.address+pathOpenLoop+url.QueryEscape(string(order)), nil)
	if err != nil {
		return r, fmt.Errorf("cannot make an open loop: %w", err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return r, fmt.Errorf("cannot make an open loop: %w", err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s", text)
	}
	if err == nil {
		err = json.Unmarshal(text, &r)
	}
	if err != nil {
		return r, fmt.Errorf("cannot make an open loop: %w", err)
	}
	return r, nil
}

// measureIdle opens many connections, makes one request on each, and compares the
// memory of the proxy before and after.
func measureIdle(ctx context.Context, b *bench, c *scenario, p *proxy) (sample, error) {
	before, err := settledMemory(ctx, p)
	if err != nil {
		return sample{}, err
	}
	var open []net.Conn
	defer func() {
		for _, conn := range open {
			conn.Close()
		}
	}()
	for len(open) < b.idle {
		conn, err := net.DialTimeout("tcp4", p.Listen, patience)
		if err != nil {
			return sample{}, fmt.Errorf("cannot open connection %d: %w", len(open)+1, err)
		}
		open = append(open, conn)
		if err := askOnce(conn); err != nil {
			return sample{}, fmt.Errorf("request on connection %d failed: %w", len(open), err)
		}
		if ctx.Err() != nil {
			return sample{}, ctx.Err()
		}
	}
	after, err := settledMemory(ctx, p)
	if err != nil {
		return sample{}, err
	}
	// A ratio needs a positive value; so few connections are not measurable.
	if after <= before {
		return sample{}, fmt.Errorf("memory did not grow with %d connections; more are needed", len(open))
	}
	return sample{values: []float64{float64(after-before) / 1024 / float64(len(open))}}, nil
}

// askOnce makes one request and leaves the connection open.
func askOnce(conn net.Conn) error {
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	if _, err := io.WriteString(conn, "GET "+pathSmall+" HTTP/1.1\r\nHost: bench\r\n\r\n"); err != nil {
		return err
	}
	var got []byte
	for buffer := make([]byte, 4096); ; {
		n, err := conn.Read(buffer)
		if err != nil {
			return err
		}
		got = append(got, buffer[:n]...)
		if whole, err := responseIsWhole(got); whole || err != nil {
			return err
		}
	}
}

// settledMemory returns the memory of the proxy as soon as it hardly changes any
// more, or what it is after some seconds.
func settledMemory(ctx context.Context, p *proxy) (int64, error) {
	last, err := memory(p.process.pid())
	for range 10 {
		if err != nil {
			return 0, err
		}
		select {
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-time.After(500 * time.Millisecond):
		}
		var now int64
		if now, err = memory(p.process.pid()); math.Abs(float64(now-last)) < 0.002*float64(last) {
			return now, err
		}
		last = now
	}
	return last, err
}
