//go:build linux

package main

import (
	"bytes"
	"fmt"
	"html"
	"math"
)

// The chart's measures, in pixels.
const (
	chartWidth = 760
	chartLeft  = 200 // where bars begin
	chartRight = 610 // where the longest ends; the figure follows
	barStep    = 22
	groupGap   = 34
)

// Colours follow the reader's preference for light or dark.
const chartStyle = `<style>
text{font:13px system-ui,sans-serif;fill:#222}
.case{font-weight:600}.bar{fill:#3b7dd8}.worse{fill:#c8743a}.whisker,.one{stroke:#222;stroke-width:1.5}.one{stroke-dasharray:4 3}
@media(prefers-color-scheme:dark){text{fill:#ddd}.bar{fill:#6aa3f0}.worse{fill:#e0975f}.whisker,.one{stroke:#ddd}}
</style>
`

// renderSVG draws a bar for each ratio of the cases' main values, with its
// interval, and a line where lbnode and its peer are equal.
func renderSVG(results []result) []byte {
	var body bytes.Buffer
	scale := (chartRight - chartLeft) / longest(results)
	y := 50
	for _, r := range results {
		fmt.Fprintf(&body, "<text class=\"case\" x=\"10\" y=\"%d\">%s</text>\n", y, html.EscapeString(r.name+": "+r.columns[0]))
		y += barStep
		for _, s := range r.series {
			if e, ok := r.ratio(s, 0); ok {
				drawBar(&body, y, s.peer, e, scale)
				y += barStep
			}
		}
		y += groupGap - barStep
	}
	one := chartLeft + scale
	var out bytes.Buffer
	fmt.Fprintf(&out, "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\" role=\"img\">\n%s", chartWidth, y, chartStyle)
	fmt.Fprintf(&out, "<text x=\"10\" y=\"22\">lbnode ÷ peer; left of the dashed line, lbnode needs less</text>\n")
	out.Write(body.Bytes())
	fmt.Fprintf(&out, "<line class=\"one\" x1=\"%.1f\" x2=\"%.1f\" y1=\"34\" y2=\"%d\"/>\n</svg>\n", one, one, y-12)
	return out.Bytes()
}

func drawBar(out *bytes.Buffer, y int, peer string, e estimate, scale float64) {
	class := "bar"
	if e.median > 1 {
		class = "worse"
	}
	end := chartLeft + e.median*scale
	fmt.Fprintf(out, "<text x=\"%d\" y=\"%d\" text-anchor=\"end\">%s</text>\n", chartLeft-8, y, html.EscapeString(peer))
	fmt.Fprintf(out, "<rect class=\"%s\" x=\"%d\" y=\"%d\" width=\"%.1f\" height=\"14\"/>\n", class, chartLeft, y-11, e.median*scale)
	if e.certain() {
		from, to := chartLeft+e.low*scale, chartLeft+min(e.high*scale, float64(chartRight-chartLeft))
		fmt.Fprintf(out, "<line class=\"whisker\" x1=\"%.1f\" x2=\"%.1f\" y1=\"%d\" y2=\"%d\"/>\n", from, to, y-4, y-4)
		end = max(end, to)
	}
	fmt.Fprintf(out, "<text x=\"%.1f\" y=\"%d\">%s</text>\n", end+8, y, e)
}

// longest returns the greatest ratio that is drawn, at least a little over 1.
func longest(results []result) float64 {
	most := 1.2
	for _, r := range results {
		for _, s := range r.series {
			if e, ok := r.ratio(s, 0); ok && !math.IsInf(e.median, 0) {
				most = max(most, e.median)
			}
		}
	}
	return most
}
