//go:build linux

package main

import (
	"bytes"
	"fmt"
	"html"
	"math"
	"slices"
	"strings"
)

// The measures of the chart of a simulation, in pixels. Panels stand side by side.
const (
	simPanelWidth = 560
	simPanels     = 2   // in a row
	simLabels     = 185 // where bars begin
	simBars       = 460 // where the longest may end; figures follow
	simHead       = 56  // of a panel, above its first bar
)

// simScale maps milliseconds to pixels by their logarithms, from a power of ten on.
type simScale struct{ least, most float64 }

// newSimScale holds the 99th percentiles of all cells, so that panels can be compared.
func newSimScale(cells []*simCell) simScale {
	s := simScale{math.Inf(1), 0}
	for _, c := range cells {
		for _, row := range c.rows {
			p99 := row.p99().median
			s.least, s.most = min(s.least, p99), max(s.most, p99)
		}
	}
	s.least = math.Pow(10, math.Floor(math.Log10(max(s.least, 1e-3))))
	s.most = max(s.most, 10*s.least)
	return s
}

func (s simScale) x(ms float64) float64 {
	share := math.Log(ms/s.least) / math.Log(s.most/s.least)
	return simLabels + min(max(share, 0), 1)*(simBars-simLabels)
}

// renderSimSVG draws a panel for each cell, and in it a bar for each strategy with
// the interval of its 99th percentile.
func renderSimSVG(cells []*simCell) []byte {
	var body bytes.Buffer
	on := newSimScale(cells)
	y := 40
	for row := range slices.Chunk(cells, simPanels) {
		height := 0
		for i, c := range row {
			fmt.Fprintf(&body, "<g transform=\"translate(%d,%d)\">\n", i*simPanelWidth, y)
			height = max(height, c.draw(&body, on))
			body.WriteString("</g>\n")
		}
		y += height
	}
	var out bytes.Buffer
	fmt.Fprintf(&out, "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\" role=\"img\">\n%s", simPanels*simPanelWidth, y, chartStyle)
	out.WriteString("<text x=\"10\" y=\"22\">99th percentile of the time of a request, in ms, on a logarithmic scale; less is better; orange: references that no pool can have</text>\n")
	out.Write(body.Bytes())
	out.WriteString("</svg>\n")
	return out.Bytes()
}

// draw draws the panel of a cell and says how high it is.
func (c *simCell) draw(out *bytes.Buffer, on simScale) int {
	bottom := simHead + barStep*len(c.rows) - 8
	fmt.Fprintf(out, "<text class=\"case\" x=\"10\" y=\"16\">%s</text>\n", html.EscapeString(c.title()))
	for tick := on.least; tick <= on.most; tick *= 10 {
		x := on.x(tick)
		fmt.Fprintf(out, "<text class=\"tick\" x=\"%.1f\" y=\"34\" text-anchor=\"middle\">%g</text>\n", x, tick)
		fmt.Fprintf(out, "<line class=\"grid\" x1=\"%.1f\" x2=\"%.1f\" y1=\"39\" y2=\"%d\"/>\n", x, x, bottom)
	}
	for i, row := range c.rows {
		row.draw(out, simHead+barStep*i, on)
	}
	return bottom + groupGap
}

func (r *simRow) draw(out *bytes.Buffer, y int, on simScale) {
	class := "bar"
	name, reference := strings.CutPrefix(r.strategy, "reference:")
	if reference {
		class = "worse"
	}
	p99 := r.p99()
	end := on.x(p99.median)
	fmt.Fprintf(out, "<text x=\"%d\" y=\"%d\" text-anchor=\"end\">%s</text>\n", simLabels-8, y, html.EscapeString(name))
	fmt.Fprintf(out, "<rect class=\"%s\" x=\"%d\" y=\"%d\" width=\"%.1f\" height=\"14\"/>\n", class, simLabels, y-11, end-simLabels)
	if p99.certain() {
		fmt.Fprintf(out, "<line class=\"whisker\" x1=\"%.1f\" x2=\"%.1f\" y1=\"%d\" y2=\"%d\"/>\n", on.x(p99.low), on.x(p99.high), y-4, y-4)
		end = max(end, on.x(p99.high))
	}
	fmt.Fprintf(out, "<text x=\"%.1f\" y=\"%d\">%s</text>\n", end+8, y, figure(p99.median))
}
