//go:build linux

package main

import (
	"bytes"
	"encoding/xml"
	"errors"
	"flag"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"lbnode/proxy/balance/simulate"
)

func TestSimSettings(t *testing.T) {
	s, err := parseSimSettings(strings.Fields("-scenarios spells,slow -strategies p2c,random -balancers 1,64 -backends 10 -load 0.5,0.95 -servers 4 -service pareto -seeds 3 -time 2s"), io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	cells := s.cells()
	if len(cells) != 2*2*2 {
		t.Fatalf("got %d cells, want 2 scenarios with 2 numbers of balancers and 2 loads each", len(cells))
	}
	last := cells[len(cells)-1]
	w := last.world
	if w.Balancers != 64 || w.Backends != 10 || w.Load != 0.95 || w.Servers != 4 || w.Service != simulate.Pareto || w.Time != 2*time.Second || w.Trouble != simulate.Slow {
		t.Errorf("got %+v as the last, want what the flags say", w)
	}
	if got, want := last.title(), "slow, 64 balancers, 10 backends for 4 requests at once, 95 % load"; got != want {
		t.Errorf("got the title %q, want %q", got, want)
	}
	full, err := parseSimSettings(strings.Fields("-full -load 0.9"), io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := len(full.cells()), len(simulate.Scenarios())*5*3; got != want {
		t.Errorf("got %d cells of the whole grid at one load, want %d", got, want)
	}
	for _, c := range full.cells() {
		if c.scenario.Name == "join" && c.world.Joining*5 != c.world.Backends {
			t.Errorf("got %d backends that join %d, want a fifth", c.world.Joining, c.world.Backends)
		}
	}
}

func TestSimSettingsThatCannotBe(t *testing.T) {
	for args, want := range map[string]string{
		"-scenarios by_magic":  "spells",
		"-scenarios ,":         "no scenario",
		"-strategies by_magic": "least_time",
		"-seeds 0":             "-seeds",
		"-balancers 1,two":     "-balancers",
		"-balancers 0":         "balancers",
		"-backends -3":         "-3 backends",
		"-load 1.5":            "load of 1.5",
		"-load much":           "-load",
		"-servers -1":          "-servers",
		"-service normal":      "lognormal",
		"-time -1s":            "-time",
		"-time 10ms":           "10ms",
		"-rounds 3":            "-rounds",
		"spells":               `"spells"`,
	} {
		_, err := parseSimSettings(strings.Fields(args), io.Discard)
		if !errors.Is(err, errUsage) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want a wrong use with %q", args, err, want)
		}
	}
	var help bytes.Buffer
	if _, err := parseSimSettings([]string{"-h"}, &help); !errors.Is(err, flag.ErrHelp) {
		t.Errorf("-h: got %v, want %v", err, flag.ErrHelp)
	}
	for _, want := range append(simulate.Names(), "black_hole", "-full", "1,3,5,16,64") {
		if !strings.Contains(help.String(), want) {
			t.Errorf("the help does not speak of %q", want)
		}
	}
}

// Every scenario, with every strategy, in a small form, as the command line has it.
func TestSimulateAll(t *testing.T) {
	dir := t.TempDir()
	markdown, svg := filepath.Join(dir, "t.md"), filepath.Join(dir, "c.svg")
	var out bytes.Buffer
	args := []string{simCommand, "-backends", "10", "-balancers", "3", "-seeds", "3", "-time", "4s", "-markdown", markdown, "-svg", svg}
	if err := run(t.Context(), args, &out, io.Discard); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(markdown)
	if err != nil {
		t.Fatal(err)
	}
	chart, err := os.ReadFile(svg)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range simulate.Scenarios() {
		title := s.Name + ", 3 balancers, 10 backends"
		if !strings.Contains(out.String(), title) || !strings.Contains(string(text), "### "+title) || !strings.Contains(string(chart), title) {
			t.Errorf("%s is missing in the text, the tables or the chart", s.Name)
		}
	}
	if rows := strings.Count(string(text), "| "+simulate.ReferenceAll+" |"); rows != len(simulate.Scenarios())+1 {
		t.Errorf("got %d rows of the best reference, want one for each scenario and the head of the summary", rows)
	}
	if strings.Contains(out.String()+string(chart), "NaN") {
		t.Errorf("got figures that are none:\n%s", out.String())
	}
	for d := xml.NewDecoder(bytes.NewReader(chart)); ; {
		if _, err := d.Token(); err == io.EOF {
			break
		} else if err != nil {
			t.Fatalf("the chart is not well formed: %v", err)
		}
	}
}

// someCell has two strategies: the reference, and one that takes half as long.
func someCell() *simCell {
	result := func(p99, eject time.Duration) *simulate.Result {
		return &simulate.Result{Requests: 200, Errors: 1, P50: p99 / 10, P99: p99, P999: 2 * p99, Longest: 7, Eject: eject}
	}
	c := &simCell{scenario: simulate.Scenario{Name: "slow", Title: "one is slow"}, rows: []simRow{
		{simulate.ReferenceInFlight, []*simulate.Result{result(100*time.Millisecond, simulate.Never), result(200*time.Millisecond, simulate.Never), result(300*time.Millisecond, time.Second)}},
		{"least_time", []*simulate.Result{result(50*time.Millisecond, 0), result(100*time.Millisecond, 30*time.Millisecond), result(150*time.Millisecond, time.Second)}},
	}}
	c.world = simulate.World{Balancers: 1, Backends: 2, Servers: 1, Load: 0.8, Trouble: simulate.Slow, Time: time.Second}
	return c
}

func TestSimTables(t *testing.T) {
	c := someCell()
	for i, want := range []string{
		"strategy|p50 ms|p99 ms|p99.9 ms|errors %|longest queue|time to eject",
		"reference:p2c_in_flight|20.0|200 [45.7, 722]|400|0.50|7|never",
		"least_time|10.0|100 [22.9, 361]|200|0.50|7|0.03 s",
	} {
		if got := strings.Join(c.table().rows[i], "|"); got != want {
			t.Errorf("row %d: got %q, want %q", i, got, want)
		}
	}
	got, ok := simSummary([]*simCell{c})
	want := [][]string{{"scenario", "least_time"}, {"slow, 1 balancer, 2 backends, 80 % load", "0.50 [0.50, 0.50]"}}
	if !ok || !slices.EqualFunc(got.rows, want, slices.Equal) {
		t.Errorf("summary: got %q, want %q", got.rows, want)
	}
	c.rows = c.rows[1:]
	if got, ok := simSummary([]*simCell{c}); ok {
		t.Errorf("got the summary %q without what to compare with", got.rows)
	}
}

func TestSimScale(t *testing.T) {
	s := newSimScale([]*simCell{someCell()})
	if s.least != 100 || s.most != 1000 {
		t.Errorf("got %+v, want whole powers of ten below, and room for one", s)
	}
	if got := s.x(100); got != simLabels {
		t.Errorf("the least: got %v, want %d", got, simLabels)
	}
	if got := s.x(1e9); got != simBars {
		t.Errorf("far above: got %v, want %d", got, simBars)
	}
}
