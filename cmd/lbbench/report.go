//go:build linux

package main

import (
	"bytes"
	"fmt"
	"io"
	"math"
	"os"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"
)

// noProxy is the row of what load and backend do without a proxy.
const noProxy = "no proxy"

// result is what a case gave.
type result struct {
	scenario
	series []series  // the subject's is the first
	rates  []float64 // of the open loop in each round, if there is one
	// reference is the proxy from whose peak they are.
	reference string
}

// series are the samples of one proxy, one for each round until it failed.
type series struct {
	peer    string
	samples []sample
	err     error
}

func (r result) failed() bool {
	for _, s := range r.series {
		if s.err != nil {
			return true
		}
	}
	return false
}

// column returns one value of every sample.
func (s series) column(i int) []float64 {
	var values []float64
	for _, sample := range s.samples {
		values = append(values, sample.values[i])
	}
	return values
}

// behind returns in how many rounds a proxy did not keep up with an open loop.
func (s series) behind() (rounds int) {
	for _, sample := range s.samples {
		if sample.behind {
			rounds++
		}
	}
	return rounds
}

// ratio compares the subject with another proxy, round by round. A proxy that
// failed has no ratio. Rounds in which one of the two fell behind do not count: how
// late its answers are is a matter of how long one waits. With fewer than half of
// the rounds left there is no ratio either.
func (r result) ratio(s series, column int) (estimate, bool) {
	subject := r.series[0]
	if subject.err != nil || s.err != nil || s.peer == subject.peer || s.peer == noProxy {
		return estimate{}, false
	}
	var ratios []float64
	for i := range subject.samples {
		if mine, other := subject.samples[i], s.samples[i]; !mine.behind && !other.behind {
			ratios = append(ratios, mine.values[column]/other.values[column])
		}
	}
	return estimateRatio(ratios), len(ratios) > 0 && 2*len(ratios) >= len(subject.samples)
}

// table is a heading with rows, before it is text or Markdown.
type table struct {
	title string
	rows  [][]string // the first is the header
	notes []string
}

