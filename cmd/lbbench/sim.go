//go:build linux

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"lbnode/proxy/balance/simulate"
)

// simCommand is the word that makes lbbench simulate.
const simCommand = "sim"

// simCell is a scenario with all its numbers, and what it gave.
type simCell struct {
	scenario simulate.Scenario
	world    simulate.World
	rows     []simRow
}

// simRow is one strategy in a cell: a result for each seed, in their order.
type simRow struct {
	strategy string
	results  []*simulate.Result
}

// simulateAll runs what the command line asks for and prints what it gave.
func simulateAll(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	s, err := parseSimSettings(args, stderr)
	if errors.Is(err, flag.ErrHelp) {
		return nil
	}
	if err != nil {
		return err
	}
	began, cells := time.Now(), s.cells()
	for i, c := range cells {
		fmt.Fprintf(stderr, "%d of %d: %s\n", i+1, len(cells), c.title())
		if err := c.run(ctx, s); err != nil {
			return err
		}
	}
	fmt.Fprintf(stderr, "done in %s\n", time.Since(began).Round(time.Second))
	return s.write(cells, stdout)
}

// cells are all that is to be run.
func (s *simSettings) cells() (cells []*simCell) {
	for _, scenario := range simulate.Scenarios() {
		if !slices.Contains(s.scenarios, scenario.Name) {
			continue
		}
		for _, load := range orDefault(s.load, scenario.World.Load) {
			for _, backends := range orDefault(s.backends, scenario.World.Backends) {
				for _, balancers := range orDefault(s.balancers, scenario.Balancers...) {
					w := scenario.With(balancers, backends)
					w.Load = load
					s.adjust(&w)
					cells = append(cells, &simCell{scenario: scenario, world: w})
				}
			}
		}
	}
	return cells
}

func orDefault[T any](given []T, otherwise ...T) []T {
	if len(given) > 0 {
		return given
	}
	return otherwise
}

// run has every strategy face every seed, as many at once as there are cores.
func (c *simCell) run(ctx context.Context, s *simSettings) error {
	for _, strategy := range s.strategies {
		c.rows = append(c.rows, simRow{strategy, make([]*simulate.Result, s.seeds)})
	}
	jobs := len(c.rows) * s.seeds
	failed := make([]error, jobs)
	var next atomic.Int64
	var running sync.WaitGroup
	for range min(runtime.GOMAXPROCS(0), jobs) {
		running.Go(func() {
			for job := int(next.Add(1)) - 1; job < jobs && ctx.Err() == nil; job = int(next.Add(1)) - 1 {
				row, seed := &c.rows[job/s.seeds], job%s.seeds
				w := c.world
				w.Seed = uint64(seed)
				row.results[seed], failed[job] = simulate.Run(w, row.strategy)
			}
		})
	}
	running.Wait()
	return errors.Join(append(failed, ctx.Err())...)
}

// write prints the tables and writes the files that were asked for.
func (s *simSettings) write(cells []*simCell, stdout io.Writer) error {
	var tables []table
	if t, ok := simSummary(cells); ok {
		tables = append(tables, t)
	}
	for _, c := range cells {
		tables = append(tables, c.table())
	}
	head := s.head()
	if err := writeText(stdout, head, tables); err != nil {
		return fmt.Errorf("cannot print the tables: %w", err)
	}
	if s.markdown != "" {
		if err := os.WriteFile(s.markdown, renderMarkdown(head, tables), 0o644); err != nil {
			return fmt.Errorf("cannot write the tables: %w", err)
		}
	}
	if s.svg != "" {
		if err := os.WriteFile(s.svg, renderSimSVG(cells), 0o644); err != nil {
			return fmt.Errorf("cannot write the chart: %w", err)
		}
	}
	return nil
}
