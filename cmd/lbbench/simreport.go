//go:build linux

package main

import (
	"fmt"
	"slices"
	"time"

	"lbnode/proxy/balance/simulate"
)

// head says how the figures came about.
func (s *simSettings) head() []string {
	seeds := fmt.Sprintf("%d seeds", s.seeds)
	if s.seeds == 1 {
		seeds = "one seed"
	}
	return []string{
		"simulated, with the strategies that lbnode runs; " + seeds + "; requests take 10 ms in the mean where a backend is not slow; the first fifth of each run does not count",
		"medians over the seeds; in brackets where the value lies with 95 % confidence, by Student's t over logarithms",
		"times are those of requests that got an answer, retries included; errors are the others",
	}
}

func (c *simCell) title() string {
	w := &c.world
	title := fmt.Sprintf("%s, %s, %s", c.scenario.Name, plural(w.Balancers, "balancer"), plural(w.Backends, "backend"))
	if w.Servers > 1 {
		title += fmt.Sprintf(" for %d requests at once", w.Servers)
	}
	return fmt.Sprintf("%s, %.0f %% load", title, 100*w.Load)
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// table has a line for each strategy of a cell.
func (c *simCell) table() table {
	t := table{title: c.title(), rows: [][]string{{"strategy", "p50 ms", "p99 ms", "p99.9 ms", "errors %", "longest queue"}}}
	if c.world.Trouble != simulate.NoTrouble {
		t.rows[0] = append(t.rows[0], "time to eject")
		t.notes = []string{"Time to eject: from when the backend goes bad until it begins to get less than a tenth of its fair share for a second."}
	}
	service := fmt.Sprintf("%s service times, %s a run", c.world.Service, c.world.Time)
	t.notes = append([]string{c.scenario.Title + "; " + service + "."}, t.notes...)
	for _, row := range c.rows {
		cells := []string{
			row.strategy,
			figure(median(row.column(func(r *simulate.Result) float64 { return ms(r.P50) }))),
			row.p99().String(),
			figure(median(row.column(func(r *simulate.Result) float64 { return ms(r.P999) }))),
			figure(median(row.column(func(r *simulate.Result) float64 { return 100 * float64(r.Errors) / float64(max(r.Requests, 1)) }))),
			fmt.Sprintf("%.0f", median(row.column(func(r *simulate.Result) float64 { return float64(r.Longest) }))),
		}
		if c.world.Trouble != simulate.NoTrouble {
			cells = append(cells, row.eject())
		}
		t.rows = append(t.rows, cells)
	}
	return t
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// column is one value of each result.
func (r *simRow) column(value func(*simulate.Result) float64) (values []float64) {
	for _, result := range r.results {
		values = append(values, value(result))
	}
	return values
}

// p99 is the 99th percentile in ms.
func (r *simRow) p99() estimate {
	return estimateRatio(r.column(func(r *simulate.Result) float64 { return ms(r.P99) }))
}

// eject is the median time to eject; "never" if that is never.
func (r *simRow) eject() string {
	var took []time.Duration
	for _, result := range r.results {
		took = append(took, result.Eject)
	}
	slices.Sort(took)
	if middle := took[len(took)/2]; middle < simulate.Never {
		return fmt.Sprintf("%.2f s", middle.Seconds())
	}
	return "never"
}

// over compares the 99th percentiles of two strategies, seed by seed.
func (r *simRow) over(other *simRow) estimate {
	var ratios []float64
	for i, result := range r.results {
		ratios = append(ratios, ms(result.P99)/ms(other.results[i].P99))
	}
	return estimateRatio(ratios)
}

// simSummary has a line for each cell and a column for each strategy, beside the reference
// that other balancers have. Without that there is none.
func simSummary(cells []*simCell) (table, bool) {
	t := table{title: "p99 ÷ p99 of " + simulate.ReferenceInFlight, rows: [][]string{{"scenario"}}}
	for i, c := range cells {
		at := slices.IndexFunc(c.rows, func(r simRow) bool { return r.strategy == simulate.ReferenceInFlight })
		if at < 0 || len(c.rows) < 2 {
			return table{}, false
		}
		line := []string{c.title()}
		for j := range c.rows {
			if j == at {
				continue
			}
			if i == 0 {
				t.rows[0] = append(t.rows[0], c.rows[j].strategy)
			}
			line = append(line, c.rows[j].over(&c.rows[at]).String())
		}
		t.rows = append(t.rows, line)
	}
	t.notes = []string{"Ratios with the same seed. That reference draws two backends and picks the one with fewer requests of the same balancer under way; " +
		simulate.ReferenceAll + " sees the queues of all backends and how quick each is just now."}
	return t, true
}