// figure prints three digits that count.
func figure(v float64) string {
	switch digits := math.Abs(v); {
	case digits >= 100:
		return fmt.Sprintf("%.0f", v)
	case digits >= 10:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.2f", v)
}

func (e estimate) String() string {
	if !e.certain() {
		return figure(e.median)
	}
	return fmt.Sprintf("%s [%s, %s]", figure(e.median), figure(e.low), figure(e.high))
}

// summary has a line for each case and a column for each peer.
func summary(results []result) table {
	t := table{title: "lbnode ÷ peer", rows: [][]string{{"case", "what"}}}
	for _, r := range results {
		for _, s := range r.series {
			if s.peer != subject && s.peer != noProxy && !slices.Contains(t.rows[0], s.peer) {
				t.rows[0] = append(t.rows[0], s.peer)
			}
		}
	}
	for _, r := range results {
		row := []string{r.name, r.columns[0]}
		for _, peer := range t.rows[0][2:] {
			row = append(row, r.cell(peer))
		}
		t.rows = append(t.rows, row)
	}
	t.notes = []string{"Below 1, lbnode needs less. Medians of ratios within a round; in brackets where the ratio lies with 95 % confidence, by Student's t over logarithms. \"behind\": in more than half of the rounds one of the two could not keep up."}
	return t
}

// cell is the ratio to a peer, for the summary.
func (r result) cell(peer string) string {
	for _, s := range r.series {
		if s.peer != peer {
			continue
		}
		if e, ok := r.ratio(s, 0); ok {
			return e.String()
		}
		if s.err == nil && r.series[0].err == nil {
			return "behind"
		}
		return "failed"
	}
	return ""
}

// detail has a line for each proxy of a case.
func (r result) detail() table {
	t := table{title: r.name + ": " + r.title, rows: [][]string{{"proxy"}}}
	if len(r.rates) > 0 {
		t.notes = []string{fmt.Sprintf("%.0f to %.0f requests/s, in each round 70 %% of the peak of %s just before. Times count from when a request was due. Rounds in which one of two could not keep up have no ratio.",
			slices.Min(r.rates), slices.Max(r.rates), r.reference)}
	}
	for _, c := range r.columns {
		t.rows[0] = append(t.rows[0], c, "lbnode ÷")
	}
	for i, s := range r.series {
		row := []string{s.peer}
		for c := range r.columns {
			row = append(row, r.cells(s, c)...)
		}
		t.rows = append(t.rows, row)
		t.notes = append(t.notes, r.remarks(i)...)
	}
	return t
}

func (r result) cells(s series, column int) []string {
	if s.err != nil {
		return []string{"FAILED", ""}
	}
	value := figure(median(s.column(column)))
	e, ok := r.ratio(s, column)
	if !ok {
		return []string{value, ""}
	}
	return []string{value, e.String()}
}

// remarks are what a reader must know of one proxy's samples.
func (r result) remarks(i int) []string {
	s := r.series[i]
	if s.err != nil {
		return []string{fmt.Sprintf("%s FAILED: %v", s.peer, s.err)}
	}
	var notes []string
	var allocs []float64
	for _, sample := range s.samples {
		allocs = append(allocs, sample.allocs)
	}
	if rounds := s.behind(); rounds > 0 {
		notes = append(notes, fmt.Sprintf("%s could not keep up in %d of %d rounds.", s.peer, rounds, len(s.samples)))
	}
	if a := median(allocs); a > 0 {
		notes = append(notes, fmt.Sprintf("%s allocates %.3f objects for a request, all that its process does counted.", s.peer, a))
	}
	return notes
}

// write prints the tables and writes the files that were asked for.
func (b *bench) write(results []result, stdout io.Writer) error {
	tables := []table{summary(results)}
	for _, r := range results {
		tables = append(tables, r.detail())
	}
	head := append([]string{fmt.Sprintf("%d rounds of %s, load by %s", b.rounds, b.time, b.load)}, b.machine...)
	for _, m := range b.missing {
		head = append(head, "left out: "+m)
	}
	if err := writeText(stdout, head, tables); err != nil {
		return fmt.Errorf("cannot print the tables: %w", err)
	}
	if b.markdown != "" {
		if err := os.WriteFile(b.markdown, renderMarkdown(head, tables), 0o644); err != nil {
			return fmt.Errorf("cannot write the tables: %w", err)
		}
	}
	if b.svg != "" {
		if err := os.WriteFile(b.svg, renderSVG(results), 0o644); err != nil {
			return fmt.Errorf("cannot write the chart: %w", err)
		}
	}
	return nil
}

func writeText(w io.Writer, head []string, tables []table) error {
	for _, line := range head {
		fmt.Fprintln(w, line)
	}
	for _, t := range tables {
		fmt.Fprintf(w, "\n%s\n", t.title)
		columns := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		for _, row := range t.rows {
			fmt.Fprintln(columns, "  "+strings.Join(row, "\t"))
		}
		if err := columns.Flush(); err != nil {
			return err
		}
		for _, note := range t.notes {
			fmt.Fprintln(w, "  "+note)
		}
	}
	return nil
}

func renderMarkdown(head []string, tables []table) []byte {
	var out bytes.Buffer
	for _, line := range head {
		fmt.Fprintln(&out, "- "+line)
	}
	for _, t := range tables {
		fmt.Fprintf(&out, "\n### %s\n\n", t.title)
		for i, row := range t.rows {
			fmt.Fprintf(&out, "| %s |\n", strings.Join(row, " | "))
			if i == 0 {
				fmt.Fprintf(&out, "|%s\n", strings.Repeat("---|", len(row)))
			}
		}
		if len(t.notes) > 0 {
			fmt.Fprintf(&out, "\n%s\n", strings.Join(t.notes, "\n\n"))
		}
	}
	return out.Bytes()
}

// describeMachine says on what the figures were taken.
func describeMachine(core, loadCore int) []string {
	busy, _, _ := strings.Cut(readOr("/proc/loadavg", "unknown"), " ")
	return []string{
		fmt.Sprintf("CPU: %s, %d cores; proxy on core %d, load and backend on core %d", cpuModel(), runtime.NumCPU(), core, loadCore),
		fmt.Sprintf("kernel: %s; built with %s; load average before the start: %s", strings.TrimSpace(readOr("/proc/sys/kernel/osrelease", "unknown")), runtime.Version(), busy),
	}
}

func cpuModel() string {
	for line := range strings.Lines(readOr("/proc/cpuinfo", "")) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return runtime.GOARCH
}

func readOr(path, otherwise string) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return otherwise
	}
	return string(text)
}
